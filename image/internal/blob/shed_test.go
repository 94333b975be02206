package blob

import (
	"slices"
	"testing"
)

func TestShed(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const plain = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c" // of "foo\n"
	if err := s.Put(plain, []byte("foo\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Shed(plain); n != 0 || err != nil {
		t.Error("a blob of which nothing is known went:", n, err)
	}
	if err := s.SetDiffID(plain, plain); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget(plain); err != nil || s.DiffID(plain) != plain {
		t.Error("forgot what a blob unpacks to that is there:", err)
	}
	if n, err := s.Shed(plain); n != 4 || err != nil {
		t.Error(n, err)
	}
	if _, there := s.Size(plain); there || s.DiffID(plain) != plain {
		t.Error("the blob is there, or what was known of it is not")
	}
	if known, err := s.Known(); err != nil || !slices.Equal(known, []string{plain}) {
		t.Error(known, err)
	}
	for range 2 {
		if err := s.Forget(plain); err != nil || s.DiffID(plain) != "" {
			t.Error(err)
		}
	}
	if n, err := s.Shed("sha256:zz"); err == nil {
		t.Error(n)
	}
}
