package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// fixed has credentials for one registry, and remembers what it was asked.
type fixed struct {
	registry string
	user     string
	err      error
	asked    []string
	dropped  []string
}

func (f *fixed) Resolve(r authn.Resource) (authn.Authenticator, error) {
	f.asked = append(f.asked, r.RegistryStr())
	if f.err != nil {
		return nil, f.err
	}
	if r.RegistryStr() != f.registry {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: f.user, Password: "secret"}), nil
}

func (f *fixed) Invalidate(registry string) { f.dropped = append(f.dropped, registry) }

func resource(t *testing.T, repo string) authn.Resource {
	t.Helper()
	r, err := name.NewRepository(repo)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func username(t *testing.T, a authn.Authenticator) string {
	t.Helper()
	c, err := authn.Authorization(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c.Username
}

func TestChainTakesTheFirst(t *testing.T) {
	first, second := &fixed{registry: "a.example", user: "one"}, &fixed{registry: "a.example", user: "two"}
	third := &fixed{registry: "b.example", user: "three"}
	c := NewChain(
		Source{Keychain: first, From: "the pull", Registry: "a.example"},
		Source{},
		Source{Keychain: second, From: "second"},
		Source{Keychain: third, From: "third"},
	)
	for _, tc := range []struct{ repo, user, from string }{
		{"a.example/x", "one", "the pull"},
		{"b.example/x", "three", "third"},
		{"c.example/x", "", ""},
	} {
		a, err := authn.Resolve(t.Context(), c, resource(t, tc.repo))
		if err != nil {
			t.Fatal(err)
		}
		if got := username(t, a); got != tc.user || Origin(a) != tc.from {
			t.Errorf("%s: %q from %q, want %q from %q", tc.repo, got, Origin(a), tc.user, tc.from)
		}
	}
	if !slices.Equal(first.asked, []string{"a.example"}) {
		t.Errorf("the first was asked for %q", first.asked)
	}
	c.Invalidate("b.example")
	if first.dropped != nil || !slices.Equal(third.dropped, []string{"b.example"}) {
		t.Errorf("dropped %q and %q", first.dropped, third.dropped)
	}
}

func TestChainStopsAtAnError(t *testing.T) {
	cause := errors.New("no such file")
	later := &fixed{registry: "a.example"}
	_, err := NewChain(Source{Keychain: &fixed{err: cause}}, Source{Keychain: later}).Resolve(resource(t, "a.example/x"))
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "a.example") || later.asked != nil {
		t.Error(err, later.asked)
	}
}

func TestEmptyChainIsAnonymous(t *testing.T) {
	if a, err := NewChain().Resolve(resource(t, "nginx")); err != nil || a != authn.Anonymous {
		t.Error(a, err)
	}
}

func TestRefusedCredentialsYield(t *testing.T) {
	static, renewed := &fixed{registry: "a.example", user: "old"}, &fixed{registry: "a.example", user: "renewed"}
	c := NewChain(Source{Keychain: static, Yields: true}, Source{Keychain: renewed})
	who := func() string {
		a, err := c.Resolve(resource(t, "a.example/x"))
		if err != nil {
			t.Fatal(err)
		}
		return username(t, a)
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "old"},
		{func() { c.Invalidate("b.example") }, "old"},
		{func() { c.Invalidate("a.example") }, "renewed"},
		{func() {}, "renewed"},
		{func() { renewed.err = errors.New("no AWS credentials") }, "old"},
		{func() { renewed.err = nil }, "renewed"},
		{func() { static.user = "another login" }, "another login"},
		{func() { c.Invalidate("a.example") }, "renewed"},
		{func() { c.Invalidate("a.example") }, "another login"}, // both were refused: what is configured stays first
	} {
		step.do()
		if got := who(); got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
	// Without Yields what was named is used, or nothing.
	c = NewChain(Source{Keychain: static}, Source{Keychain: renewed})
	who()
	c.Invalidate("a.example")
	if got := who(); got != "another login" {
		t.Error(got)
	}
}
