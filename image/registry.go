package image

import (
	"time"

	"github.com/wherry-run/wherry/image/internal/registry"
)

const stallTimeout = time.Minute

// repository is an image's repository, with the store that it is pulled into.
type repository struct {
	*registry.Repository
	s        *Store
	registry string // as it stands in names
}

// connect finds out how to speak to ref's registry, with a pull's own
// credentials if it has any. Nothing is asked yet.
func (s *Store) connect(ref reference, c *Credentials) *repository {
	how := s.registries.Load()
	return &repository{how.client.Repository(ref.Context(), how.keys.forPull(c)), s, ref.Context().RegistryStr()}
}

// backoff doubles from a fifth of a second.
func backoff(n int) time.Duration { return 100 * time.Millisecond << min(n, 10) }
