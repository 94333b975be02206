package auth

import (
	"context"
	"errors"
	"fmt"

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
}

func (s Source) counts(registry string) bool {
	return (s.Registry == "" || s.Registry == registry) && !s.Except[registry]
}

// Chain asks keychains in order. The first one that has credentials counts; an
// error of one ends the search, since what it was asked to give is missing, and
// "access denied" would hide that.
type Chain struct{ sources []Source }

// NewChain makes a chain of the sources that have a keychain.
func NewChain(sources ...Source) *Chain {
	c := &Chain{}
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
	for _, s := range c.sources {
		if !s.counts(r.RegistryStr()) {
			continue
		}
		a, err := authn.Resolve(ctx, s.Keychain, r)
		if err != nil {
			return nil, s.named(r, err)
		}
		if a == nil || a == authn.Anonymous {
			continue
		}
		if s.From != "" && Origin(a) == "" {
			a = &found{a, s.From}
		}
		return a, nil
	}
	return authn.Anonymous, nil
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
