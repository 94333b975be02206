package layer

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
)

func TestLowerLookup(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		a := s.mustAdd(t, form, nil, entry{Name: "a/"}, entry{Name: "a/f", Body: "1"}, entry{Name: "b/"}, entry{Name: "b/f"}, entry{Name: "c/"}, entry{Name: "c/f"}, entry{Name: "only/"}, entry{Name: "only/f"})
		other := forms[0]
		if form == other {
			other = forms[1] // stacks may be of both forms
		}
		b := s.mustAdd(t, other, []string{a}, entry{Name: "a/"}, entry{Name: "a/g"}, entry{Name: ".wh.b"}, entry{Name: "c/"}, entry{Name: "c/.wh..wh..opq"}, entry{Name: "d", Link: "a"})
		c := s.mustAdd(t, form, []string{b, a}, entry{Name: "top"})
		l, err := s.Lower(c, b, a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for p, want := range map[string]bool{
			"": true, "a": true, "a/f": true, "a/g": true, "b": false, "b/f": false, "c": true, "c/f": false,
			"only/f": true, "d": true, "d/f": false, "top": true, "top/x": false, "none": false,
		} {
			in, err := l.lookup(p)
			if (err == nil) != want || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", p, err)
			}
			if err == nil {
				in.close()
			}
		}
		if _, err := s.Lower(newKey()); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestFoldersBelowAreAdopted(t *testing.T) {
	when := time.Unix(1111111111, 5)
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		lower := s.mustAdd(t, form, nil, entry{Name: "opt/", Mode: 0o750, ModTime: when, Xattrs: map[string]string{"user.x": "y"}}, entry{Name: "opt/app/", Mode: 0o2775, ModTime: when})
		f := s.mustOpen(t, s.mustAdd(t, form, []string{lower}, entry{Name: "opt/app/new/f", Body: "x"}))
		for name, mode := range map[string]uint32{"opt": 0o750, "opt/app": 0o2775, "opt/app/new": 0o755} {
			st := at(t, f, name).stat()
			if st.Mode&0o7777 != mode {
				t.Errorf("%s: mode %o, want %o", name, st.Mode&0o7777, mode)
			}
			if got := time.Unix(st.Mtime, int64(st.MtimeNsec)); name != "opt/app/new" && !got.Equal(when) {
				t.Errorf("%s: time %v", name, got)
			}
		}
		if attrs, err := at(t, f, "opt").xattrs(); err != nil || attrs["user.x"] != "y" {
			t.Error(attrs, err)
		}
	})
}

// An opaque mark takes what is in a folder below, not what the folder is.
func TestOpaqueFolderKeepsItsAttributes(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		lower := s.mustAdd(t, form, nil, entry{Name: "d/", Mode: 0o750}, entry{Name: "d/e/", Mode: 0o750})
		f := s.mustOpen(t, s.mustAdd(t, form, []string{lower}, entry{Name: "d/.wh..wh..opq"}, entry{Name: "d/e/f"}))
		if st := at(t, f, "d").stat(); st.Mode&0o7777 != 0o750 {
			t.Errorf("mode %o", st.Mode)
		}
		if st := at(t, f, "d/e").stat(); st.Mode&0o7777 != 0o755 {
			t.Errorf("mode %o of a folder that is gone", st.Mode)
		}
	})
}

func TestHiddenFoldersDoNotDepend(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		res, err := unpackOnly(t, form, Options{}, imagetest.Archive(entry{Name: "d", Body: "x"}, entry{Name: "d/"}, entry{Name: "d/e/f", Body: "x"}))
		if err != nil || res.Dependent || res.NeedsLower {
			t.Fatal(res, err)
		}
		for _, e := range []entry{{Name: "e/f"}, {Name: ".wh.x"}, {Name: "g", Link: "f", Type: tar.TypeLink}} {
			res, err := unpackOnly(t, form, Options{}, imagetest.Archive(e))
			if err != nil || !res.Dependent && !res.NeedsLower {
				t.Error(e, res, err)
			}
		}
	})
}

func TestLowerSymlinkIsFollowed(t *testing.T) {
	for name, above := range map[string][]entry{
		"plain":          {{Name: "lib/x/f", Body: "1"}, {Name: "lib/.wh.old"}, {Name: "esc/passwd", Body: "2"}},
		"replaced later": {{Name: "lib/x/f", Body: "1"}, {Name: "lib/.wh.old"}, {Name: "esc/passwd", Body: "2"}, {Name: "lib", Body: "file"}, {Name: "esc/"}},
		"a link into it": {{Name: "lib/x/f", Body: "1"}, {Name: "lib/.wh.old"}, {Name: "esc/passwd", Body: "2"}, {Name: "l", Link: "usr/lib/x/f", Type: tar.TypeLink}},
	} {
		t.Run(name, func(t *testing.T) {
			eachForm(t, func(t *testing.T, form Form) {
				s := newStore(t)
				lower := s.mustAdd(t, form, nil, entry{Name: "usr/"}, entry{Name: "usr/lib/", Mode: 0o711}, entry{Name: "lib", Link: "usr/lib"}, entry{Name: "esc", Link: "/../../../etc"})
				f := s.mustOpen(t, s.mustAdd(t, form, []string{lower}, above...))
				got := describe(t, f)
				if !strings.Contains(got, "etc/\netc/passwd 2\n") || !strings.HasSuffix(got, "usr/\nusr/lib/\nusr/lib/old gone\nusr/lib/x/\nusr/lib/x/f 1") {
					t.Errorf("got:\n%s", got)
				}
				if st := at(t, f, "usr/lib").stat(); st.Mode&0o777 != 0o711 {
					t.Errorf("mode %o", st.Mode)
				}
			})
		})
	}
}

func TestHardLinkToLowerFile(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		a := s.mustAdd(t, form, nil, entry{Name: "bin/", Mode: 0o711}, entry{Name: "bin/a", Body: "program", Mode: 0o4755}, entry{Name: "bin/a2", Link: "bin/a", Type: tar.TypeLink},
			entry{Name: "bin/a3", Link: "bin/a", Type: tar.TypeLink}, entry{Name: "bin/s", Link: "a"}, entry{Name: "bin/gone"})
		b := s.mustAdd(t, form, []string{a}, entry{Name: "bin/", Mode: 0o711}, entry{Name: "bin/.wh.gone"}, entry{Name: "bin/.wh.a3"})
		link := entry{Name: "bin/b", Link: "bin/a", Type: tar.TypeLink}
		f := s.mustOpen(t, s.mustAdd(t, form, []string{b, a}, link, entry{Name: "bin/t", Link: "bin/s", Type: tar.TypeLink}))
		// a2 comes along, because it is to stay the same file; a3 was gone before.
		if got := describe(t, f); got != "bin/\nbin/a program\nbin/a2 program\nbin/b program\nbin/s -> a\nbin/t -> a" {
			t.Errorf("got:\n%s", got)
		}
		if a, b := at(t, f, "bin/a"), at(t, f, "bin/b"); !a.is(b) || !a.is(at(t, f, "bin/a2")) || a.stat().Mode&0o7777 != 0o4755 {
			t.Error(a.stat(), b.stat())
		}
		// What was only copied is gone again if it is deleted.
		f = s.mustOpen(t, s.mustAdd(t, form, []string{b, a}, link, entry{Name: "bin/.wh.a"}))
		if got := describe(t, f); got != "bin/\nbin/a gone\nbin/a2 program\nbin/b program" {
			t.Errorf("got:\n%s", got)
		}
		if _, _, err := s.add(form, imagetest.Archive(entry{Name: "x", Link: "bin/gone", Type: tar.TypeLink}), b, a); err == nil || !strings.Contains(err.Error(), `link to "bin/gone"`) {
			t.Error(err)
		}
	})
}

// The kernel lists whiteouts in folders that it does not merge.
func TestWhiteoutsOfNothing(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		lower := s.mustAdd(t, form, nil, entry{Name: "there/"}, entry{Name: "file"})
		f := s.mustOpen(t, s.mustAdd(t, form, []string{lower}, entry{Name: "there/"}, entry{Name: "there/.wh.x"},
			entry{Name: "new/"}, entry{Name: "new/.wh.x"}, entry{Name: "file/"}, entry{Name: "file/.wh.x"}, entry{Name: "there/sub/.wh.x"}))
		if got := describe(t, f); got != "file/\nnew/\nthere/\nthere/sub/\nthere/x gone" {
			t.Errorf("got:\n%s", got)
		}
		// The lowest layer has nothing below it.
		f = s.mustOpen(t, s.mustAdd(t, form, nil, entry{Name: ".wh.x"}, entry{Name: "zero", Type: tar.TypeChar}))
		if got := describe(t, f); got != "" {
			t.Errorf("got:\n%s", got)
		}
	})
}

func TestDevice00IsAWhiteout(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		lower := s.mustAdd(t, form, nil, entry{Name: "a", Body: "x"})
		f := s.mustOpen(t, s.mustAdd(t, form, []string{lower}, entry{Name: "a", Body: "y"}, entry{Name: "a", Type: tar.TypeChar}))
		if got := describe(t, f); got != "a gone" {
			t.Errorf("got:\n%s", got)
		}
	})
}

func TestWhiteoutOfALongName(t *testing.T) {
	long := strings.Repeat("n", 255)
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		lower := s.mustAdd(t, form, nil, entry{Name: long})
		f := s.mustOpen(t, s.mustAdd(t, form, []string{lower}, entry{Name: whiteoutPrefix + long}))
		if got := describe(t, f); got != long+" gone" {
			t.Errorf("got:\n%s", got)
		}
	})
}

// What the EROFS form cannot hold goes to a folder without a word.
func TestFallsBackToAFolder(t *testing.T) {
	s := newStore(t)
	st, err := s.Stage(EROFS)
	if err != nil {
		t.Fatal(err)
	}
	if !st.fallBack(formError(errors.New("too many of something"))) || st.RetryForm() != Folder {
		t.Error(st.RetryForm())
	}
	if st.fallBack(formError(&os.PathError{Op: "write", Path: "x", Err: os.ErrPermission})) != true {
		t.Error("not an error of the system")
	}
	if err := st.Discard(); err != nil {
		t.Error(err)
	}
}

// A layer of a store from before there were forms has neither form nor manifest.
func TestOldStores(t *testing.T) {
	s := newStore(t)
	key := newKey()
	diff := s.Diff(key)
	for _, err := range []error{os.MkdirAll(filepath.Join(diff, "d"), 0o755), os.WriteFile(filepath.Join(diff, "d/f"), []byte("x"), 0o644),
		os.WriteFile(filepath.Join(filepath.Dir(diff), infoName), []byte(`{"diff_id":"sha256:x","size":1,"entries":2}`), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if i, ok := s.Get(key); !ok || i.Form != Folder {
		t.Error(i, ok)
	}
	if _, err := s.Check(t.Context(), key, nil); !errors.Is(err, ErrNoManifest) {
		t.Error(err)
	}
	f := s.mustOpen(t, s.mustAdd(t, EROFS, []string{key}, entry{Name: "d/g", Link: "d/f", Type: tar.TypeLink}))
	if got := describe(t, f); got != "d/\nd/f x\nd/g x" {
		t.Errorf("got:\n%s", got)
	}
}
