package image

import "errors"

// ErrUntrusted says that the trust policy refuses an image. Nothing of it was
// unpacked.
var ErrUntrusted = errors.New("image is not trusted")

// TrustRule is one rule of a registry's policy.
type TrustRule struct {
	// Repository is a pattern as path.Match has it, of the repository without
	// the host ("library/*"); "**" at its end stands for one or more elements;
	// empty: all.
	Repository string
	Require    Requirement

	// For Signed: one of the signers must have signed the image's manifest, or
	// the index that it was chosen from.
	Signers []Signer
}

// Requirement is what a rule demands of an image.
type Requirement string

// What a rule may demand: nothing, that the image is named by digest, that it is
// signed, or that it never comes in.
const (
	Accept  Requirement = "accept"
	Digests Requirement = "digest"
	Signed  Requirement = "signed"
	Reject  Requirement = "reject"
)

// Signer is who must have signed: the holder of a key, or of a certificate for
// an identity.
type Signer struct {
	Key string // path of a PEM public key

	// For keyless signatures: who the certificate names, and who vouched for
	// it. Exactly equal, or by a regular expression for the whole; both are needed.
	Identity, IdentityRegexp string
	Issuer, IssuerRegexp     string
	TrustedRoot              string // path of a Sigstore trusted_root.json; none is fetched
}
