package cosign

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Signature is one signature that was found for an image.
type Signature struct {
	Subject string // digest of the manifest or index that it was found for
	Where   string // to tell it from others in messages

	// Bundle is a Sigstore bundle with a certificate, as JSON; nil: there is no
	// certificate. What the bundle's signature is over is Artifact or, if the
	// bundle has an envelope of its own, the statement in it.
	Bundle   []byte
	Artifact []byte

	kind      kind
	signed    []byte // the very bytes that were signed
	statement []byte // what they say
	sigs      [][]byte
	err       error // why it cannot count, whoever made it
}

// kind is how a signature says what it is for.
type kind int

const (
	simple    kind = iota // a simple-signing document
	statement             // an in-toto statement
	message               // the manifest's own bytes
)

const (
	// simpleType is what containers' simple signing has in critical.type if
	// cosign wrote it.
	simpleType = "cosign container image signature"

	// signPredicate tells a signature from an attestation: what says that an image is
	// full of holes is signed as well.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"

	inTotoType = "application/vnd.in-toto+json"
)

// Check tells whether the signed bytes are a signature of the image: not of
// another one, and not a statement about it.
func (s *Signature) Check() error {
	if s.err != nil {
		return s.err
	}
	switch s.kind {
	case simple:
		return checkSimple(s.statement, s.Subject)
	case statement:
		return checkStatement(s.statement, s.Subject)
	}
	return nil
}

// checkSimple does not look at docker-reference, as cosign does not: a signature
// stays with the digest when an image moves to another repository or is read
// through a mirror.
func checkSimple(b []byte, subject string) error {
	var doc struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("its payload is damaged: %w", err)
	}
	if doc.Critical.Type != simpleType {
		return fmt.Errorf("its payload is of type %q", doc.Critical.Type)
	}
	if doc.Critical.Image.Digest != subject {
		return fmt.Errorf("it is for another digest, %.80s", doc.Critical.Image.Digest)
	}
	return nil
}

func checkStatement(b []byte, subject string) error {
	var doc struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("its statement is damaged: %w", err)
	}
	if !strings.HasPrefix(doc.Type, "https://in-toto.io/Statement/v") {
		return fmt.Errorf("its statement is of type %.80q", doc.Type)
	}
	if doc.Predicate != signPredicate {
		return fmt.Errorf("it is a statement of type %.80q and no signature", doc.Predicate)
	}
	want := strings.TrimPrefix(subject, "sha256:")
	for _, s := range doc.Subject {
		if s.Digest["sha256"] == want {
			return nil
		}
	}
	return errors.New("it is for another digest")
}

// VerifyKey tells whether the holder of the key made the signature.
func (s *Signature) VerifyKey(k *Key) error {
	if s.err != nil {
		return s.err
	}
	if slices.ContainsFunc(s.sigs, func(sig []byte) bool { return k.Verify(s.signed, sig) == nil }) {
		return nil
	}
	return errSignature
}
