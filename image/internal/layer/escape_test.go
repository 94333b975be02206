package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

// cage is a store beside something that must stay as it is.
type cage struct {
	top, secret string
	s           *Store
}

func newCage(t testing.TB) cage {
	top := fastDir(t)
	c := cage{top: top, secret: filepath.Join(top, "outside", "secret")}
	for _, err := range []error{os.Mkdir(filepath.Dir(c.secret), 0o755), os.WriteFile(c.secret, []byte("secret"), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.s = openStore(t, filepath.Join(top, "store"))
	t.Cleanup(c.s.Close)
	return c
}

// check fails if anything but the folder was touched, or if the secret came in.
func (c cage) check(t testing.TB) {
	t.Helper()
	st, err := os.Lstat(c.secret)
	if err != nil || st.Mode() != 0o600 || st.Size() != 6 {
		t.Fatalf("the file outside has changed: %v %v", st, err)
	}
	if b, _ := os.ReadFile(c.secret); string(b) != "secret" {
		t.Fatalf("the file outside was written: %q", b)
	}
	for dir, want := range map[string]string{c.top: "outside store", filepath.Dir(c.secret): "secret"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if got := strings.Join(names, " "); got != want {
			t.Fatalf("%s has %q, want %q", dir, got, want)
		}
	}
	_ = filepath.WalkDir(filepath.Join(c.top, "store"), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if a, aerr := os.Stat(p); aerr == nil && os.SameFile(a, st) {
				t.Fatalf("%s is a link to the file outside", p)
			}
		}
		return nil
	})
}

func TestNothingEscapes(t *testing.T) {
	for name, entries := range map[string]func(c cage) []entry{
		"dotdot":      func(cage) []entry { return []entry{{Name: "../outside/secret", Body: "gotcha"}} },
		"deep dotdot": func(cage) []entry { return []entry{{Name: "a/b/../../../outside/new", Body: "gotcha"}} },
		"absolute":    func(c cage) []entry { return []entry{{Name: c.secret, Body: "gotcha"}} },
		"symlink": func(cage) []entry {
			return []entry{{Name: "l", Link: "../outside"}, {Name: "l/secret", Body: "gotcha"}}
		},
		"abs symlink": func(c cage) []entry {
			return []entry{{Name: "l", Link: filepath.Dir(c.secret)}, {Name: "l/secret", Body: "gotcha"}}
		},
		"file symlink": func(c cage) []entry {
			return []entry{{Name: "l", Link: c.secret}, {Name: "l", Body: "gotcha", Mode: 0o777}}
		},
		"symlink, folder": func(cage) []entry { return []entry{{Name: "l", Link: "../outside"}, {Name: "l/", Mode: 0o777}} },
		"symlink, whiteout": func(cage) []entry {
			return []entry{{Name: "l", Link: "../outside"}, {Name: "l/.wh.secret"}, {Name: "l/.wh..wh..opq"}}
		},
		"chain": func(cage) []entry {
			return []entry{{Name: "a", Link: ".."}, {Name: "b", Link: "a/.."}, {Name: "b/outside/secret", Body: "gotcha"}}
		},
		"swap": func(cage) []entry {
			return []entry{{Name: "d/"}, {Name: "d/f"}, {Name: "d", Link: "../outside"}, {Name: "d/secret", Body: "gotcha"}}
		},
		"hard link": func(cage) []entry { return []entry{{Name: "h", Link: "../outside/secret", Type: tar.TypeLink}} },
		"hard link, absolute": func(c cage) []entry {
			return []entry{{Name: "h", Link: c.secret, Type: tar.TypeLink}, {Name: "h", Body: "gotcha"}}
		},
		"hard link through symlink": func(cage) []entry {
			return []entry{{Name: "l", Link: "../outside"}, {Name: "h", Link: "l/secret", Type: tar.TypeLink}, {Name: "h", Body: "gotcha"}}
		},
		"hard link to symlink, write": func(c cage) []entry {
			return []entry{{Name: "l", Link: c.secret}, {Name: "h", Link: "l", Type: tar.TypeLink}, {Name: "h", Body: "gotcha", Mode: 0o777}}
		},
		"fifo over symlink": func(c cage) []entry {
			return []entry{{Name: "l", Link: c.secret}, {Name: "l", Type: tar.TypeFifo, Mode: 0o777}}
		},
		"root whiteout": func(cage) []entry { return []entry{{Name: ".wh..."}, {Name: "a/.wh...."}} },
		"proc":          func(cage) []entry { return []entry{{Name: "l", Link: "/proc/self/cwd"}, {Name: "l/x", Body: "gotcha"}} },
	} {
		t.Run(name, func(t *testing.T) {
			eachForm(t, func(t *testing.T, form Form) {
				c := newCage(t)
				_, _, err := c.s.add(form, imagetest.Archive(entries(c)...))
				t.Log(err)
				c.check(t)
			})
		})
	}
}

// A lower layer's symlinks lead nowhere else either.
func TestNothingEscapesThroughLower(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		c := newCage(t)
		lower := c.s.mustAdd(t, form, nil, entry{Name: "l", Link: "../../../../../../../.." + filepath.Dir(c.secret)}, entry{Name: "up", Link: "../outside"},
			entry{Name: "outside/"}, entry{Name: "outside/secret", Body: "mine"})
		_, _, err := c.s.add(form, imagetest.Archive(
			entry{Name: "l/secret", Body: "gotcha"}, entry{Name: "up/secret", Body: "gotcha"}, entry{Name: "up/.wh.secret"},
			entry{Name: "h", Link: "outside/secret", Type: tar.TypeLink},
		), lower)
		if err != nil {
			t.Fatal(err)
		}
		c.check(t)
	})
}

// FuzzUnpack builds an archive of lines "TYPE NAME|LINK" and looks whether
// anything outside the store changes, and whether the forms agree. Types: f file,
// b large file, d folder, s symlink, h hard link, p fifo, c device 0:0.
func FuzzUnpack(f *testing.F) {
	for _, seed := range []string{
		"d a\nf a/f\ns a/l|f\nh a/h|a/f\n",
		"s l|../outside\nf l/secret\nf l\nd l\nf l/x\n",
		"s a|..\ns b|a/..\nf b/outside/secret\nh h|b/outside/secret\nf h\n",
		"d d\nf d/f\ns d|../outside\nf d/secret\nf d/.wh.secret\n",
		"f .wh.x\nf x/y\nf x/.wh..wh..opq\nf x\nd x\n",
		"s l|/../../outside/secret\nh m|l\nb m\np l\n",
		"f ../x\nf a/../../x\nh y|../outside/secret\nf /abs\nf ./.\n",
		"s a|b\ns b|a\nf a/x\n",
		"d a\nd a/b\nf a/b/c\nf a\nd a\nh z|a/b/c\n",
		"h h|a/f\nf a/.wh.f\nf l/x\nf l\nc a/g\n",
		"f l/x\nh y|l/f\nf a/.wh..wh..opq\nd l\n",
		"f .wh..\nf .wh...\nf .wh.\nf .wh..wh.\nf d/.wh..wh.x/y\n",
	} {
		f.Add(seed)
	}
	types := map[byte]byte{'f': tar.TypeReg, 'b': tar.TypeReg, 'd': tar.TypeDir, 's': tar.TypeSymlink, 'h': tar.TypeLink, 'p': tar.TypeFifo, 'c': tar.TypeChar}
	f.Fuzz(func(t *testing.T, script string) {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for line := range strings.Lines(script) {
			line = strings.TrimSuffix(line, "\n")
			if len(line) < 3 || types[line[0]] == 0 || buf.Len() > 1<<20 {
				continue
			}
			name, link, _ := strings.Cut(line[2:], "|")
			h := &tar.Header{Name: name, Linkname: link, Typeflag: types[line[0]], Mode: 0o777}
			switch line[0] {
			case 'f':
				h.Size = 6
			case 'b':
				h.Size = smallFile + 1
			}
			if tw.WriteHeader(h) == nil {
				_, _ = tw.Write(bytes.Repeat([]byte("gotcha"), int(h.Size)/6+1)[:h.Size])
			}
		}
		_ = tw.Close()
		compareForms(t, newCage(t), buf.Bytes())
	})
}

// compareForms makes both forms of an archive above a layer with something in it:
// they must agree in everything, and in what is wrong.
func compareForms(t *testing.T, c cage, archive []byte) {
	t.Helper()
	var got []string
	for _, form := range forms {
		lower := c.s.mustAdd(t, form, nil, entry{Name: "a/"}, entry{Name: "a/f", Body: "low"}, entry{Name: "a/g", Link: "a/f", Type: tar.TypeLink},
			entry{Name: "l", Link: "a"}, entry{Name: "outside/"}, entry{Name: "outside/secret", Body: "mine"})
		key, _, err := c.s.addIn(form, archive, func(int64) error { return unix.ENOSPC }, lower)
		c.check(t)
		if err != nil {
			got = append(got, err.Error())
			continue
		}
		c.s.mustCheck(t, key)
		got = append(got, entriesOf(t, c.s, key))
	}
	if got[0] != got[1] {
		t.Fatalf("the forms differ:\n%s\n%s", got[0], got[1])
	}
}

// entriesOf is a manifest as text; without privilege, but what depends on it.
func entriesOf(t testing.TB, s *Store, key string) string {
	t.Helper()
	m, err := s.ReadManifest(key)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var all strings.Builder
	for e, err := range m.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		if !self().privileged() {
			e.UID, e.GID, e.Xattrs = 0, 0, nil
			if e.Mode&unix.S_IFMT == unix.S_IFCHR || e.Mode&unix.S_IFMT == unix.S_IFBLK {
				e.Mode, e.Rdev = 0, 0
			}
		}
		fmt.Fprintf(&all, "%+v\n", e)
	}
	return all.String()
}

// claimed is how large the files of an archive say they are.
func claimed(data []byte) (n int64) {
	plain, err := Decompress(bytes.NewReader(data))
	if err != nil {
		return 0
	}
	defer plain.Close()
	for tr := tar.NewReader(io.LimitReader(plain, 16<<20)); ; {
		h, err := tr.Next()
		if err != nil {
			return n
		}
		n += h.Size
	}
}

// sparseSeed is an archive that archive/tar cannot write.
func sparseSeed() []byte {
	var b bytes.Buffer
	pax(&b, "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "100000")
	head := "1\n0\n512\n"
	block(&b, "GNUSparseFile.1/s", tar.TypeReg, head+strings.Repeat("\x00", 512-len(head))+strings.Repeat("x", 512))
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// FuzzUnpackBytes is about any stream, also those that are no archives.
func FuzzUnpackBytes(f *testing.F) {
	plain := imagetest.Archive(entry{Name: "d/"}, entry{Name: "d/f", Body: "x", Xattrs: map[string]string{"user.a": "b"}})
	f.Add(sparseSeed())
	for _, c := range []imagetest.Compression{imagetest.None, imagetest.Gzip, imagetest.Zstd} {
		f.Add(imagetest.Layer{Tar: plain, Compression: c}.Blob())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if claimed(data) > 16<<20 {
			t.Skip("reading so many zeros is all that it would do")
		}
		compareForms(t, newCage(t), data)
	})
}
