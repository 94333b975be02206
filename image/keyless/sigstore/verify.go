// Package sigstore judges keyless signatures with Sigstore's own library, within
// the process that links it.
//
// What a signature must have follows from what the trusted root names: a certificate
// of one of its authorities that was good when the signature was made; with
// certificate logs, a timestamp of one of them in the certificate; with transparency
// logs, an entry in one of them; and always a trustworthy time, from a log or
// from a timestamp authority. Nothing is asked over the network, and the trusted root
// is what the caller hands in: without one there is no verification.
package sigstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/wherry-run/wherry/image/keyless"
)

// New returns a verifier that works in this process.
func New() keyless.Verifier { return verifier{} }

type verifier struct{}

// CheckRoot implements keyless.Verifier.
func (verifier) CheckRoot(_ context.Context, trustedRoot []byte) error {
	_, err := open(trustedRoot)
	return err
}

// open reads a trusted root and derives from it what is demanded.
func open(trustedRoot []byte) (*verify.Verifier, error) {
	tr, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	if len(tr.FulcioCertificateAuthorities()) == 0 {
		return nil, errors.New("trusted root: it names no certificate authority")
	}
	if len(tr.RekorLogs()) == 0 && len(tr.TimestampingAuthorities()) == 0 {
		return nil, errors.New("trusted root: it names neither a transparency log nor a timestamp authority, and so nothing that tells when a signature was made")
	}
	demands := []verify.VerifierOption{verify.WithObserverTimestamps(1), verify.WithoutStatementPredicate()}
	if len(tr.RekorLogs()) > 0 {
		demands = append(demands, verify.WithTransparencyLog(1))
	}
	if len(tr.CTLogs()) > 0 {
		demands = append(demands, verify.WithSignedCertificateTimestamps(1))
	}
	return verify.NewVerifier(tr, demands...)
}

// Verify implements keyless.Verifier.
func (verifier) Verify(_ context.Context, r keyless.Request) (keyless.Result, error) {
	v, err := open(r.TrustedRoot)
	if err != nil {
		return keyless.Result{}, &keyless.BrokenError{Err: err}
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(r.Bundle); err != nil {
		return keyless.Result{}, fmt.Errorf("bundle: %w", err)
	}
	// One identity at a time: the library says that one matched, not which.
	var errs []error
	for i, id := range r.Identities {
		policy, err := policyOf(r, id)
		if err != nil {
			return keyless.Result{}, &keyless.BrokenError{Err: err}
		}
		res, err := v.Verify(&b, policy)
		if err == nil {
			return resultOf(i, res), nil
		}
		errs = append(errs, reason(err))
		if !isMismatch(err) {
			break // nothing that another identity would change
		}
	}
	return keyless.Result{}, errors.Join(errs...)
}

func policyOf(r keyless.Request, id keyless.Identity) (verify.PolicyBuilder, error) {
	if err := id.Check(); err != nil {
		return verify.PolicyBuilder{}, err
	}
	who, err := verify.NewShortCertificateIdentity(id.Issuer, keyless.Whole(id.IssuerRegexp), id.Subject, keyless.Whole(id.SubjectRegexp))
	if err != nil {
		return verify.PolicyBuilder{}, err
	}
	if r.Artifact != nil {
		return verify.NewPolicy(verify.WithArtifact(bytes.NewReader(r.Artifact)), verify.WithCertificateIdentity(who)), nil
	}
	algorithm, text, _ := strings.Cut(r.Digest, ":")
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) == 0 {
		return verify.PolicyBuilder{}, fmt.Errorf("digest %q", r.Digest)
	}
	return verify.NewPolicy(verify.WithArtifactDigest(algorithm, sum), verify.WithCertificateIdentity(who)), nil
}

func isMismatch(err error) bool {
	var none *verify.ErrNoMatchingCertificateIdentity
	return errors.As(err, &none)
}

// reason shortens the library's chain of words.
func reason(err error) error {
	var value *verify.ErrValueMismatch
	var expr *verify.ErrValueRegexMismatch
	switch {
	case errors.As(err, &value):
		return value
	case errors.As(err, &expr):
		return expr
	}
	return errors.New(strings.ReplaceAll(err.Error(), "failed to ", "cannot "))
}

func resultOf(i int, res *verify.VerificationResult) keyless.Result {
	out := keyless.Result{Identity: i}
	if c := res.Signature.Certificate; c != nil {
		out.Subject, out.Issuer = c.SubjectAlternativeName, c.Issuer
	}
	for _, t := range res.VerifiedTimestamps {
		out.At = t.Timestamp.UTC()
		break
	}
	return out
}
