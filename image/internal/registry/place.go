package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const (
	userAgent    = "wherry"
	maxRedirects = 10
)

// place is one host that may have a repository.
type place struct {
	host   *host
	login  *login
	scheme string // that the mirror's URL gives
	repo   string // the repository's path there
	ns     string // for a mirror: the registry that is meant
	mirror bool
}

// get asks for something below the repository, logged in as far as need be.
// Errors are *failure, unless the context is done.
func (p *place) get(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	var did attempts
	for {
		auth, err := p.login.authorization(ctx, p.schemeNow())
		if err != nil {
			return nil, p.failure(ctx, err)
		}
		resp, err := p.once(ctx, method, "/v2/"+p.repo+path, auth, header)
		if err != nil {
			return nil, p.failure(ctx, err)
		}
		code := resp.StatusCode
		if code != http.StatusUnauthorized && code != http.StatusForbidden && (code != http.StatusNotFound || auth != "") || p.away(resp) {
			return resp, nil
		}
		again, err := p.login.refused(ctx, p, resp, auth, &did)
		if err != nil {
			drain(resp)
			return nil, p.failure(ctx, err)
		}
		if !again {
			return resp, nil
		}
		drain(resp)
	}
}

// expect is get for answers of the given statuses only.
func (p *place) expect(ctx context.Context, method, path string, header http.Header, statuses ...int) (*http.Response, error) {
	resp, err := p.get(ctx, method, path, header)
	if err != nil {
		return nil, err
	}
	for _, s := range statuses {
		if resp.StatusCode == s {
			return resp, nil
		}
	}
	return nil, p.answer(ctx, resp)
}

// answer is the failure that an answer stands for.
func (p *place) answer(ctx context.Context, resp *http.Response) *failure {
	a := answerOf(p.host.label, resp)
	if p.away(resp) {
		a.target = resp.Request.URL.Host
	}
	return a.failure(p.login.origin(ctx))
}

// away tells whether a redirect led to another host.
func (p *place) away(resp *http.Response) bool {
	to := resp.Request.URL
	return canonical(to) != canonical(&url.URL{Scheme: to.Scheme, Host: p.host.name})
}

func (p *place) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var said *answer
	var creds *credentialsError
	switch {
	case errors.As(err, &said):
		return said.failure(p.login.origin(ctx))
	case errors.As(err, &creds):
		return &failure{host: p.host.label, text: err.Error(), cause: err}
	}
	return failureOf(p.host.label, err)
}

// once sends one request. Where the settings leave it open, it finds out
// whether the host speaks TLS.
func (p *place) once(ctx context.Context, method, path, auth string, header http.Header) (*http.Response, error) {
	scheme := p.schemeNow()
	if scheme != "" {
		return p.send(ctx, scheme, method, path, auth, header)
	}
	resp, err := p.send(ctx, "http", method, path, auth, header)
	if err == nil && resp.StatusCode != http.StatusBadRequest {
		p.host.speaks("http")
		return resp, nil
	}
	if err != nil && (ctx.Err() != nil || !isNetwork(err) || isDial(err)) {
		return nil, err
	}
	secure, serr := p.send(ctx, "https", method, path, auth, header)
	if serr != nil && !isCertificate(serr) {
		return resp, err
	}
	p.host.speaks("https")
	if err == nil {
		drain(resp)
	}
	return secure, serr
}

func (p *place) schemeNow() string {
	if p.scheme != "" {
		return p.scheme
	}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	return p.host.scheme
}

func (h *host) speaks(scheme string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scheme = scheme
}

func (p *place) send(ctx context.Context, scheme, method, path, auth string, header http.Header) (*http.Response, error) {
	u := url.URL{Scheme: scheme, Host: p.host.name, Path: path}
	if raw, query, ok := strings.Cut(path, "?"); ok {
		u.Path, u.RawQuery = raw, query
	}
	if p.ns != "" {
		q := u.Query()
		q.Set("ns", p.ns)
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	return p.host.conns.client.send(p.host, req)
}

// send sends a request and follows redirects. The Authorization header goes to
// h alone: net/http would pass it on to other ports and subdomains as well.
func (c *Client) send(h *host, req *http.Request) (*http.Response, error) {
	first := req.URL
	origin := h
	req.Header.Set("User-Agent", userAgent)
	for range maxRedirects {
		if until := h.gate.closedUntil(); !until.IsZero() {
			return nil, &closedError{h.label, until}
		}
		resp, err := h.conns.roundTrip(req)
		if err != nil {
			return nil, err
		}
		c.heed(h, resp)
		to := redirect(req, resp)
		if to == nil {
			return resp, nil
		}
		drain(resp)
		if err := checkRedirect(first, to); err != nil {
			return nil, err
		}
		next := req.Clone(req.Context())
		next.URL, next.Host = to, ""
		h = origin
		if to.Scheme != first.Scheme || canonical(to) != canonical(first) {
			next.Header.Del("Authorization")
			h = c.host(canonical(to), origin)
		}
		req = next
	}
	return nil, fmt.Errorf("too many redirects from %s", first.Host)
}

// redirect is where an answer sends us, nil if nowhere.
func redirect(req *http.Request, resp *http.Response) *url.URL {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil
	}
	to, err := req.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || req.Method == http.MethodPost {
		return nil
	}
	to.User = nil
	return to
}

// canonical is a URL's host without the port that its scheme implies.
func canonical(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// drain ends an answer that nobody wants, so that its connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// origin is where the credentials that were used come from.
func (l *login) origin(ctx context.Context) string {
	if l.lock(ctx) != nil {
		return ""
	}
	defer l.unlock()
	return l.from
}
