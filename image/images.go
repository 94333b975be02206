package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/image/internal/index"
)

// minPrefix is how much of a digest must be given.
const minPrefix = 12

// Get finds an image by name, digest or unique digest prefix (12 characters or
// more, with or without "sha256:", of the manifest or the config).
func (s *Store) Get(ref string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, _, err := s.findLocked(ref)
	if err != nil {
		return Image{}, err
	}
	return s.imageLocked(rec)
}

// List returns all images, sorted by first name.
func (s *Store) List() ([]Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Image, 0, len(s.idx.Images))
	for _, rec := range s.idx.Images {
		img, err := s.imageLocked(rec)
		if errors.Is(err, ErrDamaged) { // the others can be shown
			s.log.Warn("image is damaged", "image", rec.Digest, "err", err)
		} else if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
	first := func(i Image) string {
		if len(i.Names) == 0 {
			return "\xff" // nameless ones last
		}
		return i.Names[0]
	}
	slices.SortFunc(all, func(a, b Image) int {
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(a.Digest, b.Digest))
	})
	return all, nil
}

// findLocked finds an image for somebody who may go on to use it. It also
// returns the name, if ref is one.
func (s *Store) findLocked(ref string) (rec index.Image, name string, err error) {
	rec, name, err = s.lookupLocked(ref)
	if err == nil {
		s.askedLocked(rec.Digest)
	}
	return rec, name, err
}

func (s *Store) lookupLocked(ref string) (rec index.Image, name string, err error) {
	if !strings.HasPrefix(ref, "sha256:") {
		r, err := s.parseRef(ref)
		if err != nil {
			return index.Image{}, "", err
		}
		if digest, ok := s.idx.Names[r.String()]; ok {
			return s.idx.Images[digest], r.String(), nil
		}
		if rec, ok := s.idx.Images[r.digest()]; ok && s.hasRepository(rec.Digest, r) {
			return rec, "", nil
		}
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) < minPrefix || strings.Trim(hex, "0123456789abcdef") != "" {
		return index.Image{}, "", fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	found := map[string]index.Image{}
	for digest, rec := range s.idx.Images {
		if strings.HasPrefix(digest, "sha256:"+hex) || strings.HasPrefix(rec.ConfigID, "sha256:"+hex) {
			found[digest] = rec
		}
	}
	if len(found) > 1 {
		return index.Image{}, "", fmt.Errorf("%w: %s is the beginning of %d digests", ErrInvalid, ref, len(found))
	}
	for _, rec := range found {
		return rec, "", nil
	}
	return index.Image{}, "", fmt.Errorf("%w: %s", ErrNotFound, ref)
}

// hasRepository tells whether the image has a name in r's repository, so that
// "nginx@sha256:..." finds what was pulled as "nginx:1.27".
func (s *Store) hasRepository(digest string, r reference) bool {
	return slices.ContainsFunc(s.idx.NamesOf(digest), func(name string) bool {
		return strings.HasPrefix(name, r.repository()+":") || strings.HasPrefix(name, r.repository()+"@")
	})
}

// imageLocked adds to the record what stands in the config.
func (s *Store) imageLocked(rec index.Image) (Image, error) {
	img := Image{
		Names: s.idx.NamesOf(rec.Digest), Digest: rec.Digest, ConfigID: rec.ConfigID, Layers: []Layer{},
		Size: rec.Size, Platform: rec.Platform, PulledAt: rec.PulledAt,
	}
	for _, l := range rec.Layers {
		img.Layers = append(img.Layers, Layer{Digest: l.Digest, DiffID: l.DiffID, Size: l.Size})
	}
	b, err := s.blobs.Read(rec.ConfigID)
	if err == nil {
		img.Config, img.Created, err = configOf(b)
	}
	if err != nil {
		return img, fmt.Errorf("image %s: config: %w (%w)", rec.Digest, ErrDamaged, err)
	}
	return img, nil
}

// RemoveResult says what Remove did.
type RemoveResult struct {
	Untagged []string `json:"untagged"`
	Deleted  []string `json:"deleted"` // digests of manifests and layers
	Freed    int64    `json:"freed"`   // bytes
}

// Remove takes the name away; an image without a name and its layers that no
// other image needs are deleted. A layer that a lease holds makes it ErrInUse.
// By digest, or a prefix of one, the image goes with all its names. The files
// of layers are gone from sight at once and from the disk soon.
func (s *Store) Remove(ctx context.Context, ref string) (RemoveResult, error) {
	res, err := s.untag(ref)
	if err != nil {
		return RemoveResult{}, err
	}
	if err := s.sweep(ctx, &res); err != nil {
		return res, fmt.Errorf("remove %s: %w", ref, err)
	}
	return res, nil
}

// untag takes a name, or an image with all its names, out of the index.
func (s *Store) untag(ref string) (RemoveResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, name, err := s.lookupLocked(ref)
	if err != nil {
		return RemoveResult{}, err
	}
	names := s.idx.NamesOf(rec.Digest)
	next := s.idx.Clone()
	res := RemoveResult{Untagged: names, Deleted: []string{}}
	if name != "" && len(names) > 1 {
		res.Untagged = []string{name}
	} else {
		if err := s.checkUnused(rec); err != nil {
			return RemoveResult{}, err
		}
		delete(next.Images, rec.Digest)
	}
	for _, n := range res.Untagged {
		delete(next.Names, n)
	}
	if err := next.Save(); err != nil {
		return RemoveResult{}, fmt.Errorf("remove %s: %w", ref, err)
	}
	s.idx = next
	return res, nil
}

func (s *Store) checkUnused(rec index.Image) error {
	leases, err := s.leasesLocked()
	if err != nil {
		return err
	}
	for _, l := range leases {
		if l.Digest == rec.Digest {
			return fmt.Errorf("%w by %s: %s", ErrInUse, l.ID, rec.Digest)
		}
	}
	return nil
}
