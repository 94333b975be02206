package image

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/auth"
)

// Login is what was found out about the login to a registry. It holds no secret.
type Login struct {
	From string    // where the credentials come from, in words; empty: there are none, or they do not say
	Date time.Time // the registry's clock, if it was asked and says it

	// Anonymous: nothing has credentials for it, which is right for what is public.
	Anonymous bool
}

// Login looks for the credentials of a registry host as a pull does: files are
// read, helpers run, keychains asked, as one for ECR asks AWS. The registry itself is asked
// only with ask, whether it takes them. Certificates and policies are not looked at without.
func (o Options) Login(ctx context.Context, host string, ask bool) (Login, error) {
	r := newRegistries(o, nil)
	if r.client == nil {
		return Login{}, r.err
	}
	defer r.client.Close()
	l, err := r.credentials(ctx, host)
	if err != nil || !ask {
		return l, err
	}
	_, l.Date, err = r.client.Ask(ctx, registryHost(host))
	return l, err
}

func (r *registries) credentials(ctx context.Context, host string) (Login, error) {
	n, err := name.NewRepository(registryHost(host)+"/wherry", name.WeakValidation)
	if err != nil {
		return Login{}, err
	}
	a, err := authn.Resolve(ctx, r.keys.all, n)
	if err != nil {
		return Login{}, err
	}
	c, err := authn.Authorization(ctx, a)
	if err != nil {
		return Login{}, err
	}
	return Login{From: auth.Origin(a), Anonymous: *c == authn.AuthConfig{}}, nil
}

// Hosts are the registries that the options name, mirrors and those of the
// Docker config among them, as they stand in image names, in order.
func (o Options) Hosts() []string {
	hosts := map[string]bool{}
	add := func(key string) {
		if key == "" || key == anyRegistry {
			return
		}
		if _, err := name.NewRegistry(key); err == nil {
			hosts[strings.ToLower(shown(key))] = true
		}
	}
	for key, r := range o.Registries {
		add(key)
		for _, m := range r.Mirrors {
			if u, err := url.Parse(m); err == nil && u.Host != "" {
				add(u.Host)
			} else {
				host, _, _ := strings.Cut(m, "/")
				add(host)
			}
		}
	}
	for _, key := range auth.DockerConfigHosts(o.DockerConfig) {
		add(key)
	}
	return slices.Sorted(maps.Keys(hosts))
}

// HostOf is the registry of an image name, as Hosts has it; empty if it is no name.
func HostOf(ref string) string {
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return ""
	}
	return shown(r.Context().RegistryStr())
}

// shown is what people call a registry.
func shown(host string) string {
	if registryHost(host) == name.DefaultRegistry || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}
