package blob

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBlobIsInvisibleUntilVerified(t *testing.T) {
	s, body := open(t), []byte("hello")
	digest := Digest(body)
	w, err := s.Create(digest, 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Size(digest); ok {
		t.Error("visible before the commit")
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	w.Abort() // does nothing any more
	if b, err := s.Read(digest); err != nil || !bytes.Equal(b, body) {
		t.Error(b, err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0] != digest {
		t.Error(all, err)
	}
	if n, err := s.Remove(digest); n != 5 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.Remove(digest); n != 0 || err != nil {
		t.Error("removing what is not there", n, err)
	}
}

func TestWrongBlobs(t *testing.T) {
	s := open(t)
	digest := Digest([]byte("hello"))
	for _, body := range []string{"hellx", "hell", "hello!"} {
		w, err := s.Create(digest, 5)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write([]byte(body))
		if err == nil {
			err = w.Commit()
		}
		if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "expected "+digest) {
			t.Errorf("%s: %v", body, err)
		}
		w.Abort()
	}
	if left, _ := os.ReadDir(s.path("tmp", "")); len(left) != 0 {
		t.Error(left)
	}
	for _, bad := range []string{"", "sha256:", "md5:x", "sha256:" + strings.Repeat("A", 64), "sha256:../../" + strings.Repeat("a", 58)} {
		if _, err := s.Create(bad, 1); err == nil {
			t.Errorf("%q accepted", bad)
		}
		if _, err := s.Open(bad); err == nil {
			t.Errorf("%q opened", bad)
		}
	}
}

func TestDiffIDSurvivesACrash(t *testing.T) {
	s := open(t)
	a, b := Digest([]byte("a")), Digest([]byte("b"))
	if err := s.SetDiffID(a, b); err != nil || s.DiffID(a) != b {
		t.Error(err)
	}
	h, _ := CheckDigest(a)
	if err := os.WriteFile(s.path("diffid", h), []byte(b[:20]), 0o600); err != nil || s.DiffID(a) != "" {
		t.Error("half a digest was believed", err)
	}
}

func TestOpenRemovesTemporaries(t *testing.T) {
	s := open(t)
	if _, err := s.Create(Digest(nil), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "tmp", "*")); len(left) != 0 {
		t.Error(left)
	}
}

func upTo(n int) func(context.Context, int, error) error {
	return func(_ context.Context, i int, err error) error {
		if i >= n {
			return err
		}
		return nil
	}
}

// TestReadIsBounded: what is read into memory is small, whatever names it.
func TestReadIsBounded(t *testing.T) {
	s, large := open(t), make([]byte, maxRead+1)
	for _, b := range [][]byte{large, large[1:]} {
		if err := s.Put(Digest(b), b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Read(Digest(large)); err == nil || !strings.Contains(err.Error(), "more than 8 MiB") {
		t.Error(err)
	}
	if _, err := s.Read(Digest(large[1:])); err != nil {
		t.Error(err)
	}
}
