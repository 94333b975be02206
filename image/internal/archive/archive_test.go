package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kept counts how many of its like are not discarded.
type kept struct {
	*bytes.Reader
	open *int
}

func (k kept) Discard() { *k.open-- }

func keeper(open *int) func(io.Reader, int64) (Kept, error) {
	return func(r io.Reader, size int64) (Kept, error) {
		b, err := io.ReadAll(r)
		*open++
		return kept{bytes.NewReader(b), open}, err
	}
}

type entry struct {
	tar.Header
	data string
}

func archive(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.data))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func text(name, data string) entry { return entry{tar.Header{Typeflag: tar.TypeReg, Name: name}, data} }

func link(kind byte, name, to string) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Linkname: to}, ""}
}

func TestRead(t *testing.T) {
	large, open := strings.Repeat("x", maxSmall), 0
	a, err := Read(t.Context(), archive(t,
		text("./a/small", "first"), text("large", large), text("../../etc/passwd", "inside"),
		link(tar.TypeSymlink, "a/link", "../large"), link(tar.TypeLink, "b", "a/small"), link(tar.TypeSymlink, "out", "/etc/shadow"),
		link(tar.TypeSymlink, "loop", "loop"), text("a/small", "second"), text("large", large+"y"),
	), keeper(&open))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a/small": "second", "/a/./small": "second", "b": "second", "etc/passwd": "inside", "a/link": large + "y"} {
		if b, err := a.ReadFile(name, 2*maxSmall); err != nil || string(b) != want || !a.Has(name) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	for _, name := range []string{"out", "loop", "a", "", "absent"} {
		if _, _, err := a.Open(name); !errors.Is(err, fs.ErrNotExist) || a.Has(name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if k, ok := a.Kept("a/link"); !ok || k.Size() != int64(len(large)+1) {
		t.Error("the large file behind a link is not what was kept")
	}
	if _, ok := a.Kept("b"); ok {
		t.Error("a small file was kept")
	}
	if _, err := a.ReadFile("a/small", 5); err == nil {
		t.Error("a file beyond the limit was read")
	}
	if open != 1 {
		t.Errorf("%d large files are open, one name was given twice", open)
	}
	if a.Close(); open != 0 {
		t.Errorf("%d large files are left", open)
	}
}

func TestReadRefuses(t *testing.T) {
	whole := archive(t, text("large", strings.Repeat("x", maxSmall)), text("next", strings.Repeat("x", maxSmall))).Bytes()
	many := archive(t)
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"no tar":     {strings.NewReader(strings.Repeat("no", 1000)), "not a tar file"},
		"empty":      {many, "empty"},
		"cut":        {bytes.NewReader(whole[:len(whole)-maxSmall/2]), "cut off"},
		"cut header": {bytes.NewReader(whole[:maxSmall+512+100]), "cut off"},
		"long name":  {archive(t, text(strings.Repeat("n", maxName+1), "")), "too long"},
	} {
		open := 0
		a, err := Read(t.Context(), c.in, keeper(&open))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
		if open != 0 && name != "cut" { // what keep got no whole file of is its own to clear up
			t.Errorf("%s: %d large files are left", name, open)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := Read(ctx, bytes.NewReader(whole), nil); !errors.Is(err, why) {
		t.Errorf("ended: %v", err)
	}
}

// A folder may have been made by anybody: nothing outside of it is read, and nothing that would block.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for path, data := range map[string]string{secret: "secret", filepath.Join(dir, "index.json"): "{}"} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(secret, filepath.Join(dir, "out")), os.Symlink("index.json", filepath.Join(dir, "in")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, name := range []string{"index.json", "in", "../../index.json"} {
		if b, err := a.ReadFile(name, 10); err != nil || string(b) != "{}" || !a.Has(name) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"out", "fifo", "absent", ""} {
		if b, err := a.ReadFile(name, 10); err == nil || a.Has(name) {
			t.Errorf("%q: %q", name, b)
		}
	}
	if _, err := a.ReadFile("index.json", 1); err == nil {
		t.Error("a file beyond the limit was read")
	}
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent folder: %v", err)
	}
}
