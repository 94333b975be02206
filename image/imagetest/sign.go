package imagetest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// StartWithReferrers is Start for a registry that has the referrers API.
func StartWithReferrers() *Registry {
	r := &Registry{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))}
	r.server = httptest.NewServer(r)
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

// Types of what carries a signature.
const (
	SimpleSigning  = "application/vnd.dev.cosign.simplesigning.v1+json"
	CosignArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"
	BundleArtifact = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// Part is one layer of an artifact.
type Part struct {
	Type        string
	Body        []byte
	Annotations map[string]string
}

// PushArtifact stores a manifest with these layers under a tag or, without one, by
// digest; with a subject it refers to it.
func (r *Registry) PushArtifact(repo, tag, artifactType, subject string, parts ...Part) (digest string, err error) {
	to, err := name.NewRepository(r.Host + "/" + repo)
	if err != nil {
		return "", err
	}
	option := remote.WithTransport(direct{r.inner})
	config := []byte("{}")
	layers := []map[string]any{}
	for _, p := range append([]Part{{Type: "application/vnd.oci.empty.v1+json", Body: config}}, parts...) {
		if err := remote.WriteLayer(to, static.NewLayer(p.Body, types.MediaType(p.Type)), option); err != nil {
			return "", err
		}
		d := map[string]any{"mediaType": p.Type, "digest": sum(p.Body), "size": len(p.Body)}
		if p.Annotations != nil {
			d["annotations"] = p.Annotations
		}
		layers = append(layers, d)
	}
	m := map[string]any{
		"schemaVersion": 2, "mediaType": string(types.OCIManifestSchema1), "config": layers[0], "layers": layers[1:],
	}
	if artifactType != "" {
		m["artifactType"] = artifactType
	}
	if subject != "" {
		m["subject"] = map[string]any{"mediaType": string(types.OCIManifestSchema1), "digest": subject, "size": 1}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	var ref name.Reference = to.Digest(sum(body))
	if tag != "" {
		ref = to.Tag(tag)
	}
	return sum(body), remote.Put(ref, rawManifest(body), option)
}

type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// SignatureTag is where cosign keeps the signatures of a digest.
func SignatureTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// SimplePayload is the document that cosign signs for an image.
func SimplePayload(repository, digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repository, digest)
}

// Statement is the in-toto statement that newer cosigns sign.
func Statement(digest string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, strings.TrimPrefix(digest, "sha256:"))
}

// SignBytes signs a message as cosign does without a log: over the SHA-256, or over
// the message itself with Ed25519. RSA signs with PSS if pss is set.
func SignBytes(key crypto.Signer, message []byte, pss bool) []byte {
	if _, ok := key.(ed25519.PrivateKey); ok {
		sig, err := key.Sign(rand.Reader, message, crypto.Hash(0))
		must(err)
		return sig
	}
	digest := sha256.Sum256(message)
	var how crypto.SignerOpts = crypto.SHA256
	if pss {
		how = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256}
	}
	sig, err := key.Sign(rand.Reader, digest[:], how)
	must(err)
	return sig
}

// PublicPEM is the public key of a key, as a file has it.
func PublicPEM(key crypto.Signer) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// SimplePart is a simple-signing document with a signature by key.
func SimplePart(payload []byte, key crypto.Signer) Part {
	return Part{Type: SimpleSigning, Body: payload, Annotations: map[string]string{
		"dev.cosignproject.cosign/signature": base64Text(SignBytes(key, payload, false)),
	}}
}

// Sign stores a signature of digest by key where cosign 2 does.
func (r *Registry) Sign(repo, digest string, key crypto.Signer) error {
	_, err := r.PushArtifact(repo, SignatureTag(digest), "", "", SimplePart(SimplePayload(r.Host+"/"+repo, digest), key))
	return err
}

// KeyBundle is a Sigstore bundle with a statement signed by key.
func KeyBundle(statement []byte, key crypto.Signer) []byte {
	return bundleJSON(map[string]any{"publicKey": map[string]any{"hint": "k"}}, envelope(statement, SignBytes(key, preAuth(statement), false)), nil)
}

// BundlePart is a Sigstore bundle as it lies in a registry.
func BundlePart(bundle []byte) Part { return Part{Type: BundleArtifact, Body: bundle} }

const inToto = "application/vnd.in-toto+json"

func preAuth(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inToto), inToto, len(payload), payload)
}

func envelope(payload, sig []byte) map[string]any {
	return map[string]any{"payload": payload, "payloadType": inToto, "signatures": []any{map[string]any{"sig": sig}}}
}

// bundleJSON makes a bundle with an envelope, or a signature of message.
func bundleJSON(material, envelope, message map[string]any) []byte {
	m := map[string]any{"mediaType": BundleArtifact, "verificationMaterial": material}
	if envelope != nil {
		m["dsseEnvelope"] = envelope
	}
	if message != nil {
		m["messageSignature"] = message
	}
	b, err := json.Marshal(m)
	must(err)
	return bytes.TrimSpace(b)
}

// MessageBundle is a Sigstore bundle with a signature by key over the message itself.
func MessageBundle(message []byte, key crypto.Signer) []byte {
	s := sha256.Sum256(message)
	return bundleJSON(map[string]any{"publicKey": map[string]any{"hint": "k"}}, nil, map[string]any{
		"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": s[:]}, "signature": SignBytes(key, message, false),
	})
}
