package registry

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxWait is how long a request waits for a host that wants none.
	maxWait = 2 * time.Minute
	// maxClosed is how long a host is left alone whatever it wishes: one answer with a
	// wait of years must not cut it off until we are started again.
	maxClosed = 24 * time.Hour
	// A mirror that failed rests, longer after each failure in a row.
	firstRest, maxRest = 5 * time.Second, 5 * time.Minute
)

// hostKey tells apart a host on its own, and one that another one led to and
// that is spoken to with that one's settings.
type hostKey struct{ name, origin string }

// host is what all repositories of a host have in common.
type host struct {
	name  string // as in URLs
	label string // as in image names and messages
	gate  *gate
	conns *connections

	mu        sync.Mutex
	scheme    string // found out, if the settings leave it open
	challenge *challenge
	failures  int
	rests     time.Time // until then, if it is a mirror
}

// host finds or makes the host with a name. Where origin led to it (by a
// redirect or as its token service) and nothing is configured for it, it is
// trusted as origin is: the same authorities, the same proxy, but it is not shown
// origin's client certificate.
func (c *Client) host(name string, origin *host) *host {
	set := c.settings(name)
	k := hostKey{name: name}
	if origin != nil && origin.name != name && !c.named(name) {
		k.origin = origin.name
		set.CA, set.Proxy = cmp.Or(set.CA, origin.conns.set.CA), cmp.Or(set.Proxy, origin.conns.set.Proxy)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.hosts[k]; ok {
		return h
	}
	if len(c.hosts) > 1000 { // registries may redirect to ever new hosts
		for old, h := range c.hosts {
			if old.origin != "" {
				h.closeIdle()
				delete(c.hosts, old)
			}
		}
		maps.DeleteFunc(c.gates, func(_ string, g *gate) bool { return g.closedUntil().IsZero() })
	}
	g, ok := c.gates[name]
	if !ok {
		g = &gate{}
		c.gates[name] = g
	}
	h := &host{name: name, label: labelOf(name), gate: g, conns: &connections{client: c, set: set, proxy: c.opts.Proxy}}
	switch {
	case set.Insecure:
		h.scheme = "http"
	case !isLoopback(name) || set.CA != "" || set.Cert != "":
		h.scheme = "https"
	}
	c.hosts[k] = h
	return h
}

func (h *host) closeIdle() { h.conns.closeIdle() }

// failed lets a mirror rest.
func (h *host) failed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().Before(h.rests) {
		return // several requests that failed together are one failure
	}
	h.rests = time.Now().Add(min(firstRest<<min(h.failures, 10), maxRest))
	h.failures++
}

func (h *host) worked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures, h.rests = 0, time.Time{}
}

func (h *host) resting() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.rests)
}

// gate keeps everybody from asking a host that wants no requests.
type gate struct {
	mu     sync.Mutex
	until  time.Time
	closed int // how often in a row
}

// close keeps the gate closed for d at least. Without a wish of the host it is
// the more, the more often it was closed in a row.
func (g *gate) close(d time.Duration, wish bool, backoff func(int) time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !wish {
		if time.Now().Before(g.until) {
			return
		}
		g.closed++
		d = backoff(min(g.closed, 10))
	}
	if until := time.Now().Add(min(d, maxClosed)); until.After(g.until) {
		g.until = until
	}
}

// opened is called when the host has answered a request.
func (g *gate) opened() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = 0
}

// closedUntil is zero if the gate is open.
func (g *gate) closedUntil() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Now().Before(g.until) {
		return g.until
	}
	return time.Time{}
}

// heed learns from an answer's header what the host wants and what is left.
func (c *Client) heed(h *host, resp *http.Response) {
	busy := resp.StatusCode == http.StatusTooManyRequests
	now := time.Now()
	if theirs, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = theirs // our clock may be wrong
	}
	wait, wish := retryAfter(resp.Header, now)
	switch {
	case busy || wish && resp.StatusCode == http.StatusServiceUnavailable:
		h.gate.close(wait, wish, c.opts.Backoff)
	default:
		h.gate.opened()
	}
	limit, window, ok := quota(resp.Header.Get("RateLimit-Limit"))
	left, _, ok2 := quota(resp.Header.Get("RateLimit-Remaining"))
	if !ok && !ok2 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits[h.label] = Limit{Registry: h.label, Limit: limit, Remaining: left, Window: window, At: time.Now()}
}

// retryAfter reads Retry-After (RFC 9110, 10.2.3), and X-Retry-After, in which
// Docker Hub's abuse limit gives a Unix time.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	for _, v := range []string{h.Get("Retry-After"), h.Get("X-Retry-After")} {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n >= 0 {
			if n > 1e9 {
				return max(0, time.Unix(min(n, 1e11), 0).Sub(now)), true
			}
			return time.Duration(n) * time.Second, true
		}
		if t, err := http.ParseTime(v); err == nil {
			return max(0, t.Sub(now)), true
		}
	}
	return 0, false
}

// quota reads Docker Hub's "100;w=21600".
func quota(s string) (n int, window time.Duration, ok bool) {
	value, rest, _ := strings.Cut(s, ";")
	n, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil || n < 0 {
		return -1, 0, false
	}
	var secs int64
	if _, err := fmt.Sscanf(strings.TrimSpace(rest), "w=%d", &secs); err == nil && secs > 0 && secs < 1e9 {
		window = time.Duration(secs) * time.Second
	}
	return n, window, true
}
