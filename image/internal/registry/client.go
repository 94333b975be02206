package registry

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Options configure a Client.
type Options struct {
	// Hosts says how single hosts are spoken to, by host as it stands in image
	// names ("docker.io", "host:5000"). "*" is for all others.
	Hosts map[string]Host

	// Auth finds credentials. If it is an auth.Refresher, it is told when a
	// registry refused them. nil: none.
	Auth authn.Keychain

	// Proxy chooses the proxy of hosts that do not name one; nil: none.
	Proxy func(*http.Request) (*url.URL, error)

	Logger  *slog.Logger
	Backoff func(attempt int) time.Duration // before the next attempt, from 1; nil: doubling
}

// Host is how one host is spoken to.
type Host struct {
	Mirrors []string // "host", "host/prefix", "https://host/prefix"; asked in order, before the host itself
	CA      string   // path of PEM certificates that count beside the system's
	Cert    string   // path of a PEM client certificate (and key, if Key is empty)
	Key     string   // path of its key
	// Insecure means plain HTTP.
	Insecure bool
	Proxy    string // URL; "none": no proxy; empty: Options.Proxy
}

// Client speaks to registries. It is safe for concurrent use, and what it learns
// about a host counts for everybody: make one, and use it for all pulls.
type Client struct {
	opts     Options
	log      *slog.Logger
	patience time.Duration
	// mirrorPatience is the patience with mirrors.
	mirrorPatience time.Duration

	mu     sync.Mutex
	hosts  map[hostKey]*host
	tokens map[tokenKey]token
	gates  map[string]*gate
	limits map[string]Limit
}

// New checks the options.
func New(o Options) (*Client, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Backoff == nil {
		o.Backoff = backoff
	}
	if o.Auth == nil {
		o.Auth = anonymous{}
	}
	c := &Client{
		opts: o, log: o.Logger, patience: patience, mirrorPatience: mirrorPatience, hosts: map[hostKey]*host{}, tokens: map[tokenKey]token{},
		gates: map[string]*gate{}, limits: map[string]Limit{},
	}
	c.opts.Hosts = map[string]Host{}
	for _, name := range slices.Sorted(maps.Keys(o.Hosts)) {
		key := strings.ToLower(name)
		if _, ok := o.Hosts[dockerHub]; !ok && realHost(key) == realHost(dockerHub) {
			key = dockerHub // another name of it
		}
		c.opts.Hosts[key] = o.Hosts[name]
	}
	for _, name := range slices.Sorted(maps.Keys(o.Hosts)) {
		if err := c.check(o.Hosts[name]); err != nil {
			return nil, fmt.Errorf("registry %s: %w", name, err)
		}
	}
	return c, nil
}

// check finds mistakes that can be found without asking anybody.
func (c *Client) check(h Host) error {
	if _, err := proxyOf(h.Proxy, nil); err != nil {
		return err
	}
	if h.Key != "" && h.Cert == "" {
		return fmt.Errorf("a key without a certificate")
	}
	for _, m := range h.Mirrors {
		at, err := parseMirror(m)
		if err != nil {
			return err
		}
		if at.scheme == "http" && !isLoopback(at.host) && !c.settings(at.host).Insecure {
			return fmt.Errorf("mirror %q: %w", m, &plainHTTPError{at.host})
		}
	}
	return nil
}

// Inherit takes over what another client has learned of hosts that holds for
// other settings too: which want no requests now, and what is left of quotas.
func (c *Client) Inherit(from *Client) {
	from.mu.Lock()
	gates, limits := maps.Clone(from.gates), maps.Clone(from.limits)
	from.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for host, g := range gates {
		if _, ok := c.gates[host]; !ok {
			c.gates[host] = g
		}
	}
	for label, l := range limits {
		if _, ok := c.limits[label]; !ok {
			c.limits[label] = l
		}
	}
}

// Close closes connections that nobody uses. The client can still be used.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		h.closeIdle()
	}
}

// Repository returns a repository. Nothing is asked yet. perPull finds the
// credentials for the registry itself, not for its mirrors; nil: Options.Auth does.
func (c *Client) Repository(n name.Repository, perPull authn.Keychain) *Repository {
	r := &Repository{c: c, name: n, label: labelOf(n.RegistryStr()), absent: map[string][]*place{}}
	for _, m := range c.settings(n.RegistryStr()).Mirrors {
		at, err := parseMirror(m)
		if err != nil || realHost(at.host) == realHost(n.RegistryStr()) && at.prefix == "" {
			continue // New has refused the former; the latter comes last anyway
		}
		r.places = append(r.places, c.mirror(at, n))
	}
	if perPull == nil {
		perPull = c.opts.Auth
	}
	h := c.host(realHost(n.RegistryStr()), nil)
	r.places = append(r.places, &place{host: h, repo: n.RepositoryStr(), login: newLogin(c, h, n, perPull)})
	return r
}

// mirror is where a mirror has the repository. As containerd's mirrors know it,
// it learns from ns which registry is meant.
func (c *Client) mirror(at mirrorURL, n name.Repository) *place {
	h := c.host(realHost(at.host), nil)
	repo := strings.TrimPrefix(at.prefix+"/"+n.RepositoryStr(), "/")
	p := &place{host: h, scheme: at.scheme, repo: repo, mirror: true, ns: labelOf(n.RegistryStr())}
	keychain := c.opts.Auth
	res, err := name.NewRepository(at.host+"/"+repo, name.WeakValidation)
	if err != nil {
		keychain, res = anonymous{}, n
	}
	p.login = newLogin(c, h, res, keychain)
	return p
}

// settings finds what is configured for a host.
func (c *Client) settings(host string) Host {
	for _, k := range []string{host, labelOf(host), "*"} {
		if h, ok := c.opts.Hosts[k]; ok {
			return h
		}
	}
	return Host{}
}

// named tells whether the host has settings of its own.
func (c *Client) named(host string) bool {
	_, own := c.opts.Hosts[host]
	_, label := c.opts.Hosts[labelOf(host)]
	return own || label
}

// dockerHub is the registry's name in image names. Its parts have hosts of
// their own: the API, the token service, and where blobs lie.
const dockerHub = "docker.io"

// labelOf is what people call a host: all of Docker Hub's are docker.io.
func labelOf(host string) string {
	if host == dockerHub || strings.HasSuffix(host, "."+dockerHub) || strings.HasSuffix(host, ".cloudflare.docker.com") {
		return dockerHub
	}
	return host
}

// realHost is where a registry's API is.
func realHost(host string) string {
	host = strings.ToLower(host)
	if host == dockerHub || host == name.DefaultRegistry {
		return "registry-1.docker.io"
	}
	return host
}

// prefixRunes are those of repository names.
const prefixRunes = "abcdefghijklmnopqrstuvwxyz0123456789._-/"

// mirrorURL is a parsed mirror.
type mirrorURL struct{ scheme, host, prefix string }

// parseMirror reads "host", "host/prefix" or a URL. A path that begins with the
// API's own /v2 is one that was written for containerd's hosts.toml.
func parseMirror(s string) (mirrorURL, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "//" + s
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !slices.Contains([]string{"", "http", "https"}, u.Scheme) {
		return mirrorURL{}, fmt.Errorf("mirror %q: want HOST, HOST/PREFIX or https://HOST/PREFIX", s)
	}
	prefix := strings.Trim(strings.TrimPrefix(strings.Trim(u.Path, "/")+"/", "v2/"), "/")
	if strings.Contains(prefix, "//") || strings.ContainsFunc(prefix, func(r rune) bool { return !strings.ContainsRune(prefixRunes, r) }) {
		return mirrorURL{}, fmt.Errorf("mirror %q: %q cannot be part of a repository's name", s, prefix)
	}
	return mirrorURL{u.Scheme, u.Host, prefix}, nil
}

// Limit is what a registry last said about how many requests are left.
type Limit struct {
	Registry         string
	Limit, Remaining int // -1: it did not say
	Window           time.Duration
	At               time.Time
	Until            time.Time // zero, or when its gate opens
}

// Limits returns what the registries have said, by name.
func (c *Client) Limits() []Limit {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(c.limits)
	for host, g := range c.gates {
		label := labelOf(host)
		if until := g.closedUntil(); !until.IsZero() {
			l, ok := all[label]
			if !ok {
				l = Limit{Registry: label, Limit: -1, Remaining: -1, At: time.Now()}
			}
			l.Until = until
			all[label] = l
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Limit) int { return cmp.Compare(a.Registry, b.Registry) })
}

// backoff doubles from a fifth of a second.
func backoff(n int) time.Duration { return 100 * time.Millisecond << min(n, 10) }

type anonymous struct{}

func (anonymous) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }
