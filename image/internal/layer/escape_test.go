package layer

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

// cage is a store beside something that must stay as it is.
type cage struct {
	top, secret string
	s           *Store
}

func newCage(t testing.TB) cage {
	top := t.TempDir()
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
