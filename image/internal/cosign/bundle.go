package cosign

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// bundle is the part of a Sigstore bundle that a key needs; the rest is read by
// who judges certificates. Protobuf's JSON writes bytes in base64, which
// encoding/json reads.
type bundle struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		Certificate json.RawMessage `json:"certificate"`
		Chain       json.RawMessage `json:"x509CertificateChain"`
	} `json:"verificationMaterial"`
	Message *struct {
		Digest struct {
			Algorithm string `json:"algorithm"`
			Digest    []byte `json:"digest"`
		} `json:"messageDigest"`
		Signature []byte `json:"signature"`
	} `json:"messageSignature"`
	Envelope *struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

// maxEnvelope is how many signatures one envelope may have.
const maxEnvelope = 8

// readBundle fills s from a Sigstore bundle. manifest is the subject's own
// bytes, which is what a message signature is over; nil: not known yet.
func (s *Signature) readBundle(b, manifest []byte) error {
	var doc bundle
	if err := json.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("its bundle is damaged: %w", err)
	}
	if !strings.HasPrefix(doc.MediaType, bundleType) {
		return fmt.Errorf("its bundle is of type %.80q", doc.MediaType)
	}
	if doc.Material.Certificate != nil || doc.Material.Chain != nil {
		s.Bundle = b
	}
	switch {
	case doc.Envelope != nil && doc.Message == nil:
		if doc.Envelope.PayloadType != inTotoType {
			return fmt.Errorf("its envelope holds %.80q", doc.Envelope.PayloadType)
		}
		if len(doc.Envelope.Signatures) > maxEnvelope {
			return fmt.Errorf("its envelope has %d signatures", len(doc.Envelope.Signatures))
		}
		s.kind, s.statement = statement, doc.Envelope.Payload
		s.signed = preAuth(doc.Envelope.PayloadType, doc.Envelope.Payload)
		for _, e := range doc.Envelope.Signatures {
			s.sigs = append(s.sigs, e.Sig)
		}
	case doc.Message != nil && doc.Envelope == nil:
		s.kind, s.signed, s.sigs = message, manifest, [][]byte{doc.Message.Signature}
		s.Artifact = manifest
		if sum := sha256.Sum256(manifest); manifest != nil && doc.Message.Digest.Algorithm == "SHA2_256" && !bytes.Equal(sum[:], doc.Message.Digest.Digest) {
			return errors.New("it is for another digest")
		}
	default:
		return errors.New("its bundle has neither one message signature nor one envelope")
	}
	return nil
}

// preAuth is the pre-authentication encoding of DSSE: what the signature of an
// envelope is over, so that no type can be read as another.
func preAuth(payloadType string, payload []byte) []byte {
	b := fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append(b, payload...)
}

// Annotations of a layer with a simple-signing document, as cosign's
// SIGNATURE_SPEC.md has them.
const (
	noteSignature   = "dev.cosignproject.cosign/signature"
	noteCertificate = "dev.sigstore.cosign/certificate"
	noteRekor       = "dev.sigstore.cosign/bundle"
	noteTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"
)

// bundleOf writes what the annotations say as a Sigstore bundle of version 0.1,
// the one that knows signed entry timestamps. The chain is left out: it counts
// only if the trusted root has it.
func bundleOf(notes map[string]string, payload, sig []byte, leaf []byte) ([]byte, error) {
	sum := sha256.Sum256(payload)
	entries, err := logEntries(notes[noteRekor])
	if err != nil {
		return nil, err
	}
	material := map[string]any{
		"x509CertificateChain": map[string]any{"certificates": []any{map[string]any{"rawBytes": leaf}}},
		"tlogEntries":          entries,
	}
	if text := notes[noteTimestamp]; text != "" {
		var stamp struct {
			Signed []byte `json:"SignedRFC3161Timestamp"`
		}
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return nil, fmt.Errorf("its timestamp is damaged: %w", err)
		}
		material["timestampVerificationData"] = map[string]any{
			"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamp.Signed}},
		}
	}
	return json.Marshal(map[string]any{
		"mediaType":            bundleType + "+json;version=0.1",
		"verificationMaterial": material,
		"messageSignature": map[string]any{
			"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
			"signature":     sig,
		},
	})
}

// logEntries translates the proof of the transparency log's entry.
func logEntries(text string) ([]any, error) {
	if text == "" {
		return []any{}, nil
	}
	var proof struct {
		Timestamp []byte `json:"SignedEntryTimestamp"`
		Payload   struct {
			Body  []byte `json:"body"`
			Time  int64  `json:"integratedTime"`
			Index int64  `json:"logIndex"`
			Log   string `json:"logID"`
		} `json:"Payload"`
	}
	var body struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	err := json.Unmarshal([]byte(text), &proof)
	if err == nil {
		err = json.Unmarshal(proof.Payload.Body, &body)
	}
	id, hexErr := hex.DecodeString(proof.Payload.Log)
	if err := errors.Join(err, hexErr); err != nil {
		return nil, fmt.Errorf("its log entry is damaged: %w", err)
	}
	return []any{map[string]any{
		"logIndex":          strconv.FormatInt(proof.Payload.Index, 10),
		"logId":             map[string]any{"keyId": id},
		"kindVersion":       map[string]any{"kind": body.Kind, "version": body.Version},
		"integratedTime":    strconv.FormatInt(proof.Payload.Time, 10),
		"inclusionPromise":  map[string]any{"signedEntryTimestamp": proof.Timestamp},
		"canonicalizedBody": proof.Payload.Body,
	}}, nil
}
