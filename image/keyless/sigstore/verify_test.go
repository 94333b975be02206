package sigstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/keyless"
	"github.com/wherry-run/wherry/image/keyless/sigstore"
)

const (
	builder = "https://github.com/acme/app/.github/workflows/build.yml@refs/heads/main"
	issuer  = "https://token.actions.githubusercontent.com"
)

var ctx = context.Background()

// scene is a registry with one image, an authority, and a store that demands a
// signature by the builder.
type scene struct {
	t      *testing.T
	reg    *imagetest.Registry
	auth   *imagetest.Authority
	digest string
	signer image.Signer
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, reg: imagetest.StartWithReferrers(), auth: imagetest.NewAuthority()}
	t.Cleanup(s.reg.Close)
	var err error
	s.digest, err = s.reg.Push("acme/app:1", imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(imagetest.Files(map[string]string{"a": "b"})...)}})
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "trusted_root.json")
	if err := os.WriteFile(root, s.auth.TrustedRoot(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signer = image.Signer{Identity: builder, Issuer: issuer, TrustedRoot: root}
	return s
}

func (s *scene) payload() []byte { return imagetest.SimplePayload("x/y", s.digest) }

func (s *scene) tag(parts ...imagetest.Part) {
	s.t.Helper()
	if _, err := s.reg.PushArtifact("acme/app", imagetest.SignatureTag(s.digest), "", "", parts...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) refer(bundle []byte) {
	s.t.Helper()
	if _, err := s.reg.PushArtifact("acme/app", "", imagetest.BundleArtifact, s.digest, imagetest.BundlePart(bundle)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) pull(v keyless.Verifier) error {
	s.t.Helper()
	store, err := image.Open(image.Options{Root: s.t.TempDir(), Keyless: v, Registries: map[string]image.Registry{
		"*": {Policy: []image.TrustRule{{Require: image.Signed, Signers: []image.Signer{s.signer}}}},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	_, err = store.Pull(ctx, s.reg.Host+"/acme/app:1", image.PullOptions{})
	return err
}

func (s *scene) refused(v keyless.Verifier, why string) {
	s.t.Helper()
	err := s.pull(v)
	if !errors.Is(err, image.ErrUntrusted) || !strings.Contains(err.Error(), why) {
		s.t.Errorf("got %v, want a refusal with %q", err, why)
	}
}

func TestKeyless(t *testing.T) {
	now := time.Now()
	v := sigstore.New()
	t.Run("simple signing at a tag", func(t *testing.T) {
		s := newScene(t)
		s.tag(s.auth.SimplePart(s.payload(), s.auth.Certify(builder, issuer, now), now.Add(time.Minute)))
		if err := s.pull(v); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("bundle as a referrer", func(t *testing.T) {
		s := newScene(t)
		s.refer(s.auth.Bundle(imagetest.Statement(s.digest), s.auth.Certify(builder, issuer, now), now.Add(time.Minute)))
		if err := s.pull(v); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("certificate expired when it signed", func(t *testing.T) {
		s := newScene(t)
		who := s.auth.Certify(builder, issuer, now.Add(-time.Hour))
		s.tag(s.auth.SimplePart(s.payload(), who, now))
		s.refer(s.auth.Bundle(imagetest.Statement(s.digest), who, now))
		s.refused(v, "outside certificate validity")
	})
	t.Run("another identity", func(t *testing.T) {
		s := newScene(t)
		s.tag(s.auth.SimplePart(s.payload(), s.auth.Certify("mallory@example.com", issuer, now), now.Add(time.Minute)))
		s.refused(v, `got "mallory@example.com"`)
	})
	t.Run("another issuer", func(t *testing.T) {
		s := newScene(t)
		s.tag(s.auth.SimplePart(s.payload(), s.auth.Certify(builder, "https://login.mallory.example", now), now.Add(time.Minute)))
		s.refused(v, `got "https://login.mallory.example"`)
	})
	t.Run("another authority", func(t *testing.T) {
		s, other := newScene(t), imagetest.NewAuthority()
		s.tag(other.SimplePart(s.payload(), other.Certify(builder, issuer, now), now.Add(time.Minute)))
		s.refused(v, "log")
	})
	t.Run("certificate that no log has seen", func(t *testing.T) {
		s := newScene(t)
		s.auth.Unlogged = true
		s.tag(s.auth.SimplePart(s.payload(), s.auth.Certify(builder, issuer, now), now.Add(time.Minute)))
		s.refused(v, "signed certificate timestamp")
	})
	t.Run("not in the log", func(t *testing.T) {
		s := newScene(t)
		p := s.auth.SimplePart(s.payload(), s.auth.Certify(builder, issuer, now), now.Add(time.Minute))
		delete(p.Annotations, "dev.sigstore.cosign/bundle")
		s.tag(p)
		s.refused(v, "log")
	})
	t.Run("log entry of another signature", func(t *testing.T) {
		s := newScene(t)
		who := s.auth.Certify(builder, issuer, now)
		p := s.auth.SimplePart(s.payload(), who, now.Add(time.Minute))
		other := s.auth.SimplePart([]byte("{}"), who, now.Add(time.Minute))
		p.Annotations["dev.sigstore.cosign/bundle"] = other.Annotations["dev.sigstore.cosign/bundle"]
		s.tag(p)
		s.refused(v, "signature")
	})
	t.Run("payload changed", func(t *testing.T) {
		s := newScene(t)
		p := s.auth.SimplePart(imagetest.SimplePayload("x/y", "sha256:"+strings.Repeat("0", 64)), s.auth.Certify(builder, issuer, now), now.Add(time.Minute))
		p.Body = s.payload()
		s.tag(p)
		s.refused(v, "signature")
	})
	t.Run("statement about the image", func(t *testing.T) {
		s := newScene(t)
		doc := strings.Replace(string(imagetest.Statement(s.digest)), "https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1", 1)
		s.refer(s.auth.Bundle([]byte(doc), s.auth.Certify(builder, issuer, now), now.Add(time.Minute)))
		s.refused(v, "no signature")
	})
	t.Run("only a key", func(t *testing.T) {
		s := newScene(t)
		if err := s.reg.Sign("acme/app", s.digest, imagetest.NewKey()); err != nil {
			t.Fatal(err)
		}
		s.refused(v, "it has no certificate")
	})
}

func TestExpressionsAreForTheWhole(t *testing.T) {
	now := time.Now()
	for expr, ok := range map[string]bool{
		`https://github\.com/acme/.*`:       true,
		`https://github\.com/acme/app/|x`:   false,
		`github\.com/acme`:                  false,
		`https://github\.com/acme/app`:      false,
		`(?i)HTTPS://GITHUB\.COM/acme/.*`:   true,
		`x|https://github\.com/acme/app/.*`: true,
	} {
		s := newScene(t)
		s.signer.Identity, s.signer.IdentityRegexp = "", expr
		s.signer.Issuer, s.signer.IssuerRegexp = "", `https://token\.actions\..*`
		s.tag(s.auth.SimplePart(s.payload(), s.auth.Certify(builder, issuer, now), now.Add(time.Minute)))
		if err := s.pull(sigstore.New()); (err == nil) != ok {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

// TestSecondIdentity: of several signers with one trusted root any will do, and
// the store says which one it was.
func TestSecondIdentity(t *testing.T) {
	now := time.Now()
	a := imagetest.NewAuthority()
	digest := "sha256:" + strings.Repeat("a", 64)
	r := keyless.Request{
		Bundle: a.Bundle(imagetest.Statement(digest), a.Certify("b@example.com", issuer, now), now.Add(time.Minute)),
		Digest: digest, TrustedRoot: a.TrustedRoot(),
		Identities: []keyless.Identity{{Subject: "a@example.com", Issuer: issuer}, {Subject: "b@example.com", Issuer: issuer}},
	}
	res, err := sigstore.New().Verify(ctx, r)
	if err != nil || res.Identity != 1 || res.Subject != "b@example.com" || res.Issuer != issuer || res.At.Unix() != now.Add(time.Minute).Unix() {
		t.Errorf("got %+v, %v", res, err)
	}
	r.Digest = "sha256:" + strings.Repeat("b", 64)
	if _, err := sigstore.New().Verify(ctx, r); err == nil {
		t.Error("a statement about another digest counts")
	}
}

func TestCheckRoot(t *testing.T) {
	v, a := sigstore.New(), imagetest.NewAuthority()
	if err := v.CheckRoot(ctx, a.TrustedRoot()); err != nil {
		t.Error(err)
	}
	without := func(keys ...string) []byte {
		var m map[string]any
		if err := json.Unmarshal(a.TrustedRoot(), &m); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			delete(m, k)
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for text, root := range map[string][]byte{
		"trusted root":            []byte("{}"),
		"no certificate auth":     without("certificateAuthorities"),
		"neither a transparency":  without("tlogs"),
		"trusted root: proto: sy": []byte("junk"),
	} {
		if err := v.CheckRoot(ctx, root); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "\u00a0", " "), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}

// TestCommand runs the same through a program of its own.
func TestCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	bin := filepath.Join(t.TempDir(), "wherry-verify")
	build := exec.Command("go", "build", "-o", bin, "../../../cmd/wherry-verify")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v, now := keyless.Command(bin), time.Now()
	s := newScene(t)
	s.refused(v, "it has no signature")
	s.tag(s.auth.SimplePart(s.payload(), s.auth.Certify("mallory@example.com", issuer, now), now.Add(time.Minute)))
	s.refused(v, `got "mallory@example.com"`)
	s.refer(s.auth.Bundle(imagetest.Statement(s.digest), s.auth.Certify(builder, issuer, now), now.Add(time.Minute)))
	if err := s.pull(v); err != nil {
		t.Fatal(err)
	}
	if err := v.CheckRoot(ctx, []byte("{}")); err == nil {
		t.Error("an empty trusted root counts")
	}
	var broken *keyless.BrokenError
	if _, err := keyless.Command("/nonexistent").Verify(ctx, keyless.Request{}); !errors.As(err, &broken) {
		t.Errorf("no program: %v", err)
	}
	if _, err := keyless.Command("/bin/true").Verify(ctx, keyless.Request{Bundle: []byte("{}")}); !errors.As(err, &broken) {
		t.Errorf("no answer: %v", err)
	}
}
