package blob

import (
	"errors"
	"io/fs"
	"os"
)

// Shed deletes a layer blob, but not what is known of it: a layer that was
// unpacked from it goes on being usable, and the blob need not be fetched again
// for that. It returns the blob's size.
func (s *Store) Shed(digest string) (int64, error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return 0, err
	}
	size, ok := s.Size(digest)
	if !ok || s.DiffID(digest) == "" {
		return 0, nil
	}
	return size, os.Remove(s.path("sha256", h))
}

// Known lists the blobs of which it is known what they unpack to, whether they
// are there or not.
func (s *Store) Known() ([]string, error) { return s.digestsIn("diffid") }

// Forget removes what is known of a blob that is not there.
func (s *Store) Forget(digest string) error {
	h, err := CheckDigest(digest)
	if err != nil {
		return err
	}
	if _, ok := s.Size(digest); ok {
		return nil
	}
	if err := os.Remove(s.path("diffid", h)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
