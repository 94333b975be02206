package layer

import (
	"archive/tar"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stack unpacks layers, the lowest first, each above the ones before it.
func stack(t *testing.T, layers ...[]entry) *Lower {
	t.Helper()
	var dirs []string
	for _, entries := range layers {
		dir, res, err := unpack(t, Options{Lower: &Lower{}}, entries...)
		if err != nil || res.NeedsLower {
			t.Fatal(err)
		}
		dirs = append([]string{dir}, dirs...)
	}
	l, err := OpenLower(dirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestLowerLookup(t *testing.T) {
	l := stack(t,
		[]entry{{Name: "a/"}, {Name: "a/f", Body: "1"}, {Name: "b/"}, {Name: "b/f"}, {Name: "c/"}, {Name: "c/f"}, {Name: "only/"}, {Name: "only/f"}},
		[]entry{{Name: "a/"}, {Name: "a/g"}, {Name: ".wh.b"}, {Name: "c/"}, {Name: "c/.wh..wh..opq"}, {Name: "d", Link: "a"}},
		[]entry{{Name: "top"}},
	)
	for p, want := range map[string]bool{
		"a": true, "a/f": true, "a/g": true, "b": false, "b/f": false, "c": true, "c/f": false,
		"only/f": true, "d": true, "d/f": false, "top": true, "top/x": false, "none": false,
	} {
		if _, _, err := l.lookup(p); (err == nil) != want {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestAdoptLowerFolders(t *testing.T) {
	when := time.Unix(1111111111, 5)
	l := stack(t, []entry{{Name: "opt/", Mode: 0o750, ModTime: when}, {Name: "opt/app/", Mode: 0o2775, ModTime: when}})
	dir, res, err := unpack(t, Options{}, entry{Name: "opt/app/new/f", Body: "x"})
	if err != nil || strings.Join(res.Implicit, " ") == "" || !res.Dependent {
		t.Fatal(res, err)
	}
	if err := Adopt(dir, res.Implicit, l); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"opt": 0o750, "opt/app": 0o2775, "opt/app/new": 0o755} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != mode {
			t.Errorf("%s: mode %o, want %o", name, st.Mode&0o7777, mode)
		}
		if name != "opt/app/new" && !time.Unix(st.Mtim.Unix()).Equal(when) {
			t.Errorf("%s: time %v", name, time.Unix(st.Mtim.Unix()))
		}
	}
}

func TestHiddenFoldersAreNotAdopted(t *testing.T) {
	_, res, err := unpack(t, Options{}, entry{Name: ".wh.d"}, entry{Name: "d/e/f", Body: "x"})
	if err != nil || len(res.Implicit) != 0 {
		t.Fatal(res.Implicit, err)
	}
}

func TestLowerSymlinkIsFollowed(t *testing.T) {
	l := stack(t, []entry{{Name: "usr/"}, {Name: "usr/lib/", Mode: 0o711}, {Name: "lib", Link: "usr/lib"}, {Name: "esc", Link: "/../../../etc"}})
	above := []entry{{Name: "lib/x/f", Body: "1"}, {Name: "lib/.wh.old"}, {Name: "esc/passwd", Body: "2"}}
	dir, res, err := unpack(t, Options{}, above...)
	if err != nil {
		t.Fatal(err)
	}
	if err := Adopt(dir, res.Implicit, l); !errors.Is(err, ErrNeedsLower) {
		t.Fatal(err)
	}
	dir, res, err = unpack(t, Options{Lower: l}, above...)
	if err != nil || !res.Dependent {
		t.Fatal(res, err)
	}
	const want = "etc/\netc/passwd 2\nusr/\nusr/lib/\nusr/lib/old gone\nusr/lib/x/\nusr/lib/x/f 1"
	if got := describe(t, dir); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if st, err := os.Stat(filepath.Join(dir, "usr/lib")); err != nil || st.Mode().Perm() != 0o711 {
		t.Error(st.Mode(), err)
	}
}

func TestHardLinkToLowerFile(t *testing.T) {
	l := stack(t, []entry{{Name: "bin/", Mode: 0o711}, {Name: "bin/a", Body: "program", Mode: 0o4755}, {Name: "bin/s", Link: "a"}, {Name: "bin/gone"}},
		[]entry{{Name: "bin/", Mode: 0o711}, {Name: "bin/.wh.gone"}})
	link := entry{Name: "bin/b", Link: "bin/a", Type: tar.TypeLink}
	_, res, err := unpack(t, Options{}, link)
	if err != nil || !res.NeedsLower || res.DiffID == "" {
		t.Fatal(res, err)
	}
	dir, res, err := unpack(t, Options{Lower: l}, link, entry{Name: "bin/t", Link: "bin/s", Type: tar.TypeLink})
	if err != nil || !res.Dependent {
		t.Fatal(res, err)
	}
	if got := describe(t, dir); got != "bin/\nbin/a program\nbin/b program\nbin/s -> a\nbin/t -> a" {
		t.Errorf("got:\n%s", got)
	}
	a, _ := os.Stat(filepath.Join(dir, "bin/a"))
	b, err := os.Stat(filepath.Join(dir, "bin/b"))
	if err != nil || !os.SameFile(a, b) || a.Mode()&os.ModeSetuid == 0 {
		t.Error(a, b, err)
	}
	if _, _, err := unpack(t, Options{Lower: l}, entry{Name: "x", Link: "bin/gone", Type: tar.TypeLink}); err == nil || !strings.Contains(err.Error(), `link to "bin/gone"`) {
		t.Error(err)
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	commit := func(key string, i Info) {
		st, err := s.Stage()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(st.Diff(), "f"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := st.Commit(key, i, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	commit(Key(a), Info{DiffID: a, Size: 7})
	commit(Key(a), Info{DiffID: a, Size: 7}) // a second one of the same is dropped
	commit(Key(c), Info{DiffID: b, Chain: c, Dependent: true})
	if key, ok := s.Find(a, c); !ok || key != Key(a) {
		t.Error("an independent layer is right in every chain", key, ok)
	}
	if key, ok := s.Find(b, c); !ok || key != Key(c) {
		t.Error("a dependent layer is right in its chain", key, ok)
	}
	if _, ok := s.Find(b, a); ok {
		t.Error("a dependent layer is wrong in another chain")
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Error("left in tmp:", left)
	}
	if _, err := s.Stage(); err != nil { // a crash leaves this one
		t.Fatal(err)
	}
	if n, err := s.Remove(Key(a)); n != 7 || err != nil {
		t.Error(n, err)
	}
	if _, ok := s.Get(Key(a)); ok {
		t.Error("still there")
	}
	s.Close()
	s = openStore(t, dir)
	defer s.Close()
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Error("left by the crash:", left)
	}
	keys, err := s.List()
	if err != nil || len(keys) != 1 || keys[0] != Key(c) {
		t.Error(keys, err)
	}
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
