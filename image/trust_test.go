package image

import (
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
)

// signing is a registry with an image that nobody has signed yet.
type signing struct {
	t      *testing.T
	reg    *imagetest.Registry
	key    crypto.Signer
	file   string // the key's public half
	digest string
	ref    string
	layer  string // its layer's blob
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	s := &signing{t: t, reg: imagetest.StartWithReferrers(), key: imagetest.NewKey()}
	t.Cleanup(s.reg.Close)
	img := oneFile("a", noise(5000))
	s.digest, s.layer, s.ref = push(t, s.reg, "acme/app:1", img), digestOf(img.Layers[0]), s.reg.Host+"/acme/app:1"
	s.file = writeKey(t, s.key)
	return s
}

func writeKey(t *testing.T, key crypto.Signer) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(file, imagetest.PublicPEM(key), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (s *signing) sign(digest string) {
	s.t.Helper()
	if err := s.reg.Sign("acme/app", digest, s.key); err != nil {
		s.t.Fatal(err)
	}
}

func (s *signing) artifact(tag, artifactType, subject string, parts ...imagetest.Part) {
	s.t.Helper()
	if _, err := s.reg.PushArtifact("acme/app", tag, artifactType, subject, parts...); err != nil {
		s.t.Fatal(err)
	}
}

func signedBy(files ...string) map[string]Registry {
	r := TrustRule{Require: Signed}
	for _, f := range files {
		r.Signers = append(r.Signers, Signer{Key: f})
	}
	return policy(r)
}

func policy(rules ...TrustRule) map[string]Registry {
	return map[string]Registry{"*": {Policy: rules}}
}

// refused pulls, and sees that nothing of the image came in.
func refused(t *testing.T, s *Store, reg *imagetest.Registry, ref, layer string, o PullOptions, why ...string) {
	t.Helper()
	_, err := s.Pull(ctx, ref, o)
	var step *StepError
	if !errors.Is(err, ErrUntrusted) || !errors.As(err, &step) || step.Step != StepTrust {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, text := range why {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want it to say %q", err, text)
		}
	}
	if got := reg.Requests("GET /v2/acme/app/blobs/" + layer); len(got) > 0 {
		t.Errorf("a layer of a refused image was fetched: %v", got)
	}
	if all, _ := s.List(); len(all) > 0 {
		t.Errorf("a refused image was kept: %v", all[0].Names)
	}
	if blobs, _ := s.blobs.List(); len(blobs) > 0 {
		t.Errorf("blobs of a refused image were kept: %v", blobs)
	}
}

func (s *signing) refused(st *Store, why ...string) {
	s.t.Helper()
	refused(s.t, st, s.reg, s.ref, s.layer, PullOptions{}, why...)
}

func TestSignedByKey(t *testing.T) {
	for name, sign := range map[string]func(*signing){
		"tag": func(s *signing) { s.sign(s.digest) },
		"simple referrer": func(s *signing) {
			s.artifact("", imagetest.CosignArtifact, s.digest, imagetest.SimplePart(imagetest.SimplePayload("x", s.digest), s.key))
		},
		"bundle referrer": func(s *signing) {
			s.artifact("", imagetest.BundleArtifact, s.digest, imagetest.BundlePart(imagetest.KeyBundle(imagetest.Statement(s.digest), s.key)))
		},
		"second of a tag": func(s *signing) {
			p := imagetest.SimplePayload("x", s.digest)
			s.artifact(imagetest.SignatureTag(s.digest), "", "", imagetest.SimplePart(p, imagetest.NewKey()), imagetest.SimplePart(p, s.key))
		},
		"elsewhere first": func(s *signing) { // copied along from another repository, as cosign copy does
			s.artifact(imagetest.SignatureTag(s.digest), "", "", imagetest.SimplePart(imagetest.SimplePayload("other.example/team/app", s.digest), s.key))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigning(t)
			st := newStore(t, Options{Registries: signedBy(writeKey(t, imagetest.NewKey()), s.file)})
			s.refused(st, "rule 1 of registry *", "no signature")
			sign(s)
			if img := pullOK(t, st, s.ref); img.Digest != s.digest {
				t.Errorf("got %s", img.Digest)
			}
		})
	}
}

func TestSignaturesThatDoNotCount(t *testing.T) {
	const other = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	for name, c := range map[string]struct {
		sign func(*signing)
		why  []string
	}{
		"no signature": {func(*signing) {}, []string{"it has no signature"}},
		"another key":  {func(s *signing) { s.key = imagetest.NewKey(); s.sign(s.digest) }, []string{"signature of tag sha256-", "key.pub: the signature was not made with this key"}},
		"another digest": {func(s *signing) {
			s.artifact(imagetest.SignatureTag(s.digest), "", "", imagetest.SimplePart(imagetest.SimplePayload("x", other), s.key))
		}, []string{"for another digest, " + other}},
		"payload changed": {func(s *signing) {
			p := imagetest.SimplePart(imagetest.SimplePayload("x", other), s.key)
			p.Body = imagetest.SimplePayload("x", s.digest)
			s.artifact(imagetest.SignatureTag(s.digest), "", "", p)
		}, []string{"not made with this key"}},
		"each says why": {func(s *signing) {
			p := imagetest.SimplePayload("x", s.digest)
			s.artifact(imagetest.SignatureTag(s.digest), "", "", imagetest.SimplePart(p, imagetest.NewKey()), imagetest.SimplePart([]byte("{}"), s.key))
			s.artifact("", imagetest.BundleArtifact, s.digest, imagetest.BundlePart([]byte("{}")))
		}, []string{"signature 1 of tag", "signature 2 of tag", "payload is of type", "signature of referrer", "bundle is of type"}},
		"attestation": {func(s *signing) {
			doc := strings.Replace(string(imagetest.Statement(s.digest)), "sigstore.dev/cosign/sign", "cosign.sigstore.dev/attestation/vuln", 1)
			s.artifact("", imagetest.BundleArtifact, s.digest, imagetest.BundlePart(imagetest.KeyBundle([]byte(doc), s.key)))
		}, []string{"and no signature"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigning(t)
			c.sign(s)
			s.refused(newStore(t, Options{Registries: signedBy(s.file)}), c.why...)
		})
	}
}

// TestSignedIndex: what signs the index signs each image in it, and what signs one
// image does not sign the others.
func TestSignedIndex(t *testing.T) {
	s := newSigning(t)
	arm := oneFile("a", "arm")
	arm.Platform.Architecture = "arm64"
	intel := oneFile("a", "amd")
	intel.Platform.Architecture = "amd64"
	index, err := s.reg.PushIndex("acme/app:2", arm, intel)
	if err != nil {
		t.Fatal(err)
	}
	ref := s.reg.Host + "/acme/app:2"
	pull := func(st *Store, arch string) (Image, error) {
		return st.Pull(ctx, ref, PullOptions{Policy: Always, Platform: Platform{OS: "linux", Architecture: arch}})
	}
	armImage, err := pull(newStore(t, Options{}), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	st := newStore(t, Options{Registries: signedBy(s.file)})
	s.sign(armImage.Digest)
	if _, err := pull(st, "arm64"); err != nil {
		t.Error(err)
	}
	if _, err := pull(st, "amd64"); !errors.Is(err, ErrUntrusted) {
		t.Errorf("an image counts because its neighbour is signed: %v", err)
	}
	s.sign(index)
	amd, err := pull(st, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	// The tag moves on. What the index vouched for is remembered with the image, also
	// when a new key has to be looked for.
	push(t, s.reg, "acme/app:2", oneFile("a", "next"))
	renewed := imagetest.NewKey()
	s.key = renewed
	s.sign(index)
	st.Reconfigure(Options{Registries: signedBy(writeKey(t, renewed))})
	if err := st.Admit(ctx, ref, amd.Digest, PullOptions{}); err != nil {
		t.Error(err)
	}
}

// TestAdmitBareDigest: an image that is used by its digest alone obeys the policy of
// its names.
func TestAdmitBareDigest(t *testing.T) {
	s := newSigning(t)
	st := newStore(t, Options{})
	img := pullOK(t, st, s.ref)
	hex := strings.TrimPrefix(img.Digest, "sha256:")
	admit := func(ref string) error { return st.Admit(ctx, ref, img.Digest, PullOptions{Policy: Never}) }
	for _, ref := range []string{s.ref, img.Digest, hex, hex[:12]} {
		st.Reconfigure(Options{})
		if err := admit(ref); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		st.Reconfigure(Options{Registries: policy(TrustRule{Repository: "acme/app", Require: Reject})})
		if err := admit(ref); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	push(t, s.reg, "acme/app:1", oneFile("a", "next"))
	if _, err := st.Pull(ctx, s.ref, PullOptions{Policy: Always}); !errors.Is(err, ErrUntrusted) {
		t.Fatal(err)
	}
	st.Reconfigure(Options{})
	if _, err := st.Pull(ctx, s.ref, PullOptions{Policy: Always}); err != nil { // takes the name away
		t.Fatal(err)
	}
	st.Reconfigure(Options{Registries: policy(TrustRule{Repository: "other/app", Require: Reject})})
	if err := admit(img.Digest); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "no name") {
		t.Errorf("nameless: %v", err)
	}
	if err := st.Admit(ctx, s.ref, s.layer, PullOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("not here: %v", err)
	}
}

// TestNewerReplacesRefused: an image that the policy does not let in any more gives
// way to a newer one that it does.
func TestNewerReplacesRefused(t *testing.T) {
	s := newSigning(t)
	st := newStore(t, Options{})
	pullOK(t, st, s.ref)
	next := push(t, s.reg, "acme/app:1", oneFile("a", "next"))
	s.sign(next)
	st.Reconfigure(Options{Registries: signedBy(s.file)})
	if img, err := st.Pull(ctx, s.ref, PullOptions{Policy: Newer}); err != nil || img.Digest != next {
		t.Errorf("got %s, %v", img.Digest, err)
	}
}

func TestDigestRule(t *testing.T) {
	s := newSigning(t)
	st := newStore(t, Options{Registries: policy(TrustRule{Repository: "acme/*", Require: Digests})})
	repo := s.reg.Host + "/acme/app@" + s.digest
	s.refused(st, "it stands for "+s.digest+" right now: write "+repo, "rule 1 of registry * (acme/*: digest)")
	pullOK(t, st, repo)
	if err := st.Admit(ctx, s.ref, s.digest, PullOptions{}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("the tag is good enough for what is here: %v", err)
	}
}

func TestReject(t *testing.T) {
	s := newSigning(t)
	st := newStore(t, Options{Registries: map[string]Registry{
		s.reg.Host: {Policy: []TrustRule{{Repository: "acme/**", Require: Reject}}},
	}})
	asked := len(s.reg.Requests("/v2/"))
	s.refused(st, "rule 1 of registry "+s.reg.Host, "nothing of it may be used")
	if more := s.reg.Requests("/v2/")[asked:]; len(more) > 0 {
		t.Errorf("the registry was asked: %v", more)
	}
}

// TestPolicyChanged: what is in the store already obeys the policy of today, and what
// was verified needs no network.
func TestPolicyChanged(t *testing.T) {
	s := newSigning(t)
	root := t.TempDir()
	st := newStore(t, Options{Root: root})
	img := pullOK(t, st, s.ref)
	other := imagetest.NewKey()
	strict := func(key crypto.Signer) { st.Reconfigure(Options{Registries: signedBy(writeKey(t, key))}) }
	again := func(p Policy) error {
		_, err := st.Pull(ctx, s.ref, PullOptions{Policy: p})
		return err
	}
	strict(s.key)
	if err := again(Missing); !errors.Is(err, ErrUntrusted) {
		t.Errorf("unsigned, but here: %v", err)
	}
	s.sign(s.digest)
	if err := again(Never); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "no registry may be asked") {
		t.Errorf("never asks nobody: %v", err)
	}
	if err := again(Missing); err != nil {
		t.Fatal(err)
	}
	if err := again(Never); err != nil {
		t.Error(err)
	}
	// The registry goes, the node boots.
	s.reg.Close()
	st.Close()
	st = newStore(t, Options{Root: root, Registries: signedBy(writeKey(t, s.key))})
	if err := errors.Join(again(Never), again(Missing), st.Admit(ctx, s.ref, img.Digest, PullOptions{})); err != nil {
		t.Error(err)
	}
	// Another signer beside the first changes nothing; one in his place does.
	st.Reconfigure(Options{Registries: signedBy(writeKey(t, other), s.file)})
	if err := again(Missing); err != nil {
		t.Error(err)
	}
	strict(other)
	if err := again(Missing); !errors.Is(err, ErrUntrusted) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("a changed policy that cannot be verified: %v", err)
	}
	st.Reconfigure(Options{Registries: policy(TrustRule{Require: Reject})})
	if err := again(Never); !errors.Is(err, ErrUntrusted) {
		t.Errorf("rejected, but here: %v", err)
	}
}

// TestRecordLost: a damaged record lets nothing in.
func TestRecordLost(t *testing.T) {
	s := newSigning(t)
	s.sign(s.digest)
	root := t.TempDir()
	st := newStore(t, Options{Root: root, Registries: signedBy(s.file)})
	pullOK(t, st, s.ref)
	st.Close()
	if err := os.WriteFile(trustPath(root), []byte(`{"version":1,"images":`), 0o600); err != nil {
		t.Fatal(err)
	}
	st = newStore(t, Options{Root: root, Registries: signedBy(s.file)})
	if _, err := st.Pull(ctx, s.ref, PullOptions{Policy: Never}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("got %v", err)
	}
	pullOK(t, st, s.ref)
}

func TestRecordForgetsWhatIsGone(t *testing.T) {
	v := vouched{path: filepath.Join(t.TempDir(), "trust.json")}
	for i := range 3 { // the first is an image, the second is gone, the third is young
		w := voucher{Signer: "key:a", At: time.Unix(0, 0).AddDate(0, 0, 2*i)}
		if err := v.add(fmt.Sprint(i), w, func(d string) bool { return d == "0" }); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	for d := range v.all {
		left = append(left, d)
	}
	if slices.Sort(left); !slices.Equal(left, []string{"0", "2"}) {
		t.Errorf("left: %v", left)
	}
}

// TestKeyFileChanges: the file is read anew, and a broken one refuses.
func TestKeyFileChanges(t *testing.T) {
	s := newSigning(t)
	s.sign(s.digest)
	file := writeKey(t, imagetest.NewKey())
	st := newStore(t, Options{Registries: signedBy(file)})
	s.refused(st, "not made with this key")
	for _, b := range []string{"", "junk"} {
		if err := os.WriteFile(file, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		s.refused(st, file, "no PEM block")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.refused(st, "no such file")
	if err := os.WriteFile(file, imagetest.PublicPEM(s.key), 0o600); err != nil {
		t.Fatal(err)
	}
	pullOK(t, st, s.ref)
}

// TestRegistryTrouble: what the registry cannot say is not taken for a yes, and says
// that it may pass.
func TestRegistryTrouble(t *testing.T) {
	s := newSigning(t)
	s.sign(s.digest)
	st := newStore(t, Options{Registries: signedBy(s.file)})
	s.reg.Break(imagetest.Fault{Path: ".sig", Status: http.StatusTooManyRequests})
	_, err := st.Pull(ctx, s.ref, PullOptions{})
	if !errors.Is(err, ErrUntrusted) || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "too many requests") {
		t.Errorf("got %v", err)
	}
	s.reg.Mend()
	s.reg.Break(imagetest.Fault{Path: ".sig", Status: http.StatusTooManyRequests, Times: 2})
	if _, err := st.Pull(ctx, s.ref, PullOptions{}); err != nil {
		t.Errorf("busy for a moment: %v", err)
	}
}

// TestReferrersUnknown: a registry without the API, where the fallback tag has the list.
func TestReferrersUnknown(t *testing.T) {
	s := newSigning(t)
	s.reg = newRegistry(t)
	push(t, s.reg, "acme/app:1", oneFile("a", noise(5000)))
	s.ref = s.reg.Host + "/acme/app:1"
	st := newStore(t, Options{Registries: signedBy(s.file)})
	img, err := newStore(t, Options{}).Pull(ctx, s.ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.artifact("", imagetest.BundleArtifact, img.Digest, imagetest.BundlePart(imagetest.KeyBundle(imagetest.Statement(img.Digest), s.key)))
	pullOK(t, st, s.ref)
}

// TestMirrors: a mirror that lacks the signatures, or hides them, makes no difference
// while the registry has them; where nobody has them the image is refused.
func TestMirrors(t *testing.T) {
	s := newSigning(t)
	mirror := newRegistry(t)
	push(t, mirror, "acme/app:1", oneFile("a", noise(5000)))
	with := signedBy(s.file)
	with[s.reg.Host] = Registry{Mirrors: []string{mirror.Host}}
	// A registry that is named for its mirror still has the policy of all others.
	st := newStore(t, Options{Registries: with})
	_, err := st.Pull(ctx, s.ref, PullOptions{})
	if !errors.Is(err, ErrUntrusted) || len(mirror.Requests("/manifests/1")) == 0 {
		t.Fatalf("got %v", err)
	}
	img := pullOK(t, newStore(t, Options{}), mirror.Host+"/acme/app:1")
	s.sign(img.Digest)
	st = newStore(t, Options{Registries: with})
	pullOK(t, st, s.ref)

	// The other way round: only the mirror has them.
	s2 := newSigning(t)
	with = signedBy(s2.file)
	with[s2.reg.Host] = Registry{Mirrors: []string{mirror.Host}}
	if err := mirror.Sign("acme/app", img.Digest, s2.key); err != nil {
		t.Fatal(err)
	}
	pullOK(t, newStore(t, Options{Registries: with}), s2.ref)
}

func TestRules(t *testing.T) {
	p := newPolicies(Options{Registries: map[string]Registry{
		"docker.io": {Policy: []TrustRule{{Repository: "library/*", Require: Accept}, {Repository: "acme/**", Require: Digests}, {Require: Reject}}},
		"named.io":  {Mirrors: []string{"m.io"}},
		"open.io":   {Policy: []TrustRule{}},
		"*":         {Policy: []TrustRule{{Repository: "*/public", Require: Accept}, {Repository: "**", Require: Signed}}},
	}})
	s := newStore(t, Options{})
	for ref, want := range map[string]Requirement{
		"nginx": Accept, "docker.io/library/nginx": Accept, "acme/app": Digests, "docker.io/acme/a/b/c": Digests, "acmex/app": Reject,
		"named.io/a/b": Signed, "open.io/a/b": Accept, "x.io/a/public": Accept, "x.io/a/b/public": Signed, "x.io/a": Signed,
	} {
		if got := p.decide(mustRef(t, s, ref)).Require; got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
	if got := (policies{}).decide(mustRef(t, s, "nginx")).Require; got != Accept {
		t.Errorf("no policy: %s", got)
	}
}

func TestCheckRules(t *testing.T) {
	key := writeKey(t, imagetest.NewKey())
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	signer := func(g Signer) TrustRule { return TrustRule{Require: Signed, Signers: []Signer{g}} }
	for text, r := range map[string]TrustRule{
		"":                               signer(Signer{Key: key}),
		`requirement ""`:                 {},
		`requirement "maybe"`:            {Require: "maybe"},
		"repository pattern":             {Repository: "[", Require: Accept},
		"only stand at its end":          {Repository: "**/a", Require: Accept},
		"write / before **":              {Repository: "a**", Require: Accept},
		"no signers":                     {Require: Signed},
		"they count only with":           {Require: Accept, Signers: []Signer{{Key: key}}},
		"write two signers":              signer(Signer{Key: key, Identity: "a"}),
		"no such file":                   signer(Signer{Key: "/nonexistent"}),
		"no PEM block":                   signer(Signer{Key: root}),
		"no identity given":              signer(Signer{}),
		"no issuer given":                signer(Signer{Identity: "a", TrustedRoot: root}),
		"no trusted root":                signer(Signer{Identity: "a", Issuer: "b"}),
		"missing closing )":              signer(Signer{IdentityRegexp: "(", Issuer: "b", TrustedRoot: root}),
		"trusted root: open /nonexisten": signer(Signer{Identity: "a", Issuer: "b", TrustedRoot: "/nonexistent"}),
	} {
		err := r.Check()
		if (text == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
	_, err := Open(Options{Root: t.TempDir(), Registries: policy(TrustRule{Require: Accept}, signer(Signer{Key: "/nonexistent"}))})
	if err == nil || !strings.Contains(err.Error(), "registry *: rule 2 of its policy: key: open /nonexistent") {
		t.Errorf("Open: %v", err)
	}
	_, err = Open(Options{Root: t.TempDir(), Registries: policy(signer(Signer{Identity: "a", Issuer: "b", TrustedRoot: root}))})
	if err == nil || !strings.Contains(err.Error(), "wherry-verify is missing") {
		t.Errorf("Open: %v", err)
	}
}
