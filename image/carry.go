package image

import (
	"context"
	"errors"
	"io"
)

// Format is the form of an image outside of the store.
type Format string

// What Save writes: a docker archive (`docker save`), an OCI layout in one tar file,
// or an OCI layout as a folder. Load tells them apart by itself.
const (
	DockerArchive Format = "docker-archive"
	OCIArchive    Format = "oci-archive"
	OCIFolder     Format = "oci"
)

// LoadOptions configure one Load.
type LoadOptions struct {
	// Name is for images that the archive has no name for; with several of
	// them it is an error.
	Name     string
	Platform Platform       // of an index the image for it is taken; zero: the store's
	Progress func(Progress) // as in PullOptions
}

// Load brings the images of a docker archive or an OCI archive, possibly
// compressed, into the store. It reads r once and to its end.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Image, error) {
	return nil, errors.ErrUnsupported
}

// LoadFolder is Load for the folder of an OCI layout.
func (s *Store) LoadFolder(ctx context.Context, dir string, o LoadOptions) ([]Image, error) {
	return nil, errors.ErrUnsupported
}
