package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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

// flaky serves body over connections that break after a few bytes.
type flaky struct {
	body    string
	pieces  []int // how much each connection gives; -1: fails to open; 0: all
	ranges  bool
	offsets []int64
}

func (f *flaky) open(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
	f.offsets = append(f.offsets, offset)
	n := 0
	if len(f.pieces) > 0 {
		n, f.pieces = f.pieces[0], f.pieces[1:]
	}
	if n < 0 {
		return nil, 0, errors.New("refused")
	}
	if !f.ranges {
		offset = 0
	}
	rest := f.body[offset:]
	if n > 0 && n < len(rest) {
		return io.NopCloser(io.MultiReader(strings.NewReader(rest[:n]), errReader{})), offset, nil
	}
	return io.NopCloser(strings.NewReader(rest)), offset, nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func upTo(n int) func(context.Context, int, error) error {
	return func(_ context.Context, i int, err error) error {
		if i >= n {
			return err
		}
		return nil
	}
}

func TestSourceResumes(t *testing.T) {
	body := strings.Repeat("0123456789", 100)
	for name, f := range map[string]*flaky{
		"whole":        {body: body},
		"ranges":       {body: body, pieces: []int{100, 300, -1, 50}, ranges: true},
		"no ranges":    {body: body, pieces: []int{100, 300, -1, 950}},
		"early end":    {body: body, pieces: []int{-1, -1, 10}, ranges: true},
		"cut in a row": {body: body, pieces: []int{-1, -1, -1}},
	} {
		src := &Source{Open: f.open, Retry: upTo(5), Stall: time.Minute, Size: int64(len(body))}
		r := src.Reader(context.Background())
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != body {
			t.Errorf("%s: %d bytes, %v, offsets %v", name, len(got), err, f.offsets)
		}
	}
}

func TestSourceGivesUp(t *testing.T) {
	f := &flaky{body: "x", pieces: []int{-1, -1, -1, -1}}
	src := &Source{Open: f.open, Retry: upTo(3), Stall: time.Minute, Size: 1}
	if _, err := io.ReadAll(src.Reader(context.Background())); err == nil || err.Error() != "refused" || len(f.offsets) != 3 {
		t.Error(err, f.offsets)
	}
}

func TestSourceShortBodyIsABreak(t *testing.T) {
	f := &flaky{body: "abc"}
	src := &Source{Open: f.open, Retry: upTo(2), Stall: time.Minute, Size: 10}
	if _, err := io.ReadAll(src.Reader(context.Background())); err == nil || !strings.Contains(err.Error(), "after 3 of 10 bytes") {
		t.Error(err)
	}
}

// A connection that says nothing for the stall time is broken.
func TestSourceStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		src := &Source{Size: 3, Stall: time.Minute, Retry: upTo(3), Open: func(ctx context.Context, off int64) (io.ReadCloser, int64, error) {
			if first {
				first = false
				return io.NopCloser(silent{ctx}), off, nil
			}
			return io.NopCloser(strings.NewReader("abc"[off:])), off, nil
		}}
		start := time.Now()
		got, err := io.ReadAll(src.Reader(context.Background()))
		if string(got) != "abc" || err != nil || time.Since(start) != time.Minute {
			t.Error(string(got), err, time.Since(start))
		}
	})
}

type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
