package image

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/auth"
)

// Check tells what is wrong with c, without reading what it names.
func (c Credentials) Check() error { return auth.Credentials(c).Check() }

// anyRegistry stands in Options.Registries for the hosts that are not there.
const anyRegistry = "*"

// keychains finds credentials in the order that the options document: the pull's
// own, the registry's, the Docker config, the keychain.
type keychains struct {
	files auth.Files // warns once of each open file
	all   *auth.Chain
}

func newKeychains(o Options) *keychains {
	k := &keychains{files: auth.Files{Logger: o.Logger}}
	var sources []auth.Source
	listed := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(o.Registries)) {
		if key == anyRegistry {
			continue
		}
		host := registryHost(key)
		listed[host] = true
		if c := o.Registries[key].Credentials; c != nil {
			sources = append(sources, auth.Source{
				Registry: host, Keychain: k.files.From(auth.Credentials(*c)), Note: fmt.Sprintf("registries: %s: credentials", key),
			})
		}
	}
	if c := o.Registries[anyRegistry].Credentials; c != nil {
		sources = append(sources, auth.Source{
			Except: listed, Keychain: k.files.From(auth.Credentials(*c)), Note: "registries: *: credentials",
		})
	}
	if o.DockerConfig != "" {
		sources = append(sources, auth.Source{Keychain: k.files.DockerConfig(o.DockerConfig), Yields: true})
	}
	k.all = auth.NewChain(append(sources, auth.Source{Keychain: o.Keychain, From: "the keychain of the options"})...)
	return k
}

// forPull puts the credentials of one pull before all others. They are for the
// image's registry; a mirror has its own.
func (k *keychains) forPull(c *Credentials) *auth.Chain {
	if c == nil {
		return k.all
	}
	return auth.NewChain(auth.Source{Keychain: k.files.From(auth.Credentials(*c)), Note: "the pull's own credentials"}, auth.Source{Keychain: k.all})
}

// registryHost is what authn.Resource.RegistryStr says for a host as it stands
// in names.
func registryHost(key string) string {
	if r, err := name.NewRegistry(key); err == nil {
		return r.RegistryStr()
	}
	return key
}
