package image

import (
	"context"
	"fmt"
)

// Explain says what Collect(o) would do with the image and why.
func (s *Store) Explain(ctx context.Context, ref string, o GCOptions) (Explanation, error) {
	s.mu.Lock()
	rec, name, err := s.lookupLocked(ref)
	s.mu.Unlock()
	if err != nil {
		return Explanation{}, err
	}
	holds, err := s.holding(ctx)
	if err != nil {
		return Explanation{}, fmt.Errorf("image %s: %w", ref, err)
	}
	o.DryRun = true
	c, err := s.census(ctx, holds, o)
	if err != nil {
		return Explanation{}, fmt.Errorf("image %s: %w", ref, err)
	}
	for _, v := range decide(c, o) {
		if v.digest == rec.Digest {
			return explanation(v, name, c.size(v.resident)), nil
		}
	}
	return Explanation{}, fmt.Errorf("%w: %s", ErrNotFound, ref) // gone meanwhile
}

func explanation(v fate, name string, size int64) Explanation {
	e := Explanation{
		Image: name, Digest: v.digest, Stays: !v.goes, Reasons: v.reasons,
		Size: size, Frees: v.unique.Bytes, LastUse: v.used,
	}
	if e.Image == "" {
		e.Image = v.digest
		if len(v.names) > 0 {
			e.Image = v.names[0]
		}
	}
	return e
}
