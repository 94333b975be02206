package image

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/index"
)

// refetch brings back the compressed layers of an image that have gone to make
// room (see Collect), from where its names say that they are. The caller has
// pinned them.
func (s *Store) refetch(ctx context.Context, rec index.Image) error {
	var gone []v1.Descriptor
	var wants []want
	for _, l := range rec.Layers {
		if _, ok := s.blobs.Size(l.Digest); ok {
			continue
		}
		hash, err := v1.NewHash(l.Digest)
		if err != nil {
			return err
		}
		gone = append(gone, v1.Descriptor{Digest: hash, Size: l.Size})
		wants = append(wants, want{key: "refetch " + l.Digest, fetch: l.Size})
	}
	if len(gone) == 0 {
		return nil
	}
	release, err := s.room.claim(wants)
	if err != nil {
		return err
	}
	defer release()
	for _, desc := range gone {
		if err := s.refetchBlob(ctx, s.index().NamesOf(rec.Digest), desc); err != nil {
			return fmt.Errorf("compressed layer %s has gone to make room: %w", desc.Digest, err)
		}
	}
	return nil
}

// refetchBlob asks one registry after the other.
func (s *Store) refetchBlob(ctx context.Context, names []string, desc v1.Descriptor) error {
	err := errors.New("the image has no name to fetch it from")
	for i, name := range names {
		ref, perr := s.parseRef(name)
		if perr == nil {
			perr = s.download(ctx, s.connect(ref, nil), desc)
		}
		if perr == nil {
			return nil
		}
		if i == 0 {
			err = nil
		}
		err = errors.Join(err, perr)
	}
	return err
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
