package imagetest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Authority is a Sigstore of its own: it certifies identities, logs certificates and
// logs signatures. What it does is what Fulcio, a CT log (RFC 6962) and Rekor v1
// do, in memory and without asking who is there.
type Authority struct {
	// Unlogged leaves the CT log's timestamp out of certificates.
	Unlogged bool

	name     string
	ca       *x509.Certificate
	caKey    *ecdsa.PrivateKey
	rekor    *ecdsa.PrivateKey
	certLog  *ecdsa.PrivateKey
	serial   int64
	validity time.Duration
}

// NewAuthority makes one.
func NewAuthority() *Authority {
	a := &Authority{name: "rekor.test", caKey: NewKey(), rekor: NewKey(), certLog: NewKey(), validity: 10 * time.Minute}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test", Organization: []string{"test"}},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, a.caKey.Public(), a.caKey)
	must(err)
	a.ca, err = x509.ParseCertificate(der)
	must(err)
	return a
}

// NewKey makes a key on P-256.
func NewKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

func spki(key crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	must(err)
	return der
}

func logID(key *ecdsa.PrivateKey) []byte {
	id := sha256.Sum256(spki(key.Public()))
	return id[:]
}

// TrustedRoot is the authority's trusted_root.json.
func (a *Authority) TrustedRoot() []byte {
	from := map[string]any{"start": time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)}
	log := func(key *ecdsa.PrivateKey) map[string]any {
		return map[string]any{
			"baseUrl": "https://" + a.name, "hashAlgorithm": "SHA2_256", "logId": map[string]any{"keyId": logID(key)},
			"publicKey": map[string]any{"rawBytes": spki(key.Public()), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": from},
		}
	}
	b, err := json.Marshal(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"tlogs":     []any{log(a.rekor)},
		"ctlogs":    []any{log(a.certLog)},
		"certificateAuthorities": []any{map[string]any{
			"subject": map[string]any{"organization": "test", "commonName": "test"}, "uri": "https://fulcio.test",
			"certChain": map[string]any{"certificates": []any{map[string]any{"rawBytes": a.ca.Raw}}}, "validFor": from,
		}},
	})
	must(err)
	return b
}

// Identity is a key with a certificate for it.
type Identity struct {
	Key         *ecdsa.PrivateKey
	Certificate []byte // DER
}

func (i Identity) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate})
}

// Certify makes a certificate for an e-mail address or a URI, vouched for by issuer, that is good
// for ten minutes from at.
func (a *Authority) Certify(subject, issuer string, at time.Time) Identity {
	a.serial++
	who := Identity{Key: NewKey()}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + a.serial), NotBefore: at, NotAfter: at.Add(a.validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)},
		},
	}
	if strings.Contains(subject, "://") {
		u, err := url.Parse(subject)
		must(err)
		t.URIs = []*url.URL{u}
	} else {
		t.EmailAddresses = []string{subject}
	}
	issue := func() []byte {
		der, err := x509.CreateCertificate(rand.Reader, t, a.ca, who.Key.Public(), a.caKey)
		must(err)
		return der
	}
	who.Certificate = issue()
	if !a.Unlogged {
		t.ExtraExtensions = append(t.ExtraExtensions, a.logCertificate(who.Certificate))
		who.Certificate = issue()
	}
	return who
}

// logCertificate returns the extension with the CT log's timestamp (RFC 6962,
// 3.2 and 3.3) for a certificate that does not have it yet.
func (a *Authority) logCertificate(der []byte) pkix.Extension {
	cert, err := x509.ParseCertificate(der)
	must(err)
	issuer := sha256.Sum256(a.ca.RawSubjectPublicKeyInfo)
	stamp := uint64(cert.NotBefore.UnixMilli())
	signed := []byte{0, 0} // version 1, certificate timestamp
	signed = binary.BigEndian.AppendUint64(signed, stamp)
	signed = append(signed, 0, 1) // precertificate
	signed = append(signed, issuer[:]...)
	n := len(cert.RawTBSCertificate)
	signed = append(signed, byte(n>>16), byte(n>>8), byte(n))
	signed = append(signed, cert.RawTBSCertificate...)
	signed = append(signed, 0, 0) // no extensions
	sig := SignBytes(a.certLog, signed, false)

	sct := slices.Concat([]byte{0}, logID(a.certLog), binary.BigEndian.AppendUint64(nil, stamp), []byte{0, 0, 4, 3})
	sct = append(binary.BigEndian.AppendUint16(sct, uint16(len(sig))), sig...)
	list := append(binary.BigEndian.AppendUint16(nil, uint16(len(sct))), sct...)
	list = append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
	value, err := asn1.Marshal(list)
	must(err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// entry is one entry of the log of signatures.
type entry struct {
	kind string
	body []byte
	at   time.Time
}

func hashed(message, sig []byte, who Identity, at time.Time) entry {
	h := sha256.Sum256(message)
	body := fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":%q,"publicKey":{"content":%q}}}}`,
		h, base64Text(sig), base64Text(who.pem()))
	return entry{"hashedrekord", body, at}
}

func statementEntry(payload, sig []byte, who Identity, at time.Time) entry {
	h := sha256.Sum256(payload)
	body := fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"%x"},"payloadHash":{"algorithm":"sha256","value":"%x"},"signatures":[{"signature":%q,"verifier":%q}]}}`,
		h, h, base64Text(sig), base64Text(who.pem()))
	return entry{"dsse", body, at}
}

// promise signs the entry as Rekor's SignedEntryTimestamp does: over its canonical JSON.
func (a *Authority) promise(e entry) []byte {
	b, err := json.Marshal(map[string]any{
		"body": e.body, "integratedTime": e.at.Unix(), "logIndex": 0, "logID": hex.EncodeToString(logID(a.rekor)),
	})
	must(err)
	return SignBytes(a.rekor, b, false)
}

// proof is the entry with proof that it is in the log, in which it is alone.
func (a *Authority) proof(e entry) map[string]any {
	leaf := sha256.Sum256(append([]byte{0}, e.body...))
	text := fmt.Sprintf("%s - 1\n1\n%s\n", a.name, base64Text(leaf[:]))
	sig := append(logID(a.rekor)[:4:4], SignBytes(a.rekor, []byte(text), false)...)
	note := fmt.Sprintf("%s\n— %s %s\n", text, a.name, base64Text(sig))
	return map[string]any{
		"logIndex": "0", "logId": map[string]any{"keyId": logID(a.rekor)},
		"kindVersion": map[string]any{"kind": e.kind, "version": "0.0.1"}, "integratedTime": strconv.FormatInt(e.at.Unix(), 10),
		"inclusionPromise":  map[string]any{"signedEntryTimestamp": a.promise(e)},
		"inclusionProof":    map[string]any{"logIndex": "0", "rootHash": leaf[:], "treeSize": "1", "hashes": []any{}, "checkpoint": map[string]any{"envelope": note}},
		"canonicalizedBody": e.body,
	}
}

// SimplePart is a simple-signing document with a keyless signature, logged at the given time.
func (a *Authority) SimplePart(payload []byte, who Identity, at time.Time) Part {
	sig := SignBytes(who.Key, payload, false)
	e := hashed(payload, sig, who, at)
	bundle, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": a.promise(e),
		"Payload":              map[string]any{"body": e.body, "integratedTime": at.Unix(), "logIndex": 0, "logID": hex.EncodeToString(logID(a.rekor))},
	})
	must(err)
	return Part{Type: SimpleSigning, Body: payload, Annotations: map[string]string{
		"dev.cosignproject.cosign/signature": base64Text(sig),
		"dev.sigstore.cosign/certificate":    string(who.pem()),
		"dev.sigstore.cosign/chain":          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ca.Raw})),
		"dev.sigstore.cosign/bundle":         string(bundle),
	}}
}

// Bundle is a Sigstore bundle with a keyless signature of a statement.
func (a *Authority) Bundle(statement []byte, who Identity, at time.Time) []byte {
	sig := SignBytes(who.Key, preAuth(statement), false)
	material := map[string]any{
		"certificate": map[string]any{"rawBytes": who.Certificate},
		"tlogEntries": []any{a.proof(statementEntry(statement, sig, who, at))},
	}
	return bundleJSON(material, envelope(statement, sig), nil)
}

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(bytes.Clone(b)) }
