// Package cosign answers: which signatures does a registry hold for an image, and
// does a given key stand behind one of them?
//
// It reads the forms in which cosign and its kin store signatures: the tag
// "sha256-HEX.sig" (cosign's SIGNATURE_SPEC.md), and OCI 1.1 referrers of cosign's
// older type or with a Sigstore bundle. It does not know policies, and does not
// judge certificates: it hands out a Sigstore bundle that package keyless has
// judged.
//
// Read first: Find, Signature and Key.
//
// # Why keys are verified with Go's own cryptography
//
// Sigstore's packages bring protobuf, gRPC and go-openapi along. Linked into
// wherry, sigstore-go cost 9.7 MB (16.2 to 25.9) and 5 to 7 ms of package
// initialisation at every start of every command, govalidator's regular
// expressions alone 3 ms; sigstore/pkg/signature with its protobuf specs still 2.3 MB and
// 1 ms. That is more than the millisecond a command line can spare. So certificates
// are judged by sigstore-go in a program of its own (package keyless), and a
// signature by a key, which needs no more than a digest and crypto/ecdsa, ed25519
// or rsa, is verified here.
//
// # Invariants
//
//   - What Find returns is untrusted until Check and then Key.Verify (or a judge
//     of the bundle) agreed: Check says what the signed bytes mean, not
//     who signed them.
//   - A signature counts only for the digest that stands in the signed bytes. Where it
//     was found, and what annotations say, is no evidence.
//   - Numbers and sizes are bounded: a repository that anybody may write to must not
//     be able to keep a pull busy.
package cosign
