package image

import (
	"errors"
	"time"

	"github.com/wherry-run/wherry/image/internal/registry"
)

// registries is how registries are spoken to. It never changes: Reconfigure
// puts another one in its place, and a pull under way goes on with the one it
// began with.
type registries struct {
	insecure []string // spoken to over plain HTTP
	keys     *keychains
	client   *registry.Client
	trust    policies
	err      error // why there is no client, or a rule that nobody can follow
}

func newRegistries(o Options, backoff func(int) time.Duration) *registries {
	r := &registries{keys: newKeychains(o), trust: newPolicies(o)}
	hosts := map[string]registry.Host{}
	for host, h := range o.Registries {
		hosts[host] = registry.Host{Mirrors: h.Mirrors, CA: h.CA, Cert: h.Cert, Key: h.Key, Insecure: h.Insecure, Proxy: h.Proxy}
		if h.Insecure {
			r.insecure = append(r.insecure, host)
		}
	}
	for _, host := range o.Insecure {
		h, ok := hosts[host]
		if !ok {
			h = hosts["*"]
		}
		h.Insecure = true
		hosts[host] = h
		r.insecure = append(r.insecure, host)
	}
	r.client, r.err = registry.New(registry.Options{
		Hosts: hosts, Auth: r.keys.all, Proxy: o.Proxy, Logger: o.Logger, Backoff: backoff,
	})
	r.err = errors.Join(r.err, r.trust.check())
	return r
}

// Check finds mistakes in the options about registries, such as a mirror that
// is no URL, and in the trust policies, whose files it reads. With these, Open
// fails and Reconfigure changes nothing.
func (o Options) Check() error { return newRegistries(o, nil).err }

// Reconfigure takes over Insecure, Registries, DockerConfig, Keychain and Proxy
// for the pulls that follow. The other options are those that the store was
// opened with. Options that Check finds wrong are logged, and change nothing.
func (s *Store) Reconfigure(o Options) {
	if o.Logger == nil {
		o.Logger = s.log
	}
	next := newRegistries(o, s.wait)
	if next.err != nil {
		s.log.Error("the registries stay as they were", "err", next.err)
		return
	}
	next.client.Inherit(s.registries.Load().client)
	s.registries.Swap(next).client.Close()
}

// wait is how long to wait before the next attempt.
func (s *Store) wait(attempt int) time.Duration { return s.backoff(attempt) }
