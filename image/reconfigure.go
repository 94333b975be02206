package image

import (
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/wherry-run/wherry/image/auth"
)

// registries is how registries are spoken to. It never changes: Reconfigure
// puts another one in its place, and a pull under way goes on with the one it
// began with.
type registries struct {
	insecure  []string
	keychain  authn.Keychain
	transport http.RoundTripper
}

func newRegistries(o Options) *registries {
	insecure := slices.Clone(o.Insecure)
	return &registries{insecure: insecure, keychain: auth.DockerConfig(o.DockerConfig), transport: newTransport(insecure, o.Proxy)}
}

// Reconfigure takes over Insecure, DockerConfig and Proxy for the pulls that
// follow. The other options are those that the store was opened with.
func (s *Store) Reconfigure(o Options) {
	old := s.registries.Swap(newRegistries(o))
	if g, ok := old.transport.(*plainGuard); ok {
		if t, ok := g.inner.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}
