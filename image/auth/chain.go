package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Refresher is a Keychain that remembers what it found. After a registry has
// answered 401 or 403, Invalidate makes the next Resolve find credentials anew.
// That is worth one more try, and not a second one.
type Refresher interface {
	// Invalidate takes the host as authn.Resource.RegistryStr gives it.
	Invalidate(registry string)
}

// Source is one of the keychains of a Chain.
type Source struct {
	Keychain authn.Keychain
	From     string // where the credentials come from, in words; empty: Origin of what Keychain finds
	Note     string // what configured the source, for its errors; may be empty

	// Registry is the only host that the keychain is asked for, and Except are
	// those that it is not, as authn.Resource.RegistryStr gives them. Without
	// either it is asked for all.
	Registry string
	Except   map[string]bool

	// Yields says that credentials which the registry has refused give way to
	// those of a later Refresher, as long as they are the same and that one has
	// any. So the password of a `docker login` to ECR, dead after twelve hours,
	// does not stand before the instance's role.
	Yields bool
}

func (s Source) counts(registry string) bool {
	return (s.Registry == "" || s.Registry == registry) && !s.Except[registry]
}

// Chain asks keychains in order. The first one that has credentials counts; an
// error of one ends the search, since what it was asked to give is missing, and
// "access denied" would hide that.
type Chain struct {
	sources []Source

	mu sync.Mutex
	// By registry, the digests of what yielding sources gave last, and of what
	// the registry has refused.
	given, refused map[string][sha256.Size]byte
}

// NewChain makes a chain of the sources that have a keychain.
func NewChain(sources ...Source) *Chain {
	c := &Chain{given: map[string][sha256.Size]byte{}, refused: map[string][sha256.Size]byte{}}
	for _, s := range sources {
		if s.Keychain != nil {
			c.sources = append(c.sources, s)
		}
	}
	return c
}

// Resolve implements authn.Keychain.
func (c *Chain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return c.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain. It returns authn.Anonymous
// if nobody has credentials for r; Origin tells where others come from.
func (c *Chain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	for i, s := range c.sources {
		a, err := s.resolve(ctx, r)
		if err != nil {
			return nil, s.named(r, err)
		}
		if a == authn.Anonymous {
			continue
		}
		if s.Yields && c.wasRefused(ctx, r.RegistryStr(), a) {
			return c.instead(ctx, r, a, c.sources[i+1:]), nil
		}
		return a, nil
	}
	return authn.Anonymous, nil
}

func (s Source) resolve(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	if !s.counts(r.RegistryStr()) {
		return authn.Anonymous, nil
	}
	a, err := authn.Resolve(ctx, s.Keychain, r)
	switch {
	case err != nil:
		return nil, err
	case a == nil:
		return authn.Anonymous, nil
	case s.From != "" && a != authn.Anonymous && Origin(a) == "":
		return &found{a, s.From}, nil
	}
	return a, nil
}

// wasRefused notes what is given, and tells whether the registry has refused
// the same before.
func (c *Chain) wasRefused(ctx context.Context, registry string, a authn.Authenticator) bool {
	config, err := authn.Authorization(ctx, a)
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{config.Username, config.Password, config.Auth, config.IdentityToken, config.RegistryToken}, "\x00")))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given[registry] = sum
	return c.refused[registry] == sum
}

// instead asks later sources for what the registry may like better than old.
// Their errors do not count: old is what was configured.
func (c *Chain) instead(ctx context.Context, r authn.Resource, old authn.Authenticator, later []Source) authn.Authenticator {
	for _, s := range later {
		if _, ok := s.Keychain.(Refresher); !ok {
			continue
		}
		if a, err := s.resolve(ctx, r); err == nil && a != authn.Anonymous {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.given, r.RegistryStr())
			return a
		}
	}
	return old
}

// named adds the registry, unless the error names it, and the note.
func (s Source) named(r authn.Resource, err error) error {
	var known *Error
	if errors.As(err, &known) {
		if s.Note == "" {
			return err
		}
		err = known.Err
	}
	if s.Note != "" {
		err = fmt.Errorf("%s: %w", s.Note, err)
	}
	return &Error{r.RegistryStr(), err}
}

// Invalidate implements Refresher.
func (c *Chain) Invalidate(registry string) {
	c.mu.Lock()
	if sum, ok := c.given[registry]; ok {
		c.refused[registry] = sum
	} else {
		delete(c.refused, registry) // what stood in for it was refused too
	}
	delete(c.given, registry)
	c.mu.Unlock()
	for _, s := range c.sources {
		if r, ok := s.Keychain.(Refresher); ok && s.counts(registry) {
			r.Invalidate(registry)
		}
	}
}

// found is an Authenticator that knows where it comes from.
type found struct {
	authn.Authenticator
	from string
}

// AuthorizationContext implements authn.ContextAuthenticator.
func (f *found) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	return authn.Authorization(ctx, f.Authenticator)
}

// Origin implements what function Origin looks for.
func (f *found) Origin() string { return f.from }
