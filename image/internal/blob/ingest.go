package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"os"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// Ingest is a blob being written whose digest nobody knows before its end. One of
// Commit and Abort ends it.
type Ingest struct {
	s   *Store
	f   *os.File
	sum hash.Hash
	n   int64
}

// Ingest begins a blob.
func (s *Store) Ingest() (*Ingest, error) {
	f, err := os.CreateTemp(s.path("tmp", ""), "ingest-*")
	if err != nil {
		return nil, err
	}
	return &Ingest{s: s, f: f, sum: sha256.New()}, nil
}

// Write implements io.Writer.
func (i *Ingest) Write(p []byte) (int, error) {
	n, err := i.f.Write(p)
	i.sum.Write(p[:n])
	i.n += int64(n)
	return n, err
}

// Size is what was written so far.
func (i *Ingest) Size() int64 { return i.n }

// Digest is the digest of what was written so far.
func (i *Ingest) Digest() string { return "sha256:" + hex.EncodeToString(i.sum.Sum(nil)) }

// File is the file being written, to read from.
func (i *Ingest) File() *os.File { return i.f }

// Commit brings the blob to the disk and makes it visible under its digest. A
// blob that is there already stays.
func (i *Ingest) Commit() error {
	if _, ok := i.s.Size(i.Digest()); ok {
		i.Abort()
		return nil
	}
	if err := errors.Join(i.f.Chmod(0o400), i.f.Sync()); err != nil {
		return err
	}
	h, err := CheckDigest(i.Digest())
	if err != nil {
		return err
	}
	if err := os.Rename(i.f.Name(), i.s.path("sha256", h)); err != nil {
		return err
	}
	f := i.f
	i.f = nil
	return errors.Join(f.Close(), disk.SyncDir(i.s.path("sha256", "")))
}

// Abort removes what was written, unless it was committed.
func (i *Ingest) Abort() {
	if i.f == nil {
		return
	}
	i.f.Close()
	os.Remove(i.f.Name())
	i.f = nil
}
