package cosign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // for crypto.SHA384 and SHA512
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// minRSA is the shortest RSA key that counts, as in NIST SP 800-131A.
const minRSA = 2048

// Key is a public key that can verify signatures.
type Key struct {
	public crypto.PublicKey
	id     string
}

// ParseKey reads a PEM file with one public key: ECDSA on P-256, P-384 or P-521,
// Ed25519, or RSA.
func ParseKey(b []byte) (*Key, error) {
	block, rest := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("something follows the first PEM block; one public key is wanted")
	}
	var public any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%q is no public key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return nil, errors.New("curve P-224 is too weak")
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits is too weak; %d are wanted", n, minRSA)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("keys of type %T are not supported", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &Key{public: public, id: hex.EncodeToString(sum[:])}, nil
}

// ID is the SHA-256 of the key in its canonical form: the same key in another
// file, or in another PEM form, has the same one.
func (k *Key) ID() string { return k.id }

var errSignature = errors.New("the signature was not made with this key")

// Verify checks a signature of message. Which hash goes with a key changed
// between versions of cosign (SHA-256 for all, later the one that fits the curve),
// and nothing tells which it was: each that is sound is tried.
func (k *Key) Verify(message, sig []byte) error {
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		if k.verify(h, message, sig) {
			return nil
		}
	}
	return errSignature
}

func (k *Key) verify(h crypto.Hash, message, sig []byte) bool {
	w := h.New()
	w.Write(message)
	sum := w.Sum(nil)
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, sum, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, h, sum, sig) == nil || rsa.VerifyPSS(public, h, sum, sig, nil) == nil
	case ed25519.PublicKey:
		// With a transparency log cosign signs the SHA-512 (Ed25519ph, RFC 8032).
		return h == crypto.SHA512 && (ed25519.Verify(public, message, sig) ||
			ed25519.VerifyWithOptions(public, sum, sig, &ed25519.Options{Hash: h}) == nil)
	}
	return false
}
