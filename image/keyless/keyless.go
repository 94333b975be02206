// Package keyless answers: did the holder of this identity sign, if a certificate
// says so?
//
// A keyless signature comes with a certificate that is good for minutes, and with
// proof from a transparency log or a timestamp authority that it was made in these
// minutes. To judge that takes Sigstore's own library, which is large: it would make
// every start of every command that links it several milliseconds slower and its
// binary by more than half larger. So this package has only the question and its
// answer, and Command, which asks a program of its own. Package keyless/sigstore has the
// library; a program that does not mind links it and uses it directly.
//
// Read first: Request, Verifier, Command.
package keyless

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Request is one signature, and who may have made it.
type Request struct {
	Bundle []byte `json:"bundle"` // a Sigstore bundle, JSON

	// Artifact is what the bundle's message signature is over. Digest is what a
	// statement in the bundle must have as a subject, "sha256:...". One is set.
	Artifact []byte `json:"artifact,omitempty"`
	Digest   string `json:"digest,omitempty"`

	TrustedRoot []byte     `json:"trusted_root"` // a trusted_root.json
	Identities  []Identity `json:"identities"`   // any of them
}

// Identity is who a certificate must name, and who must have vouched for it: each
// exactly, or by a regular expression for the whole of it.
type Identity struct {
	Subject       string `json:"subject,omitempty"`
	SubjectRegexp string `json:"subject_regexp,omitempty"`
	Issuer        string `json:"issuer,omitempty"`
	IssuerRegexp  string `json:"issuer_regexp,omitempty"`
}

// Check tells whether the identity is one that a certificate can have.
func (i Identity) Check() error {
	if i.Subject == "" && i.SubjectRegexp == "" {
		return errors.New("no identity given")
	}
	if i.Issuer == "" && i.IssuerRegexp == "" {
		return errors.New("no issuer given: anybody's login service may vouch for any name")
	}
	for _, expr := range []string{i.SubjectRegexp, i.IssuerRegexp} {
		if _, err := regexp.Compile(expr); err != nil { // by itself: Whole would balance "a)|(b"
			return err
		}
	}
	return nil
}

// Whole makes a regular expression stand for the whole of a text, so that
// "https://github.com/acme/.*" does not let in what only contains it.
func Whole(expr string) string {
	if expr == "" {
		return ""
	}
	return `\A(?:` + expr + `)\z`
}

// Result is who signed.
type Result struct {
	Identity int       `json:"identity"` // index into Request.Identities
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	At       time.Time `json:"at"` // when, as the log or the timestamp says
}

func (r Result) String() string { return fmt.Sprintf("%s (%s)", r.Subject, r.Issuer) }

// Verifier judges signatures. The error says why a signature does not count; it is a
// *BrokenError if that could not be found out.
type Verifier interface {
	// CheckRoot tells whether a trusted_root.json is usable.
	CheckRoot(ctx context.Context, trustedRoot []byte) error
	Verify(ctx context.Context, r Request) (Result, error)
}

// BrokenError says that the verifier itself does not work.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Err }
