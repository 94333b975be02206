package image

import (
	"context"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/registry"
)

const stallTimeout = time.Minute

// repository is an image's repository, with the store that it is pulled into.
type repository struct {
	*registry.Repository
	s *Store
}

// connect finds out how to speak to ref's registry, with a pull's own
// credentials if it has any. Nothing is asked yet.
func (s *Store) connect(ref reference, c *Credentials) *repository {
	how := s.registries.Load()
	return &repository{how.client.Repository(ref.Context(), how.keys.forPull(c)), s}
}

// source reads a blob, over as many connections as it takes.
func (r *repository) source(d v1.Descriptor) *blob.Source {
	return &blob.Source{
		Size:  d.Size,
		Stall: stallTimeout,
		Open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			return r.Blob(ctx, d, offset, -1)
		},
		Retry: r.Retry,
	}
}

// backoff doubles from a fifth of a second.
func backoff(n int) time.Duration { return 100 * time.Millisecond << min(n, 10) }
