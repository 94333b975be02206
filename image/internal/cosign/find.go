package cosign

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Where signatures stand, by media type.
const (
	simpleLayer    = "application/vnd.dev.cosign.simplesigning.v1+json"
	simpleArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"
	bundleType     = "application/vnd.dev.sigstore.bundle" // ".v0.3+json", "+json;version=0.1"
)

// What one digest may have.
const (
	maxSignatures = 64
	maxReferrers  = 64      // that are fetched; others do not look like signatures
	maxPayload    = 1 << 20 // of a simple-signing document
	maxBundle     = 4 << 20
)

// ErrNone is what a Source returns for what the registry does not have.
var ErrNone = errors.New("not there")

// Descriptor names a manifest or a blob.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations"`
}

// Source is the repository that an image came from. What is asked for by digest
// has it.
type Source interface {
	// Manifest reads by tag or digest; ErrNone if there is none.
	Manifest(ctx context.Context, id string) ([]byte, error)
	Blob(ctx context.Context, d Descriptor) ([]byte, error)
	// Referrers lists what refers to a digest, through the API or its
	// fallback tag; ErrNone or an empty list if nothing does.
	Referrers(ctx context.Context, digest string) ([]Descriptor, error)
}

// Visit looks in both places for signatures of a manifest or index, until yield
// returns false: of many signatures only those before the first good one are
// fetched. Errors of one place do not hide what stands in the other.
func Visit(ctx context.Context, src Source, digest string, yield func(*Signature) bool) error {
	f := finder{src: src, subject: digest, yield: yield}
	err := f.tag(ctx)
	if !f.done && ctx.Err() == nil {
		err = errors.Join(err, f.referrers(ctx))
	}
	if f.done {
		return nil
	}
	return err
}

type finder struct {
	src     Source
	subject string
	yield   func(*Signature) bool
	count   int
	done    bool
}

func (f *finder) found(s *Signature) error {
	if f.count++; f.count > maxSignatures {
		f.done = false
		return fmt.Errorf("%s has more than %d signatures; only the first were looked at", f.subject, maxSignatures)
	}
	f.done = !f.yield(s)
	return nil
}

// artifact is a manifest that carries signatures.
type artifact struct {
	ArtifactType string `json:"artifactType"`
	Config       struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Layers []Descriptor `json:"layers"`
}

// tag reads the signatures below the tag that cosign makes of the digest.
func (f *finder) tag(ctx context.Context) error {
	tag := strings.Replace(f.subject, ":", "-", 1) + ".sig"
	b, err := f.src.Manifest(ctx, tag)
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signatures at tag %s: %w", tag, err)
	}
	return f.artifact(ctx, b, "of tag "+tag)
}

// referrers reads the signatures that name the digest as their subject. That they
// do is not checked: what is signed says whom it is for.
func (f *finder) referrers(ctx context.Context) error {
	list, err := f.src.Referrers(ctx, f.subject)
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("referrers of %s: %w", f.subject, err)
	}
	var errs []error
	n := 0
	for _, d := range list {
		if !looksSigned(d.ArtifactType) {
			continue
		}
		if n++; n > maxReferrers {
			errs = append(errs, fmt.Errorf("%s has more than %d referrers; only the first were looked at", f.subject, maxReferrers))
			break
		}
		b, err := f.src.Manifest(ctx, d.Digest)
		if err == nil {
			err = f.artifact(ctx, b, "of referrer "+d.Digest)
		} else {
			err = fmt.Errorf("referrer %s: %w", d.Digest, err)
		}
		errs = append(errs, err)
		if f.done || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// looksSigned passes over the SBOMs and reports that images drag along. Registries
// that know no artifact types leave the field empty.
func looksSigned(artifactType string) bool {
	return artifactType == "" || artifactType == simpleArtifact || strings.HasPrefix(artifactType, bundleType) ||
		strings.HasPrefix(artifactType, "application/vnd.oci.") // of an older manifest: the config's type
}

// artifact reads the signatures of one manifest.
func (f *finder) artifact(ctx context.Context, manifest []byte, where string) error {
	var a artifact
	if err := json.Unmarshal(manifest, &a); err != nil {
		return fmt.Errorf("manifest %s is damaged: %w", where, err)
	}
	var errs []error
	for i, d := range a.Layers {
		isBundle := strings.HasPrefix(d.MediaType, bundleType)
		if !isBundle && d.MediaType != simpleLayer {
			continue
		}
		s := &Signature{Subject: f.subject, Where: where}
		if len(a.Layers) > 1 {
			s.Where = fmt.Sprintf("%d %s", i+1, where)
		}
		if s.err = f.read(ctx, s, d, isBundle); s.err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var lost *lostError
		if errors.As(s.err, &lost) {
			errs = append(errs, fmt.Errorf("signature %s: %w", s.Where, lost.error))
			continue
		}
		if err := f.found(s); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if f.done {
			return nil
		}
	}
	return errors.Join(errs...)
}

// lostError is a signature that could not be read: it may be a good one.
type lostError struct{ error }

func (f *finder) read(ctx context.Context, s *Signature, d Descriptor, isBundle bool) error {
	limit := int64(maxPayload)
	if isBundle {
		limit = maxBundle
	}
	if d.Size < 0 || d.Size > limit {
		return fmt.Errorf("it has %d bytes, more than the %d that are read", d.Size, limit)
	}
	b, err := f.src.Blob(ctx, d)
	if err != nil {
		return &lostError{err}
	}
	if !isBundle {
		return s.readSimple(b, d.Annotations)
	}
	if err := s.readBundle(b, nil); err != nil || s.kind != message {
		return err
	}
	manifest, err := f.src.Manifest(ctx, f.subject)
	if err != nil {
		return &lostError{err}
	}
	return s.readBundle(b, manifest)
}

// readSimple fills s from a simple-signing document and its annotations.
func (s *Signature) readSimple(payload []byte, notes map[string]string) error {
	sig, err := base64.StdEncoding.DecodeString(notes[noteSignature])
	if err != nil || len(sig) == 0 {
		return errors.New("its annotation has no signature in base64")
	}
	s.kind, s.signed, s.statement, s.sigs, s.Artifact = simple, payload, payload, [][]byte{sig}, payload
	if notes[noteCertificate] == "" {
		return nil
	}
	block, _ := pem.Decode([]byte(notes[noteCertificate]))
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("its certificate is damaged")
	}
	s.Bundle, err = bundleOf(notes, payload, sig, block.Bytes)
	return err
}
