package image

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/index"
)

// refetch brings back the compressed layers of an image that have gone to make
// room (see Collect). The caller has pinned them.
func (s *Store) refetch(ctx context.Context, rec index.Image) error {
	var gone []index.Layer
	for _, l := range rec.Layers {
		if _, ok := s.blobs.Size(l.Digest); !ok {
			gone = append(gone, l)
		}
	}
	if err := s.refetchLayers(ctx, []index.Image{rec}, gone...); err != nil {
		return fmt.Errorf("what has gone to make room: %w", err)
	}
	return nil
}

// refetchLayers downloads compressed layers from where the names of the images say that
// they are, with the credentials that the store has: those of units are not known here.
func (s *Store) refetchLayers(ctx context.Context, recs []index.Image, layers ...index.Layer) error {
	var wants []want
	for _, l := range layers {
		wants = append(wants, want{key: "refetch " + l.Digest, fetch: l.Size})
	}
	release, err := s.room.claim(wants)
	if err != nil {
		return err
	}
	defer release()
	names := s.namesOf(recs)
	for _, l := range layers {
		hash, err := v1.NewHash(l.Digest)
		if err == nil {
			err = s.eachRegistry(names, func(r *repository) error {
				return s.download(ctx, r, v1.Descriptor{Digest: hash, Size: l.Size})
			})
		}
		if err != nil {
			return s.stepFailed(StepFetch, l.Digest, err)
		}
	}
	return nil
}

// namesOf are the names of all the images.
func (s *Store) namesOf(recs []index.Image) []string {
	var names []string
	for _, rec := range recs {
		names = append(names, s.index().NamesOf(rec.Digest)...)
	}
	return names
}

// eachRegistry tries the registries of the names, one after the other, until one will do.
func (s *Store) eachRegistry(names []string, try func(*repository) error) error {
	if len(names) == 0 {
		return errors.New("the image has no name to fetch it from")
	}
	var errs []error
	for _, name := range names {
		ref, err := s.parseRef(name)
		if err == nil {
			err = try(s.connect(ref, nil))
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// download fetches a blob without unpacking it.
func (s *Store) download(ctx context.Context, r *repository, desc v1.Descriptor) (err error) {
	d, err := s.blobs.Join(ctx, desc.Digest.String(), desc.Size, s.remote(r, desc))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Leave()) }()
	if err := d.Wait(ctx); err != nil {
		return err
	}
	return d.Commit()
}
