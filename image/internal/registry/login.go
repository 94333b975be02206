package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/auth"
)

// token is an access token, and when it is not worth trying any more.
type token struct {
	value string
	until time.Time
}

// tokenKey tells apart what may not be mixed up: what a token is for, and with
// which credentials it was bought.
type tokenKey struct {
	host, realm, service, scope string
	credentials                 [sha256.Size]byte
}

// login is how one repository of one host is logged in to. Credentials are
// looked for when the host wants some, and once for each Repository: what was
// changed on disk counts at the next pull.
type login struct {
	c        *Client
	host     *host
	resource name.Repository
	keychain authn.Keychain

	turn   chan struct{} // holds one; guards what follows, and can be waited for with a context
	config *authn.AuthConfig
	from   string // where config comes from
	scope  string
	header string
	until  time.Time // of header; zero: for ever
}

func newLogin(c *Client, h *host, n name.Repository, k authn.Keychain) *login {
	return &login{c: c, host: h, resource: n, keychain: k, scope: "repository:" + n.RepositoryStr() + ":pull", turn: make(chan struct{}, 1)}
}

func (l *login) lock(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *login) unlock() { <-l.turn }

// authorization is the header for the next request; "" as long as the host has
// not asked for any.
func (l *login) authorization(ctx context.Context, scheme string) (string, error) {
	if err := l.lock(ctx); err != nil {
		return "", err
	}
	defer l.unlock()
	if l.header != "" && (l.until.IsZero() || time.Now().Before(l.until)) {
		return l.header, nil
	}
	l.host.mu.Lock()
	ch := l.host.challenge
	l.host.mu.Unlock()
	if ch == nil {
		return "", nil
	}
	return l.header, l.obtain(ctx, scheme, ch)
}

// obtain sets the header that answers the challenge.
func (l *login) obtain(ctx context.Context, scheme string, ch *challenge) error {
	l.header, l.until = "", time.Time{}
	if err := l.resolve(ctx); err != nil {
		return err
	}
	if l.config.RegistryToken != "" {
		l.header = "Bearer " + l.config.RegistryToken
		return nil
	}
	if ch.basic {
		l.header = basic(l.config)
		return nil
	}
	t, err := l.token(ctx, scheme, ch)
	if err == nil {
		l.header, l.until = "Bearer "+t.value, t.until
	}
	return err
}

// resolve looks for credentials.
func (l *login) resolve(ctx context.Context) error {
	if l.config != nil {
		return nil
	}
	a, err := authn.Resolve(ctx, l.keychain, l.resource)
	if err != nil {
		return &credentialsError{err}
	}
	config, err := authn.Authorization(ctx, a)
	if err != nil {
		return &credentialsError{err}
	}
	own := *config
	l.config, l.from = &own, auth.Origin(a)
	return nil
}

// credentialsError is a keychain that does not know. Nothing was asked.
type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }

func basic(c *authn.AuthConfig) string {
	switch {
	case c.Username != "" || c.Password != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
	case c.Auth != "":
		return "Basic " + c.Auth
	}
	return ""
}

// attempts is what was done already about the refusals of one request.
type attempts struct{ pinged, renewed, resolved bool }

// refused is called with an answer that may be about the login: 401, 403 or 404
// to a request with the given header. It tells whether to ask again.
func (l *login) refused(ctx context.Context, p *place, resp *http.Response, header string, did *attempts) (again bool, err error) {
	if err := l.lock(ctx); err != nil {
		return false, err
	}
	defer l.unlock()
	if l.header != header {
		return true, nil // somebody has logged in meanwhile
	}
	scheme := resp.Request.URL.Scheme
	ch, scope := parseChallenges(resp.Header.Values("WWW-Authenticate"))
	if ch == nil && header == "" {
		if ch, err = l.ping(ctx, p, did); err != nil || ch == nil {
			return false, err
		}
	}
	if scope != "" && resp.StatusCode == http.StatusUnauthorized {
		l.scope = scope
	}
	l.host.mu.Lock()
	if ch == nil {
		ch = l.host.challenge
	}
	l.host.challenge = ch
	l.host.mu.Unlock()
	switch {
	case ch == nil || resp.StatusCode == http.StatusNotFound && header != "":
		return false, nil
	case header == "":
		err = l.obtain(ctx, scheme, ch)
		if !l.mayRenew(err, did) {
			return err == nil && l.header != "", err
		}
	case !ch.basic && !did.renewed && resp.StatusCode == http.StatusUnauthorized:
		did.renewed = true
		l.forget(ch)
		err = l.obtain(ctx, scheme, ch)
		if !l.mayRenew(err, did) {
			return err == nil, err
		}
	case did.resolved:
		return false, nil
	}
	return l.renew(ctx, scheme, ch, did, err)
}

// mayRenew tells whether other credentials may help against err.
func (l *login) mayRenew(err error, did *attempts) bool {
	var said *answer
	return errors.As(err, &said) && (said.status == http.StatusUnauthorized || said.status == http.StatusForbidden) && !did.resolved
}

// renew makes the keychain look again, and tries what it finds if that is not
// the same as before. refusal is what is returned otherwise.
func (l *login) renew(ctx context.Context, scheme string, ch *challenge, did *attempts, refusal error) (bool, error) {
	did.resolved = true
	old := *l.config
	if k, ok := l.keychain.(auth.Refresher); ok {
		k.Invalidate(l.resource.RegistryStr())
	}
	l.config = nil
	if err := l.resolve(ctx); err != nil {
		return false, err
	}
	if *l.config == old {
		return false, refusal
	}
	return true, l.obtain(ctx, scheme, ch)
}

// ping asks a host that hides things from strangers without a challenge how
// to log in, if we can.
func (l *login) ping(ctx context.Context, p *place, did *attempts) (*challenge, error) {
	if did.pinged {
		return nil, nil
	}
	did.pinged = true
	if err := l.resolve(ctx); err != nil || *l.config == (authn.AuthConfig{}) {
		return nil, err
	}
	resp, err := p.once(ctx, http.MethodGet, "/v2/", "", nil)
	if err != nil {
		return nil, err
	}
	drain(resp)
	ch, _ := parseChallenges(resp.Header.Values("WWW-Authenticate"))
	return ch, nil
}

func (l *login) key(ch *challenge) tokenKey {
	c := l.config
	secrets := strings.Join([]string{c.Username, c.Password, c.Auth, c.IdentityToken}, "\x00")
	return tokenKey{l.host.name, ch.realm, ch.service, l.scope, sha256.Sum256([]byte(secrets))}
}

func (l *login) forget(ch *challenge) {
	if l.config == nil {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	delete(l.c.tokens, l.key(ch))
}

// token returns an access token, one that another pull got if it is still good.
func (l *login) token(ctx context.Context, scheme string, ch *challenge) (token, error) {
	k := l.key(ch)
	l.c.mu.Lock()
	t, ok := l.c.tokens[k]
	l.c.mu.Unlock()
	if ok && time.Now().Before(t.until) {
		return t, nil
	}
	t, err := l.buy(ctx, scheme, ch)
	if err != nil {
		return token{}, err
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(l.c.tokens, func(_ tokenKey, t token) bool { return !now.Before(t.until) })
	l.c.tokens[k] = t
	return t, nil
}

const (
	maxToken      = 256 << 10
	tokenTime     = time.Minute      // a token is good for, if its service does not say (distribution spec, token authentication)
	tokenMargin   = 10 * time.Second // before its end a token is not used any more
	tokenDeadline = time.Minute
)

// buy asks the token service.
func (l *login) buy(ctx context.Context, scheme string, ch *challenge) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenDeadline)
	defer cancel()
	realm, err := url.Parse(ch.realm)
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return token{}, fmt.Errorf("registry %s: unusable token service %q", l.host.label, printable(ch.realm))
	}
	if err := checkRedirect(&url.URL{Scheme: scheme, Host: l.host.name}, realm); err != nil {
		return token{}, fmt.Errorf("token service: %w", err)
	}
	h := l.c.host(canonical(realm), l.host)
	var resp *http.Response
	if l.config.IdentityToken != "" {
		resp, err = l.ask(ctx, h, realm, ch, true)
		// Not all token services know OAuth2 (distribution spec, token authentication).
		if err == nil && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed) {
			drain(resp)
			resp, err = l.ask(ctx, h, realm, ch, false)
		}
	} else {
		resp, err = l.ask(ctx, h, realm, ch, false)
	}
	if err != nil {
		return token{}, err
	}
	if resp.StatusCode != http.StatusOK {
		a := answerOf(h.label, resp)
		if a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status == http.StatusBadRequest && l.config.IdentityToken != "" {
			a.host, a.status = l.host.label, http.StatusUnauthorized
		} else if a.status == http.StatusNotFound {
			return token{}, fmt.Errorf("registry %s: its token service %s answers %v", l.host.label, h.name, a)
		}
		return token{}, a
	}
	defer resp.Body.Close()
	return l.read(resp.Body)
}

// ask sends the request for a token, with OAuth2 or without.
func (l *login) ask(ctx context.Context, h *host, realm *url.URL, ch *challenge, oauth bool) (*http.Response, error) {
	u := *realm
	q := u.Query()
	if l.scope != "" {
		q.Set("scope", l.scope)
	}
	if ch.service != "" {
		q.Set("service", ch.service)
	}
	method, body := http.MethodGet, io.Reader(nil)
	if oauth {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {l.config.IdentityToken}, "client_id": {userAgent}}
		if l.scope != "" {
			form.Set("scope", l.scope)
		}
		form.Set("service", ch.service)
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	} else {
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if oauth {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else if header := basic(l.config); header != "" {
		req.Header.Set("Authorization", header)
	}
	return l.c.send(h, req)
}

func (l *login) read(body io.Reader) (token, error) {
	var got struct {
		Token        string `json:"token"`
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int64  `json:"expires_in"`
	}
	b, err := io.ReadAll(io.LimitReader(body, maxToken))
	if err != nil {
		return token{}, &networkError{error: err}
	}
	if json.Unmarshal(b, &got) != nil || got.Token == "" && got.AccessToken == "" {
		return token{}, fmt.Errorf("registry %s: its token service gives no token", l.host.label)
	}
	if got.Token == "" {
		got.Token = got.AccessToken
	}
	if strings.ContainsFunc(got.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return token{}, fmt.Errorf("registry %s: its token service gives a token that is none", l.host.label)
	}
	if got.RefreshToken != "" && l.config.IdentityToken != "" {
		l.config.IdentityToken = got.RefreshToken
	}
	life := tokenTime
	if got.ExpiresIn > 0 {
		life = time.Duration(min(got.ExpiresIn, 86400)) * time.Second
	}
	return token{got.Token, time.Now().Add(life - min(tokenMargin, life/4))}, nil
}
