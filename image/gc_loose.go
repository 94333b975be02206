package image

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// expirePartials deletes downloads that were cut off longer than ttl ago, but
// none that a pull is about to go on with.
func (s *Store) expirePartials(ttl time.Duration) (freed int64, err error) {
	old, err := s.oldPartials(ttl)
	for digest := range old {
		n, rerr := s.blobs.RemovePartial(digest)
		freed += n
		err = errors.Join(err, rerr)
	}
	return freed, err
}

func (s *Store) oldPartials(ttl time.Duration) (map[string]int64, error) {
	all, err := s.blobs.Partials()
	if err != nil {
		return nil, err
	}
	old := map[string]int64{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range all {
		if !p.Active && s.pins[p.Digest] == 0 && s.now().Sub(p.Modified) >= ttl {
			old[p.Digest] = p.Size
		}
	}
	return old, nil
}

func (s *Store) partialSize() (sum int64, err error) {
	all, err := s.blobs.Partials()
	for _, p := range all {
		sum += p.Size
	}
	return sum, err
}

// rehearse says what collect would do.
func (s *Store) rehearse(ctx context.Context, o GCOptions, holds []Hold, res *GCResult) error {
	c, err := s.census(ctx, holds, o)
	if err != nil {
		return err
	}
	ttl := partialTTL
	if over, _ := shortage(c.disk, c.reserve, o); over != "" {
		ttl = 0
	}
	old, err := s.oldPartials(ttl)
	if err != nil {
		return err
	}
	var loose disk.Tree
	for _, n := range old {
		loose.Bytes += n
	}
	if err := s.rehearseSweep(ctx, c, res, &loose); err != nil {
		return err
	}
	trash, err := disk.Measure(ctx, s.trash())
	if err != nil {
		return err
	}
	res.Freed = loose.Bytes
	loose = loose.Plus(trash)
	c.disk.Used -= loose.Bytes
	c.disk.Free += loose.Bytes
	c.disk.InodesFree += loose.Files
	users := c.users()
	for _, v := range decide(c, o) {
		if !v.goes {
			continue
		}
		res.Images = append(res.Images, v.digest)
		res.Untagged = append(res.Untagged, v.names...)
		for _, p := range v.parts {
			if users[p] == 1 && !c.fixed[p] {
				res.Deleted = append(res.Deleted, digestOfPart(p))
			}
		}
		res.Freed += c.release(v.resident, users).Bytes
	}
	res.tidy()
	return nil
}

// rehearseSweep finds what belongs to no image.
func (s *Store) rehearseSweep(ctx context.Context, c census, res *GCResult, loose *disk.Tree) error {
	all, err := s.items()
	if err != nil {
		return err
	}
	users := c.users()
	for _, it := range all {
		if users[it.name] > 0 || c.fixed[it.name] {
			continue
		}
		t, err := s.sizeOf(ctx, it.name)
		if err != nil {
			return err
		}
		*loose = loose.Plus(t)
		res.Deleted = append(res.Deleted, it.digest)
	}
	return nil
}
