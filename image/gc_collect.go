package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/index"
)

const (
	// partialTTL is how long a download that was cut off waits for being
	// resumed, unless its room is needed.
	partialTTL = 24 * time.Hour

	// trashLimit bounds how long a collection waits for deleted files to be
	// gone from the disk.
	trashLimit = time.Minute
)

// Collect deletes what no container, lease, hold or running pull needs, within the
// limits of o. Where it stops short of Low, the disk state says so.
//
// What goes first is of no use to anybody: the rest of downloads and of pulls that were cut
// off. Then images; and if there is too little room even then, the compressed blobs of
// images that stay and are unpacked, which is what repairs and `save` read: they are
// fetched again when they are needed. An image that somebody asks for meanwhile
// stays. It returns when what was deleted is gone from the disk.
func (s *Store) Collect(ctx context.Context, o GCOptions) (GCResult, error) {
	o = o.withDefaults()
	s.gc.collect.Lock()
	defer s.gc.collect.Unlock()
	s.noteAsked(map[string]bool{})
	defer s.noteAsked(nil)
	res := GCResult{RemoveResult: RemoveResult{Untagged: []string{}, Deleted: []string{}}, Images: []string{}, Blobs: []string{}}
	holds, err := s.holding(ctx)
	if err != nil {
		return res, fmt.Errorf("collect images: nothing was deleted: %w", err)
	}
	if o.DryRun {
		err = s.rehearse(ctx, o, holds, &res)
	} else {
		err = s.collect(ctx, o, holds, &res)
	}
	if err != nil {
		err = fmt.Errorf("collect images: %w", err)
	}
	st, derr := s.Disk()
	res.Disk = st
	return res, errors.Join(err, derr)
}

func (s *Store) noteAsked(m map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gc.asked = m
}

// askedLocked notes that somebody is about to use the image: a collection that
// is under way may have asked for the holds before they knew of it.
func (s *Store) askedLocked(digest string) {
	if s.gc.asked != nil {
		s.gc.asked[digest] = true
	}
}

func (s *Store) holding(ctx context.Context) ([]Hold, error) {
	if s.holds == nil {
		return nil, nil
	}
	holds, err := s.holds(ctx)
	if err != nil {
		return nil, fmt.Errorf("what must stay is not known: %w", err)
	}
	return holds, ctx.Err()
}

func (s *Store) collect(ctx context.Context, o GCOptions, holds []Hold, res *GCResult) error {
	st, err := s.statfs(s.root)
	if err != nil {
		return err
	}
	if err := s.dropRetired(); err != nil {
		return err
	}
	over, _ := shortage(st, reserveOf(s.reserve, st.Total), o)
	if err := s.sweepLoose(ctx, over != "", res); err != nil {
		return err
	}
	c, err := s.census(ctx, holds, o)
	if err != nil {
		return err
	}
	before := res.Freed
	if err := s.forget(decide(c, o), res); err != nil {
		return err
	}
	if len(res.Images) > 0 {
		if err := s.sweep(ctx, &res.RemoveResult); err != nil {
			return err
		}
		s.awaitTrash(ctx)
	}
	return s.shed(ctx, o, c, res.Freed-before, res)
}

// sweepLoose deletes what belongs to no image.
func (s *Store) sweepLoose(ctx context.Context, full bool, res *GCResult) error {
	ttl := partialTTL
	if full {
		ttl = 0
	}
	n, err := s.expirePartials(ttl)
	res.Freed += n
	if err != nil {
		return err
	}
	err = s.sweep(ctx, &res.RemoveResult)
	if full {
		s.awaitTrash(ctx)
	}
	return err
}

// census gathers what decide needs.
func (s *Store) census(ctx context.Context, holds []Hold, o GCOptions) (census, error) {
	st, err := s.statfs(s.root)
	if err != nil {
		return census{}, err
	}
	c := census{now: s.now(), disk: st, reserve: reserveOf(s.reserve, st.Total), fixed: map[string]bool{}, sizes: map[string]disk.Tree{}}
	s.mu.Lock()
	idx := s.idx
	leases, err := s.leasesLocked()
	pins := maps.Clone(s.pins)
	why := s.whyLocked(leases, holds)
	s.mu.Unlock()
	if err != nil {
		return census{}, err
	}
	for _, l := range leases {
		for _, key := range l.Keys {
			c.fixed[key] = true
		}
	}
	for name := range pins {
		c.fixed[name] = true
	}
	for digest, rec := range idx.Images {
		sub := resident{digest: digest, names: idx.NamesOf(digest), parts: partsOf(rec), pulled: rec.PulledAt, used: idx.Used(digest), needed: why[digest]}
		if pins[digest] > 0 {
			sub.needed = append(sub.needed, "it is being pulled")
		}
		c.images = append(c.images, sub)
	}
	if over, _ := shortage(st, c.reserve, o); over != "" || o.DryRun {
		err = s.sizeAll(ctx, c)
	}
	return c, err
}

// whyLocked says by digest who needs an image: containers, then holds.
func (s *Store) whyLocked(leases []index.Lease, holds []Hold) map[string][]string {
	why := map[string][]string{}
	for _, l := range leases {
		why[l.Digest] = append(why[l.Digest], "container "+l.ID+" uses it")
	}
	for _, h := range holds {
		digest := h.Digest
		if digest == "" {
			rec, _, err := s.lookupLocked(h.Name)
			if err != nil {
				continue // it is not here
			}
			digest = rec.Digest
		}
		if !slices.Contains(why[digest], h.Why) {
			why[digest] = append(why[digest], h.Why)
		}
	}
	return why
}

// partsOf lists an image's blobs and layers, each once.
func partsOf(rec index.Image) []string {
	parts := []string{rec.Digest, rec.ConfigID}
	for _, l := range rec.Layers {
		parts = append(parts, l.Digest, l.Key)
	}
	slices.Sort(parts)
	return slices.Compact(parts)
}

// forget takes the images that go out of the index, but for those that
// somebody has begun to use since.
func (s *Store) forget(fates []fate, res *GCResult) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases, err := s.leasesLocked()
	if err != nil {
		return err
	}
	leased := map[string]bool{}
	for _, l := range leases {
		leased[l.Digest] = true
	}
	next := s.idx.Clone()
	var images, untagged []string
	for _, v := range fates {
		if !v.goes || leased[v.digest] || s.pins[v.digest] > 0 || s.gc.asked[v.digest] || next.Images[v.digest].Digest == "" {
			continue
		}
		delete(next.Images, v.digest)
		images = append(images, v.digest)
		for _, name := range next.NamesOf(v.digest) {
			delete(next.Names, name)
			untagged = append(untagged, name)
		}
	}
	if len(images) == 0 {
		return nil
	}
	if err := next.Save(); err != nil {
		return err
	}
	s.idx = next
	res.Images = append(res.Images, images...)
	res.Untagged = append(res.Untagged, untagged...)
	return nil
}

// shed deletes compressed blobs of images that stay, the longest unused first,
// as long as the disk is above the mark.
func (s *Store) shed(ctx context.Context, o GCOptions, c census, freed int64, res *GCResult) error {
	st, err := s.statfs(s.root)
	if err != nil {
		return err
	}
	// Some file systems free later than they say that a file is gone.
	st.Used, st.Free = min(st.Used, c.disk.Used-freed), max(st.Free, c.disk.Free+freed)
	st.Inodes = 0 // blobs are few
	over, all := shortage(st, c.reserve, o)
	if over == "" {
		return nil
	}
	goal := all.Bytes
	s.gc.sweep.Lock()
	defer s.gc.sweep.Unlock()
	for _, digest := range s.sheddable() {
		if goal <= 0 || ctx.Err() != nil {
			break
		}
		var n int64
		gone, err := s.doom(digest, func() (bool, error) { return s.pins[digest] > 0, nil }, func() (err error) {
			n, err = s.blobs.Shed(digest)
			n = onDisk(n)
			return err
		})
		if err != nil {
			return err
		}
		if gone && n > 0 {
			res.Blobs = append(res.Blobs, digest)
			res.Freed += n
			goal -= n
		}
	}
	return ctx.Err()
}

// sheddable lists the compressed layers that are there unpacked too, the longest
// unused first.
func (s *Store) sheddable() []string {
	s.mu.Lock()
	idx := s.idx
	s.mu.Unlock()
	last := map[string]time.Time{}
	for digest, rec := range idx.Images {
		used := resident{pulled: rec.PulledAt, used: idx.Used(digest)}.last()
		for _, l := range rec.Layers {
			if _, ok := s.layers.Get(l.Key); ok && used.After(last[l.Digest]) {
				last[l.Digest] = used
			}
		}
	}
	return slices.SortedFunc(maps.Keys(last), func(a, b string) int {
		return cmp.Or(last[a].Compare(last[b]), cmp.Compare(a, b))
	})
}

// awaitTrash returns when deleted layers are gone from the disk too, or it has
// taken too long.
func (s *Store) awaitTrash(ctx context.Context) {
	limit := time.NewTimer(trashLimit)
	defer limit.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		left, err := os.ReadDir(s.trash())
		if err != nil || len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-limit.C:
			return
		case <-time.After(wait):
		}
	}
}
