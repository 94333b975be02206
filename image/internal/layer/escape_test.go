package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

// cage is a folder to unpack into, beside something that must stay as it is.
type cage struct{ top, diff, secret string }

func newCage(t testing.TB) cage {
	top := t.TempDir()
	c := cage{top, filepath.Join(top, "diff"), filepath.Join(top, "outside", "secret")}
	for _, err := range []error{os.Mkdir(c.diff, 0o755), os.Mkdir(filepath.Dir(c.secret), 0o755), os.WriteFile(c.secret, []byte("secret"), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
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
	for dir, want := range map[string]string{c.top: "diff outside", filepath.Dir(c.secret): "secret"} {
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
	_ = filepath.WalkDir(c.diff, func(p string, d os.DirEntry, err error) error {
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
			for _, lower := range []*Lower{nil, {}} {
				c := newCage(t)
				_, err := Unpack(context.Background(), bytes.NewReader(imagetest.Archive(entries(c)...)), c.diff, Options{Lower: lower})
				t.Log(err)
				c.check(t)
			}
		})
	}
}

// A lower layer's symlinks lead nowhere else either.
func TestNothingEscapesThroughLower(t *testing.T) {
	c := newCage(t)
	l := stack(t, []entry{{Name: "l", Link: "../../../../../../../.." + filepath.Dir(c.secret)}, {Name: "up", Link: "../outside"}})
	_, err := Unpack(context.Background(), bytes.NewReader(imagetest.Archive(
		entry{Name: "l/secret", Body: "gotcha"}, entry{Name: "up/secret", Body: "gotcha"}, entry{Name: "up/.wh.secret"},
		entry{Name: "h", Link: "outside/secret", Type: tar.TypeLink},
	)), c.diff, Options{Lower: l})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t)
}

// FuzzUnpack builds an archive of lines "TYPE NAME|LINK" and looks whether
// anything outside the folder changes. Types: f file, b large file, d folder,
// s symlink, h hard link, p fifo.
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
		"f .wh..\nf .wh...\nf .wh.\nf .wh..wh.\nf d/.wh..wh.x/y\n",
	} {
		f.Add(seed)
	}
	types := map[byte]byte{'f': tar.TypeReg, 'b': tar.TypeReg, 'd': tar.TypeDir, 's': tar.TypeSymlink, 'h': tar.TypeLink, 'p': tar.TypeFifo}
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
		c := newCage(t)
		empty, err := OpenLower([]string{filepath.Dir(c.secret)}) // a lower layer with something in it
		if err != nil {
			t.Fatal(err)
		}
		defer empty.Close()
		for _, lower := range []*Lower{nil, empty} {
			_, _ = Unpack(context.Background(), bytes.NewReader(buf.Bytes()), c.diff, Options{Lower: lower})
			c.check(t)
		}
	})
}

// FuzzUnpackBytes is about streams that are no archives.
func FuzzUnpackBytes(f *testing.F) {
	plain := imagetest.Archive(entry{Name: "d/"}, entry{Name: "d/f", Body: "x", Xattrs: map[string]string{"user.a": "b"}})
	for _, c := range []imagetest.Compression{imagetest.None, imagetest.Gzip, imagetest.Zstd} {
		f.Add(imagetest.Layer{Tar: plain, Compression: c}.Blob())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newCage(t)
		_, _ = Unpack(context.Background(), bytes.NewReader(data), c.diff, Options{})
		c.check(t)
	})
}
