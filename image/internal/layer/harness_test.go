package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

type entry = imagetest.Entry

var forms = []Form{Folder, EROFS}

// howMany is how large the long tests are: all of it, or with -short or the race detector
// some of it. scripts/test has a line of its own for all.
func howMany(all, some int) int {
	if testing.Short() || underRace {
		return some
	}
	return all
}

// someStacks is how many stacks are enough to see races.
const someStacks = 30

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s := openStore(t, t.TempDir())
	t.Cleanup(s.Close)
	return s
}

var serial atomic.Uint64

func newKey() string { return fmt.Sprintf("%064x", serial.Add(1)) }

// add makes a layer above the ones with the given keys, the topmost first, in the way
// a pull does: alone, if it can be, and else adopted or unpacked again.
func (s *Store) add(form Form, archive []byte, below ...string) (key string, res Result, err error) {
	return s.addIn(form, archive, nil, below...)
}

// addIn is add with a bound of its own for large files.
func (s *Store) addIn(form Form, archive []byte, room func(int64) error, below ...string) (key string, res Result, err error) {
	var lower *Lower
	for range 3 {
		st, err := s.Stage(form)
		if err != nil {
			return "", res, err
		}
		res, err = st.Unpack(context.Background(), bytes.NewReader(archive), Options{Lower: lower, Room: room})
		if err == nil && lower == nil && (res.Dependent || res.NeedsLower) {
			if lower, err = s.Lower(below...); err != nil {
				return "", res, errors.Join(err, st.Discard())
			}
			defer lower.Close()
			if !res.NeedsLower {
				err = st.Adopt(lower)
			}
		}
		if res.NeedsLower || errors.Is(err, ErrNeedsLower) {
			if err := st.Discard(); err != nil {
				return "", res, err
			}
			form = st.RetryForm()
			continue
		}
		if err != nil {
			return "", res, errors.Join(err, st.Discard())
		}
		key = newKey()
		i := Info{DiffID: res.DiffID, Dependent: res.Dependent, Size: res.Size, Entries: res.Entries, Root: res.Root, OpaqueRoot: res.OpaqueRoot}
		return key, res, st.Commit(key, i, func() error { return nil })
	}
	return "", res, errors.New("a layer that always needs more")
}

// mustAdd adds entries.
func (s *Store) mustAdd(t testing.TB, form Form, below []string, entries ...entry) string {
	t.Helper()
	key, _, err := s.add(form, imagetest.Archive(entries...), below...)
	if err != nil {
		t.Fatal(err)
	}
	s.mustCheck(t, key)
	return key
}

// mustCheck compares a layer with its manifest.
func (s *Store) mustCheck(t testing.TB, key string) {
	t.Helper()
	if _, err := s.Check(context.Background(), key, func(path, what string) {
		t.Errorf("check: %q %s", path, what)
	}); err != nil {
		t.Error(err)
	}
}

func (s *Store) mustOpen(t testing.TB, key string) files {
	t.Helper()
	i, ok := s.Get(key)
	if !ok {
		t.Fatalf("no layer %s", key)
	}
	f, err := openFiles(filepath.Join(s.dir, key), i.Form)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// walk calls f for all that stands in a layer.
func walk(t testing.TB, f files, p string, do func(p string, in inode)) {
	t.Helper()
	in, err := f.lookup(p)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	defer in.close()
	do(p, in)
	if in.stat().Mode&unix.S_IFMT != unix.S_IFDIR {
		return
	}
	names, err := in.names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		walk(t, f, join(p, name), do)
	}
}

// describe lists a layer, one line a name: type, mode, content or target.
func describe(t testing.TB, f files) string {
	t.Helper()
	var lines []string
	walk(t, f, "", func(p string, in inode) {
		if p == "" {
			return
		}
		line := p
		switch in.stat().Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			attrs, err := in.xattrs()
			if err != nil {
				t.Fatal(err)
			}
			line += "/"
			if attrs[opaquePrivileged] == "y" || attrs[opaqueUnprivileged] == "y" {
				line += " opaque"
			}
		case unix.S_IFLNK:
			target, err := in.readlink()
			if err != nil {
				t.Fatal(err)
			}
			line += " -> " + target
		case unix.S_IFCHR:
			if isWhiteout(in) {
				line += " gone"
			} else {
				line += fmt.Sprintf(" c%d:%d", unix.Major(in.stat().Rdev), unix.Minor(in.stat().Rdev))
			}
		case unix.S_IFIFO:
			line += " fifo"
		case unix.S_IFREG:
			line += " " + content(t, in)
		}
		lines = append(lines, line)
	})
	return strings.Join(lines, "\n")
}

func content(t testing.TB, in inode) string {
	t.Helper()
	r, err := in.open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// at returns one file of a layer.
func at(t testing.TB, f files, p string) inode {
	t.Helper()
	in, err := f.lookup(p)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	t.Cleanup(in.close)
	return in
}

func absent(t testing.TB, f files, p string) {
	t.Helper()
	in, err := f.lookup(p)
	if err == nil {
		in.close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", p, err)
	}
}

// eachForm runs a test for both forms.
func eachForm(t *testing.T, test func(t *testing.T, form Form)) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) { test(t, form) })
	}
}

// unpackOnly unpacks alone and throws away what came out.
func unpackOnly(t testing.TB, form Form, o Options, archive []byte) (Result, error) {
	t.Helper()
	st, err := newStore(t).Stage(form)
	if err != nil {
		t.Fatal(err)
	}
	res, err := st.Unpack(context.Background(), bytes.NewReader(archive), o)
	if derr := st.Discard(); derr != nil {
		t.Error(derr)
	}
	return res, err
}

// block writes one raw entry of an archive, which archive/tar may not be able to.
func block(buf *bytes.Buffer, name string, typ byte, content string, change ...func(h []byte)) {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(content), 0))
	copy(h[148:], "        ")
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	for _, f := range change {
		f(h)
	}
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	buf.Write(h)
	buf.WriteString(content)
	buf.Write(make([]byte, (512-len(content)%512)%512))
}

// pax writes the records of the next entry.
func pax(buf *bytes.Buffer, records ...string) {
	var all strings.Builder
	for i := 0; i < len(records); i += 2 {
		rec := records[i] + "=" + records[i+1] + "\n"
		n := len(rec) + 2
		for n != len(fmt.Sprint(n))+1+len(rec) {
			n++
		}
		fmt.Fprintf(&all, "%d %s", n, rec)
	}
	block(buf, "pax", tar.TypeXHeader, all.String())
}
