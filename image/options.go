package image

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/wherry-run/wherry/image/keyless"
)

// Options configure a Store.
type Options struct {
	Root         string   // blobs/, layers/ and images/ stand below it; required
	Platform     Platform // zero: the host's
	Insecure     []string // registry hosts spoken to over plain HTTP; loopback always may
	DockerConfig string   // path of a Docker config.json; empty: $DOCKER_CONFIG is NOT read, none is used
	Logger       *slog.Logger

	// Progress is told now and then that Open, which looks at everything after a power cut, gets on; nil: nobody.
	Progress func()

	// Proxy chooses the proxy for a request, as http.Transport does; nil: none.
	Proxy func(*http.Request) (*url.URL, error)

	// Registries says how single registries are spoken to, by host as it
	// stands in names ("docker.io", "host:5000"). "*" is for all others.
	Registries map[string]Registry

	// Keychain is asked for the credentials of registries that neither the
	// pull nor Registries nor DockerConfig has any for, such as package
	// auth/ecr's; nil: none.
	Keychain Keychain

	// Keyless judges signatures by certificate identities, such as
	// keyless.Command of wherry-verify; nil: rules that name an identity are wrong.
	Keyless keyless.Verifier

	// Form is how layers are kept; empty: the better one that the kernel can.
	// Layers that are there in the other form go on being used.
	Form Form

	// Reserve is how many bytes of the file system pulls leave free. Negative:
	// none. 0: a twentieth, but at most 1 GiB.
	Reserve int64

	// Holds names what must not be deleted although no container uses it,
	// such as the images of earlier revisions. If it fails, nothing is. nil: none.
	Holds func(context.Context) ([]Hold, error)
}

// Keychain finds credentials by registry, as go-containerregistry has it.
type Keychain = authn.Keychain

// Registry is how one registry is spoken to. All but Policy and Mirrors is
// about the host itself; a mirror's settings stand under the mirror's own name.
type Registry struct {
	// Mirrors are asked first, in this order: "host", "host/prefix" or a URL
	// "https://host/prefix". The registry itself comes last. Content is
	// checked by digest wherever it comes from. One that fails is left alone for
	// a while, five minutes at most. A mirror learns which registry is meant from
	// the query ns=HOST, as containerd's do, so that one can stand for many.
	Mirrors []string

	CA       string // path of PEM certificates that count beside the system's
	Cert     string // path of a PEM client certificate (and key, if Key is empty)
	Key      string // path of the certificate's PEM key
	Insecure bool   // plain HTTP
	Proxy    string // URL of a proxy; "none": no proxy; empty: Options.Proxy

	Credentials *Credentials // nil: DockerConfig, then Keychain
	Policy      []TrustRule  // the first that matches decides; none: accept. nil: the policy of "*"
}

// Credentials say where a registry's credentials come from; one of the kinds is
// set. Secrets stand in files, never in the configuration, and are read anew at
// every pull.
type Credentials struct {
	Username     string // with PasswordFile
	PasswordFile string // path; one line end at its end does not count
	TokenFile    string // path of a bearer token for the registry
	DockerConfig string // path of a Docker config.json
	Helper       string // X for the credential helper docker-credential-X
}

// Form is how a layer's files are kept.
type Form string

// A folder with the layer's files, or one read-only EROFS image (Linux 6.12 mounts
// it from a file; before, by a loop device).
const (
	Folder Form = "folder"
	EROFS  Form = "erofs"
)

// Policy says when Pull goes to the registry.
type Policy string

// Missing pulls only what is not there, Always asks the registry each time,
// Never does not touch the network. Newer asks each time too, but goes on with
// what is there if the registry does not answer.
const (
	Missing Policy = "missing"
	Always  Policy = "always"
	Never   Policy = "never"
	Newer   Policy = "newer"
)

// PullOptions configure one pull.
type PullOptions struct {
	Policy   Policy // empty: Missing
	Platform Platform
	Progress func(Progress) // called from several goroutines, must not block

	// Credentials are for this pull alone, before all others; nil: none.
	Credentials *Credentials
}
