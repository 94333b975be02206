package image

import (
	"context"
	"errors"
)

// newer asks the registry which digest the name stands for, and pulls only if it
// is another one than that of the image that is there. Without an answer it goes
// on with what is there.
func (p *pull) newer(ctx context.Context) (Image, error) {
	s := p.s
	here, ok, err := p.local(ctx, false)
	if err != nil && !errors.Is(err, ErrUntrusted) { // the newer one may be better
		return Image{}, s.stepFailed(StepResolve, p.name, err)
	}
	if !ok {
		return p.run(ctx)
	}
	p.report(Progress{Step: string(StepResolve)})
	digest, err := s.connect(p.ref, p.credentials).Head(ctx, p.ref.Identifier())
	if err == nil {
		if p.isFrom(here.Digest, digest) {
			p.report(Progress{Step: ProgressDone, Done: here.Size, Total: here.Size})
			return here, nil
		}
		var img Image
		if img, err = p.run(ctx); err == nil {
			return img, nil
		}
	}
	if ctx.Err() != nil || !passing(err) {
		return Image{}, s.stepFailed(StepResolve, p.name, err)
	}
	s.log.Warn("registry does not answer, going on with the image that is there", "image", p.name, "digest", here.Digest, "err", err)
	here.Stale = true
	return here, nil
}

// passing tells whether an error says nothing about the image: later, or from
// another place, the same pull may work.
func passing(err error) bool {
	for _, final := range []error{ErrNotFound, ErrDenied, ErrCorrupt, ErrNoSpace, ErrPlatform, ErrInvalid} {
		if errors.Is(err, final) {
			return false
		}
	}
	return errors.Is(err, ErrUnavailable)
}

// isFrom tells whether the image is what the registry calls by digest: the manifest
// itself, or an index that it was chosen from.
func (p *pull) isFrom(image, digest string) bool {
	if image == digest {
		return true
	}
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	indexes := s.idx.Images[image].Indexes
	return len(indexes) > 0 && indexes[0] == digest
}
