package image

import (
	"context"
	"errors"
)

// VerifyOptions configure one Verify.
type VerifyOptions struct {
	Repair   bool
	Progress func(Progress) // Step "verify" or "repair", bytes of layers
}

// Verification is what Verify found.
type Verification struct {
	Image  string   `json:"image"` // first name, or the digest
	Digest string   `json:"digest"`
	Layers int      `json:"layers"`
	Files  int      `json:"files"`  // that were compared
	Bytes  int64    `json:"bytes"`  // that were read
	Damage []Damage `json:"damage"` // empty: all is as it was unpacked
}

// Damage is one thing that is not as it was stored.
type Damage struct {
	Layer    string `json:"layer,omitempty"` // diff ID
	Blob     string `json:"blob,omitempty"`  // digest
	Path     string `json:"path,omitempty"`  // in the layer
	What     string `json:"what"`            // "content differs", "missing", ...
	Repaired bool   `json:"repaired"`
}

// Verify compares every file of the image's layers with the manifest that was
// stored when the layer was unpacked, and its blobs with their digests; ref "" means all
// images. With Repair a damaged layer is made again from its blob, a damaged blob
// is fetched again from the registry. Containers that run on the layer keep
// the files they have open. Damage that is left makes the error ErrCorrupt.
func (s *Store) Verify(ctx context.Context, ref string, o VerifyOptions) ([]Verification, error) {
	return nil, errors.ErrUnsupported
}
