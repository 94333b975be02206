// Package blob answers: which of the content-addressed bytes do we hold?
//
// It does not know what a blob means, where it came from or who still needs it.
//
// On disk, below the folder it is given:
//
//	sha256/HEX   a blob, read-only, verified: the name is the digest of the content
//	diffid/HEX   the digest of what layer blob HEX unpacks to, once that was seen
//	partial/HEX  a blob whose download is not done, with HEX.log, which says what
//	             of it is there; kept for the next try
//	tmp/         what is being written; emptied by Open
//
// A blob is visible only under its final name, which it gets after its size
// and digest were checked and its bytes are on the disk.
//
// Read first: Store, and for what comes from afar Download (download.go), its
// connections (fetch.go) and the file that it fills (partial.go).
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// ErrMismatch says that bytes are not what their digest or size promised.
var ErrMismatch = errors.New("content does not match its digest")

// MismatchError is ErrMismatch with what was promised and what came.
type MismatchError struct {
	Want, Got         string
	WantSize, GotSize int64
}

func (e *MismatchError) Error() string {
	if e.GotSize != e.WantSize {
		return fmt.Sprintf("%v: expected %s with %d bytes, got %d bytes", ErrMismatch, e.Want, e.WantSize, e.GotSize)
	}
	return fmt.Sprintf("%v: expected %s, got %s", ErrMismatch, e.Want, e.Got)
}

// Is makes it ErrMismatch.
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

// Store is a folder of blobs.
type Store struct {
	dir  string
	boot string // names the kernel's run, see partial

	splitFrom, partSize int64 // see defaultSplit

	mu     sync.Mutex
	active map[string]*Download // by digest
}

// Open makes the folders if need be and removes what an interrupted write left.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, boot: bootID(), splitFrom: defaultSplit, partSize: defaultPart, active: map[string]*Download{}}
	if err := disk.RemoveAll(s.path("tmp", "")); err != nil {
		return nil, err
	}
	for _, sub := range []string{"sha256", "diffid", "partial", "tmp"} {
		if err := os.MkdirAll(s.path(sub, ""), 0o700); err != nil {
			return nil, err
		}
	}
	return s, s.tidyPartials()
}

func (s *Store) path(sub, name string) string { return filepath.Join(s.dir, sub, name) }

// CheckDigest accepts "sha256:" and 64 lower-case hex digits and returns the hex.
func CheckDigest(digest string) (string, error) {
	h, ok := strings.CutPrefix(digest, "sha256:")
	if b, err := hex.DecodeString(h); !ok || err != nil || len(b) != sha256.Size || strings.ToLower(h) != h {
		return "", fmt.Errorf("digest %q: not a sha256 digest", digest)
	}
	return h, nil
}

// Size returns the size of a blob and whether it is there.
func (s *Store) Size(digest string) (int64, bool) {
	h, err := CheckDigest(digest)
	if err != nil {
		return 0, false
	}
	st, err := os.Stat(s.path("sha256", h))
	if err != nil {
		return 0, false
	}
	return st.Size(), true
}

// Open opens a blob. A missing one is fs.ErrNotExist.
func (s *Store) Open(digest string) (*os.File, error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return nil, err
	}
	return os.Open(s.path("sha256", h))
}

// maxRead bounds what Read takes into memory: a manifest can name anything that
// is there as its config.
const maxRead = 8 << 20

// Read returns a small blob and checks it again.
func (s *Store) Read(digest string) ([]byte, error) {
	f, err := s.Open(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRead {
		return nil, fmt.Errorf("blob %s: more than %d MiB, too large for what it is taken for", digest, maxRead>>20)
	}
	if got := Digest(b); got != digest {
		return nil, &MismatchError{Want: digest, Got: got}
	}
	return b, nil
}

// Digest is the digest of b.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Put stores a small blob whose bytes were checked, in the place of a damaged one
// too.
func (s *Store) Put(digest string, b []byte) error {
	if _, err := s.Read(digest); err == nil {
		return nil
	}
	w, err := s.Create(digest, int64(len(b)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Commit()
}

// Remove deletes a blob and returns its size.
func (s *Store) Remove(digest string) (int64, error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return 0, err
	}
	size, ok := s.Size(digest)
	if !ok {
		return 0, nil
	}
	err = os.Remove(s.path("diffid", h))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return size, errors.Join(err, os.Remove(s.path("sha256", h)))
}

// List returns the digests of all blobs.
func (s *Store) List() ([]string, error) { return s.digestsIn("sha256") }

func (s *Store) digestsIn(sub string) ([]string, error) {
	entries, err := os.ReadDir(s.path(sub, ""))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		all = append(all, "sha256:"+e.Name())
	}
	return all, nil
}

// DiffID returns what the layer blob was seen to unpack to, "" if that is not
// known.
func (s *Store) DiffID(digest string) string {
	h, err := CheckDigest(digest)
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(s.path("diffid", h))
	if err != nil {
		return ""
	}
	if _, err := CheckDigest(string(b)); err != nil {
		return "" // cut off by a crash
	}
	return string(b)
}

// SetDiffID remembers what a layer blob unpacks to. It need not survive a power
// cut: without it the blob is unpacked once more.
func (s *Store) SetDiffID(digest, diffID string) error {
	h, err := CheckDigest(digest)
	if err != nil {
		return err
	}
	tmp := s.path("tmp", h+".diffid")
	if err := os.WriteFile(tmp, []byte(diffID), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.path("diffid", h))
}

// Writer is a blob being written. One of Commit and Abort ends it.
type Writer struct {
	s      *Store
	f      *os.File
	digest string
	size   int64
	sum    hash.Hash
	n      int64
}

// Create begins a blob of the given digest and size.
func (s *Store) Create(digest string, size int64) (*Writer, error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.path("tmp", ""), h+"-*")
	if err != nil {
		return nil, err
	}
	return &Writer{s: s, f: f, digest: digest, size: size, sum: sha256.New()}, nil
}

// Verifier is a Writer that keeps nothing: it checks what is already there.
func (s *Store) Verifier(digest string, size int64) *Writer {
	return &Writer{s: s, digest: digest, size: size, sum: sha256.New()}
}

// Write adds bytes. More than the promised size is an error at once.
func (w *Writer) Write(p []byte) (int, error) {
	if w.n+int64(len(p)) > w.size {
		return 0, &MismatchError{Want: w.digest, WantSize: w.size, GotSize: w.n + int64(len(p))}
	}
	n, err := len(p), error(nil)
	if w.f != nil {
		n, err = w.f.Write(p)
	}
	w.sum.Write(p[:n])
	w.n += int64(n)
	return n, err
}

// Verify compares size and digest.
func (w *Writer) Verify() error {
	got := "sha256:" + hex.EncodeToString(w.sum.Sum(nil))
	if w.n != w.size || got != w.digest {
		return &MismatchError{Want: w.digest, Got: got, WantSize: w.size, GotSize: w.n}
	}
	return nil
}

// Commit verifies the blob, brings it to the disk and makes it visible.
func (w *Writer) Commit() error {
	if err := w.Verify(); err != nil || w.f == nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	return w.Publish()
}

// Publish makes a blob visible that was verified and is on the disk.
func (w *Writer) Publish() error {
	if w.f == nil {
		return nil
	}
	if err := w.f.Chmod(0o400); err != nil {
		return err
	}
	h, _ := CheckDigest(w.digest)
	if err := os.Rename(w.f.Name(), w.s.path("sha256", h)); err != nil {
		return err
	}
	f := w.f
	w.f = nil
	return errors.Join(f.Close(), disk.SyncDir(w.s.path("sha256", "")))
}

// Abort removes what was written, unless it was committed.
func (w *Writer) Abort() {
	if w.f == nil {
		return
	}
	w.f.Close()
	os.Remove(w.f.Name())
	w.f = nil
}
