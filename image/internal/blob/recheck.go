package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
)

// Check reads a blob and compares it with its digest. read, which may be nil, is
// told of the bytes as they come. A missing blob is fs.ErrNotExist, a damaged one
// ErrMismatch or what the file system says.
func (s *Store) Check(ctx context.Context, digest string, read func(n int64)) (int64, error) {
	f, err := s.Open(digest)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := pieces.Get().(*piece)
	defer pieces.Put(buf)
	var n int64
	for sum := sha256.New(); ; {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		k, err := f.Read(buf[:])
		n += int64(k)
		_, _ = sum.Write(buf[:k])
		if read != nil {
			read(int64(k))
		}
		if errors.Is(err, io.EOF) {
			if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != digest {
				return n, &MismatchError{Want: digest, Got: got, WantSize: n, GotSize: n}
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Path is where a blob stands, for the calls that take no more than that; "" if the
// digest is none.
func (s *Store) Path(digest string) string {
	h, err := CheckDigest(digest)
	if err != nil {
		return ""
	}
	return s.path("sha256", h)
}

// SetAside takes a damaged blob out of the way of a good one. restore brings it
// back if none has come, and is rid of it otherwise.
func (s *Store) SetAside(digest string) (restore func() error, err error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return nil, err
	}
	from, to := s.path("sha256", h), s.path("tmp", h+".damaged")
	if err := os.Rename(from, to); err != nil {
		return nil, err
	}
	return func() error {
		if _, ok := s.Size(digest); ok {
			return removeIfThere(to)
		}
		return os.Rename(to, from)
	}, nil
}

// Drop deletes a damaged blob, but not what is known of it.
func (s *Store) Drop(digest string) error {
	h, err := CheckDigest(digest)
	if err != nil {
		return err
	}
	return removeIfThere(s.path("sha256", h))
}
