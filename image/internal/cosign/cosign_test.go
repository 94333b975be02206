package cosign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

func try[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestKeys(t *testing.T) {
	message := []byte("hello")
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	long := try(rsa.GenerateKey(rand.Reader, 2048))
	h256, h384, h512 := sha256.Sum256(message), sha512.Sum384(message), sha512.Sum512(message)
	ec := func(c elliptic.Curve) crypto.Signer { return try(ecdsa.GenerateKey(c, rand.Reader)) }
	p256, p384, p521 := ec(elliptic.P256()), ec(elliptic.P384()), ec(elliptic.P521())
	for name, c := range map[string]struct {
		key crypto.Signer
		sig []byte
	}{
		"P-256":                   {p256, imagetest.SignBytes(p256, message, false)},
		"P-384 with SHA-256":      {p384, imagetest.SignBytes(p384, message, false)},
		"P-384 with SHA-384":      {p384, try(p384.Sign(rand.Reader, h384[:], crypto.SHA384))},
		"P-521 with SHA-512":      {p521, try(p521.Sign(rand.Reader, h512[:], crypto.SHA512))},
		"Ed25519":                 {ed, imagetest.SignBytes(ed, message, false)},
		"Ed25519ph":               {ed, try(ed.Sign(rand.Reader, h512[:], crypto.SHA512))},
		"RSA PKCS #1 v1.5":        {long, imagetest.SignBytes(long, message, false)},
		"RSA PSS":                 {long, imagetest.SignBytes(long, message, true)},
		"RSA PSS, salt of a hash": {long, try(rsa.SignPSS(rand.Reader, long, crypto.SHA256, h256[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))},
	} {
		k, err := ParseKey(imagetest.PublicPEM(c.key))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := k.Verify(message, c.sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if k.Verify([]byte("hullo"), c.sig) == nil {
			t.Errorf("%s: another message counts", name)
		}
		for _, sig := range [][]byte{nil, c.sig[1:], append([]byte{c.sig[0] ^ 1}, c.sig[1:]...)} {
			if k.Verify(message, sig) == nil {
				t.Errorf("%s: a damaged signature counts", name)
			}
		}
		for _, other := range []crypto.Signer{ec(elliptic.P256()), try(rsa.GenerateKey(rand.Reader, 2048))} {
			if k, _ := ParseKey(imagetest.PublicPEM(other)); k.Verify(message, c.sig) == nil {
				t.Errorf("%s: another key counts", name)
			}
		}
	}
}

func TestKeyForms(t *testing.T) {
	long := try(rsa.GenerateKey(rand.Reader, 2048))
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&long.PublicKey)})
	a, err := ParseKey(pkcs1)
	if err != nil {
		t.Fatal(err)
	}
	if b := try(ParseKey(imagetest.PublicPEM(long))); a.ID() != b.ID() || len(a.ID()) != 64 {
		t.Errorf("%s and %s", a.ID(), b.ID())
	}
	weak, _ := x509.MarshalPKIXPublicKey(try(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public())
	one := imagetest.PublicPEM(imagetest.NewKey())
	for text, b := range map[string][]byte{
		"no PEM block":     []byte("junk"),
		"follows the":      append(append([]byte{}, one...), one...),
		"is no public key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}),
		"too weak":         pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: weak}),
		"asn1":             pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}),
	} {
		if _, err := ParseKey(b); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}

// shelf is a Source in memory.
type shelf struct {
	manifests map[string][]byte
	blobs     map[string][]byte
	referrers []Descriptor
	err       error // of referrers
	reads     int
}

func (s *shelf) Manifest(_ context.Context, id string) ([]byte, error) {
	if b, ok := s.manifests[id]; ok {
		return b, nil
	}
	return nil, ErrNone
}

func (s *shelf) Blob(_ context.Context, d Descriptor) ([]byte, error) {
	s.reads++
	if b, ok := s.blobs[d.Digest]; ok {
		return b, nil
	}
	return nil, errors.New("no such blob")
}

func (s *shelf) Referrers(context.Context, string) ([]Descriptor, error) { return s.referrers, s.err }

func (s *shelf) artifact(parts ...imagetest.Part) []byte {
	var a artifact
	for _, p := range parts {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(p.Body))
		s.blobs[digest] = p.Body
		a.Layers = append(a.Layers, Descriptor{MediaType: p.Type, Digest: digest, Size: int64(len(p.Body)), Annotations: p.Annotations})
	}
	return try(json.Marshal(a))
}

func newShelf() *shelf { return &shelf{manifests: map[string][]byte{}, blobs: map[string][]byte{}} }

const subject = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func all(t *testing.T, s *shelf) ([]*Signature, error) {
	t.Helper()
	var found []*Signature
	err := Visit(context.Background(), s, subject, func(g *Signature) bool {
		found = append(found, g)
		return true
	})
	return found, err
}

func TestVisit(t *testing.T) {
	key := imagetest.NewKey()
	public := try(ParseKey(imagetest.PublicPEM(key)))
	s := newShelf()
	s.manifests[imagetest.SignatureTag(subject)] = s.artifact(
		imagetest.SimplePart(imagetest.SimplePayload("a", subject), key),
		imagetest.Part{Type: "text/plain", Body: []byte("no signature")},
		imagetest.SimplePart(imagetest.SimplePayload("b", subject), key))
	s.manifests["sha256:1"] = s.artifact(imagetest.BundlePart(imagetest.KeyBundle(imagetest.Statement(subject), key)))
	s.manifests["sha256:2"] = s.artifact(imagetest.Part{Type: "application/spdx+json", Body: []byte("{}")})
	s.manifests[subject] = []byte("the manifest")
	s.manifests["sha256:3"] = s.artifact(imagetest.BundlePart(imagetest.MessageBundle(s.manifests[subject], key)))
	s.referrers = []Descriptor{{Digest: "sha256:1", ArtifactType: imagetest.BundleArtifact}, {Digest: "sha256:2", ArtifactType: "application/spdx+json"}, {Digest: "sha256:3"}}
	found, err := all(t, s)
	if err != nil || len(found) != 4 {
		t.Fatalf("%d signatures, %v", len(found), err)
	}
	for _, g := range found {
		if err := errors.Join(g.Check(), g.VerifyKey(public)); err != nil || g.Subject != subject {
			t.Errorf("%s: %v", g.Where, err)
		}
		if g.VerifyKey(try(ParseKey(imagetest.PublicPEM(imagetest.NewKey())))) == nil {
			t.Errorf("%s: another key counts", g.Where)
		}
	}
}

// TestOnePlaceBroken: what one place has counts although the other fails, and
// nothing is asked after the first good one.
func TestOnePlaceBroken(t *testing.T) {
	s := newShelf()
	part := imagetest.SimplePart(imagetest.SimplePayload("a", subject), imagetest.NewKey())
	s.manifests[imagetest.SignatureTag(subject)] = s.artifact(part, part)
	s.err = errors.New("429")
	if found, err := all(t, s); len(found) != 2 || err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("%d signatures, %v", len(found), err)
	}
	s.reads = 0
	if err := Visit(context.Background(), s, subject, func(*Signature) bool { return false }); err != nil || s.reads != 1 {
		t.Errorf("%d reads, %v", s.reads, err)
	}
}

func TestVisitIsBounded(t *testing.T) {
	s := newShelf()
	part := imagetest.SimplePart(imagetest.SimplePayload("a", subject), imagetest.NewKey())
	var many []imagetest.Part
	for range maxSignatures + 1 {
		many = append(many, part)
	}
	s.manifests[imagetest.SignatureTag(subject)] = s.artifact(many...)
	if found, err := all(t, s); len(found) != maxSignatures || err == nil {
		t.Errorf("%d signatures, %v", len(found), err)
	}
	s = newShelf()
	s.manifests[imagetest.SignatureTag(subject)] = s.artifact(imagetest.Part{Type: imagetest.SimpleSigning, Body: make([]byte, maxPayload+1)})
	if found, _ := all(t, s); len(found) != 1 || s.reads != 0 || found[0].Check() == nil {
		t.Errorf("%d signatures, %d reads", len(found), s.reads)
	}
	s = newShelf()
	for i := range maxReferrers + 5 {
		s.referrers = append(s.referrers, Descriptor{Digest: fmt.Sprint(i)})
		s.manifests[fmt.Sprint(i)] = []byte("{}")
	}
	if _, err := all(t, s); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	key := imagetest.NewKey()
	other := "sha256:" + strings.Repeat("b", 64)
	good := string(imagetest.SimplePayload("a", subject))
	statement := string(imagetest.Statement(subject))
	note := func(p imagetest.Part, k, v string) imagetest.Part {
		p.Annotations[k] = v
		return p
	}
	simple := func(s string) imagetest.Part { return imagetest.SimplePart([]byte(s), key) }
	bundled := func(s string) imagetest.Part { return imagetest.BundlePart(imagetest.KeyBundle([]byte(s), key)) }
	raw := func(s string) imagetest.Part { return imagetest.BundlePart([]byte(s)) }
	for _, c := range []struct {
		part imagetest.Part
		want string
	}{
		{simple(string(imagetest.SimplePayload("a", other))), "for another digest, " + other},
		{simple(strings.Replace(good, "cosign container", "atomic container", 1)), "of type"},
		{simple("{"), "damaged"},
		{simple("{}"), "of type"},
		{note(simple(good), noteSignature, "?"), "no signature in base64"},
		{note(simple(good), noteSignature, ""), "no signature in base64"},
		{note(simple(good), noteCertificate, "?"), "certificate is damaged"},
		{bundled(string(imagetest.Statement(other))), "for another digest"},
		{bundled(strings.Replace(statement, "sigstore.dev/cosign/sign", "slsa.dev/provenance", 1)), "and no signature"},
		{bundled(strings.Replace(statement, "in-toto.io", "example.com", 1)), "of type"},
		{bundled(`{"_type":1}`), "damaged"},
		{raw("{"), "damaged"},
		{raw(`{"mediaType":"x"}`), "of type"},
		{raw(`{"mediaType":"` + imagetest.BundleArtifact + `"}`), "neither"},
		{raw(strings.Replace(string(imagetest.KeyBundle([]byte(statement), key)), "vnd.in-toto", "vnd.x", 1)), "envelope holds"},
		{imagetest.BundlePart(imagetest.MessageBundle([]byte("another manifest"), key)), "for another digest"},
	} {
		s := newShelf()
		s.manifests[subject] = []byte("the manifest")
		s.manifests[imagetest.SignatureTag(subject)] = s.artifact(c.part)
		found, err := all(t, s)
		if err != nil || len(found) != 1 {
			t.Fatalf("%d signatures, %v", len(found), err)
		}
		if err := found[0].Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// TestTypesAreApart: a signature of a simple document must not count for the same
// bytes in an envelope, nor the other way round.
func TestTypesAreApart(t *testing.T) {
	key := imagetest.NewKey()
	statement := imagetest.Statement(subject)
	b := strings.Replace(string(imagetest.KeyBundle(statement, key)), `"sig":"`, `"sig":"`+base64.StdEncoding.EncodeToString(imagetest.SignBytes(key, statement, false))+`","x":"`, 1)
	s := newShelf()
	s.manifests[imagetest.SignatureTag(subject)] = s.artifact(imagetest.BundlePart([]byte(b)))
	found, err := all(t, s)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d signatures, %v", len(found), err)
	}
	if found[0].VerifyKey(try(ParseKey(imagetest.PublicPEM(key)))) == nil {
		t.Error("it counts")
	}
}

func FuzzReadBundle(f *testing.F) {
	key := imagetest.NewKey()
	f.Add(imagetest.KeyBundle(imagetest.Statement(subject), key))
	f.Add(imagetest.MessageBundle([]byte("m"), key))
	public := try(ParseKey(imagetest.PublicPEM(imagetest.NewKey())))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Signature{Subject: subject}
		s.err = s.readBundle(b, []byte("m"))
		if s.Check() == nil && s.VerifyKey(public) == nil {
			t.Error("a key that signed nothing counts")
		}
	})
}
