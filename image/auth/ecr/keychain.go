package ecr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/wherry-run/wherry/image/auth"
)

const (
	// margin is how long before its end a token is replaced: longer than any
	// pull should take.
	margin = 30 * time.Minute
	// retryAfter is how long an old token serves after AWS gave no new one.
	retryAfter = time.Minute
	// anonymousFor is how long the public gallery is read without a token after
	// AWS gave none: most hosts outside AWS never have credentials.
	anonymousFor = 10 * time.Minute
	// defaultTimeout is enough for STS and ECR with two retries each. Without
	// instance metadata the SDK gives up within three seconds.
	defaultTimeout = 30 * time.Second
)

// Options configure a Keychain.
type Options struct {
	Logger  *slog.Logger  // nil: discards
	Timeout time.Duration // of one request for a token; 0: 30 seconds

	// Fetch gets a token, such as Command or sdk.Fetch; required.
	Fetch Fetch
}

// Fetch gets a new token for a registry. It ends with ctx.
type Fetch func(ctx context.Context, host string) (Token, error)

// ErrNotECR says that a host is not ECR's after all.
var ErrNotECR = errors.New("not a registry of Amazon ECR")

// Token is a registry's password.
type Token struct {
	Password string
	From     string        // where the AWS credentials are from, in words
	Life     time.Duration // that is left
}

// Keychain has the credentials of ECR registries. It is safe for concurrent use.
type Keychain struct {
	log     *slog.Logger
	timeout time.Duration
	fetch   Fetch

	mu      sync.Mutex
	entries map[string]*entry // by host
}

var (
	_ authn.Keychain        = (*Keychain)(nil)
	_ authn.ContextKeychain = (*Keychain)(nil)
	_ auth.Refresher        = (*Keychain)(nil)
)

// entry is what is known about one host.
type entry struct {
	auth    authn.Authenticator // nil: nothing yet
	renew   time.Time           // from then on another one is asked for
	expires time.Time
	flight  *flight // the request under way; nil: none
}

// flight is one request that callers wait for.
type flight struct {
	done chan struct{}
	auth authn.Authenticator
	err  error
}

// New makes a keychain. It does nothing until it is asked for an ECR host.
func New(o Options) *Keychain {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	return &Keychain{log: o.Logger, timeout: o.Timeout, fetch: o.Fetch, entries: map[string]*entry{}}
}

// Resolve implements authn.Keychain.
func (k *Keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain. The request to AWS goes on
// when the caller goes away: others may wait for it, and the next one will.
func (k *Keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	host := r.RegistryStr()
	if !looksLike(host) {
		return authn.Anonymous, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, &auth.Error{Registry: host, Err: context.Cause(ctx)}
	}
	known, f := k.look(ctx, host)
	if f == nil {
		return known, nil
	}
	select {
	case <-f.done:
		return f.auth, f.err
	case <-ctx.Done():
		return nil, &auth.Error{Registry: host, Err: context.Cause(ctx)}
	}
}

// Invalidate implements auth.Refresher.
func (k *Keychain) Invalidate(host string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.entries[host]; e != nil {
		e.auth = nil
	}
}

// look returns what is known, or the flight that will tell.
func (k *Keychain) look(ctx context.Context, host string) (authn.Authenticator, *flight) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[host]
	if e == nil {
		e = &entry{}
		k.entries[host] = e
	}
	if e.auth != nil && time.Now().Before(e.renew) {
		return e.auth, nil
	}
	if e.flight == nil {
		f := &flight{done: make(chan struct{})}
		e.flight = f
		// Nobody waits for this goroutine but who wants its token: it ends with
		// the time limit, and touches nothing but the entry.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), k.timeout, fmt.Errorf("no answer within %v", k.timeout))
		go func() {
			defer cancel()
			t, err := k.fetch(ctx, host)
			k.land(host, e, f, t, err)
		}()
	}
	return nil, e.flight
}

// land ends a flight.
func (k *Keychain) land(host string, e *entry, f *flight, t Token, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(f.done)
	// Wall clock time, since a host that sleeps does not make tokens last.
	now := time.Now().Round(0)
	e.flight = nil
	switch {
	case err == nil:
		e.auth = auth.New(authn.AuthConfig{Username: "AWS", Password: t.Password}, t.From)
		e.expires = now.Add(t.Life)
		e.renew = e.expires.Add(-min(margin, t.Life/2))
	case errors.Is(err, ErrNotECR):
		e.auth, e.renew = authn.Anonymous, now.Add(anonymousFor)
	case e.auth != nil && e.auth != authn.Anonymous && now.Before(e.expires):
		k.log.Warn("the ECR token could not be renewed, the old one still counts", "registry", host, "until", e.expires, "err", err)
		e.renew = now.Add(retryAfter)
	case public(host):
		// Everybody may read the gallery; AWS credentials only raise the limits.
		k.log.Debug("the public ECR gallery is read anonymously", "registry", host, "err", err)
		e.auth, e.renew = authn.Anonymous, now.Add(anonymousFor)
	default:
		e.auth = nil
		f.err = &auth.Error{Registry: host, Err: err}
		return
	}
	f.auth = e.auth
}
