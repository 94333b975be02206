package auth

import (
	"fmt"
	"log/slog"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Error says that the credentials of a registry could not be had.
type Error struct {
	Registry string // host
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("credentials for %s: %v", e.Registry, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an Authenticator that knows where it comes from (see Origin) and
// does not print its secrets.
func New(c authn.AuthConfig, from string) authn.Authenticator { return &secret{c, from} }

type secret struct {
	config authn.AuthConfig
	from   string
}

// Authorization implements authn.Authenticator.
func (s *secret) Authorization() (*authn.AuthConfig, error) {
	c := s.config
	return &c, nil
}

// Origin implements what function Origin looks for.
func (s *secret) Origin() string { return s.from }

// Format implements fmt.Formatter, for all verbs.
func (s *secret) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "credentials from %s", s.from) }

// LogValue implements slog.LogValuer.
func (s *secret) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(s)) }

// Origin tells in words where credentials come from, such as the path of a
// file, for "access denied (credentials from ...)". It is empty if they are
// anonymous or do not say.
func Origin(a authn.Authenticator) string {
	if o, ok := a.(interface{ Origin() string }); ok {
		return o.Origin()
	}
	return ""
}
