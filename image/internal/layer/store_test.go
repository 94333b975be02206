package layer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	commit := func(form Form, key string, i Info) {
		st, err := s.Stage(form)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Commit(key, i, nil); err == nil {
			t.Error("nothing was unpacked")
		}
		if _, err := st.Unpack(context.Background(), strings.NewReader(""), Options{}); err != nil {
			t.Fatal(err)
		}
		if err := st.Commit(key, i, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	commit(Folder, Key(a), Info{DiffID: a, Size: 7})
	commit(EROFS, Key(a), Info{DiffID: a, Size: 7}) // a second one of the same is dropped
	commit(EROFS, Key(c), Info{DiffID: b, Chain: c, Dependent: true})
	if key, ok := s.Find(a, c); !ok || key != Key(a) {
		t.Error("an independent layer is right in every chain", key, ok)
	}
	if key, ok := s.Find(b, c); !ok || key != Key(c) {
		t.Error("a dependent layer is right in its chain", key, ok)
	}
	if _, ok := s.Find(b, a); ok {
		t.Error("a dependent layer is wrong in another chain")
	}
	for key, form := range map[string]Form{Key(a): Folder, Key(c): EROFS} {
		if i, ok := s.Get(key); !ok || i.Form != form {
			t.Error(key, i, ok)
		}
	}
	if st, err := os.Stat(s.Mount(Key(c))); err != nil || !st.IsDir() {
		t.Error(err)
	}
	if st, err := os.Stat(s.Image(Key(c))); err != nil || !st.Mode().IsRegular() {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Error("left in tmp:", left)
	}
	if _, err := s.Stage("zip"); err == nil {
		t.Error("an unknown form")
	}
	if _, err := s.Stage(EROFS); err != nil { // a crash leaves this one
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

// Check finds whatever can happen to a folder.
func TestCheckFolder(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"content":  {func(d string) error { return os.WriteFile(d+"/a/f", []byte("other"), 0) }, "a/f content differs, a/f time differs"},
		"size":     {func(d string) error { return os.Truncate(d+"/a/f", 2) }, "a/f size is 2, was 5, a/f time differs"},
		"missing":  {func(d string) error { return os.Remove(d + "/a/f") }, "a time differs, a/f missing"},
		"mode":     {func(d string) error { return os.Chmod(d+"/a/f", 0o600) }, "a/f mode is 600, was 644"},
		"more":     {func(d string) error { return os.Mkdir(d+"/more", 0o755) }, " time differs, more is not of the layer"},
		"type":     {func(d string) error { return errors.Join(os.Remove(d+"/l"), os.WriteFile(d+"/l", nil, 0o644)) }, " time differs, l is of another type"},
		"target":   {func(d string) error { return errors.Join(os.Remove(d+"/l"), os.Symlink("y", d+"/l")) }, " time differs, l target differs, l time differs"},
		"the link": {func(d string) error { return errors.Join(os.Remove(d+"/h"), os.WriteFile(d+"/h", nil, 0o644)) }, " time differs, h is no longer the same file as a/f"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			key := s.mustAdd(t, Folder, nil, entry{Name: "./"}, entry{Name: "a/"}, entry{Name: "a/f", Body: "hello"}, entry{Name: "h", Link: "a/f", Type: '1'}, entry{Name: "l", Link: "x"})
			if err := c.damage(s.Diff(key)); err != nil {
				t.Fatal(err)
			}
			if got := found(t, s, key); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

func found(t *testing.T, s *Store, key string) string {
	t.Helper()
	var all []string
	if _, err := s.Check(context.Background(), key, func(path, what string) { all = append(all, path+" "+what) }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// In an image every byte counts but those that pad.
func TestCheckImage(t *testing.T) {
	s := newStore(t)
	body := strings.Repeat("content ", 8192)
	key := s.mustAdd(t, EROFS, nil, entry{Name: "./"}, entry{Name: "f", Body: body}, entry{Name: "l", Link: "x"})
	image, err := os.ReadFile(s.Image(key))
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(image), "content ")
	for what, i := range map[string]int{"f content differs": at + 5000, " metadata of the image differs": len(image) - 1} {
		bad := slices.Clone(image)
		bad[i] ^= 1
		if err := os.WriteFile(s.Image(key), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := found(t, s, key); !strings.Contains(got, what) {
			t.Errorf("found %q, want %q", got, what)
		}
	}
	if err := os.Remove(s.Image(key)); err != nil {
		t.Fatal(err)
	}
	if got := found(t, s, key); got != " missing" {
		t.Errorf("found %q", got)
	}
}

func TestDamagedManifest(t *testing.T) {
	s := newStore(t)
	key := s.mustAdd(t, Folder, nil, entry{Name: "f", Body: "x", Xattrs: map[string]string{"user.x": "y"}})
	path := filepath.Join(filepath.Dir(s.Diff(key)), manifestName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x10
		for _, b := range [][]byte{bad, good[:i]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Check(context.Background(), key, func(string, string) {}); !errors.Is(err, ErrManifest) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
}

func TestManifestIsTheLayer(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		key := s.mustAdd(t, form, nil, entry{Name: "b/"}, entry{Name: "b/f", Body: "x", UID: 0}, entry{Name: "a", Link: "b/f", Type: '1'}, entry{Name: "l", Link: "t"})
		m, err := s.ReadManifest(key)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var got []string
		for e, err := range m.Entries() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Path+"|"+e.Link+"|"+e.Target)
		}
		if strings.Join(got, " ") != "|| a|| b|| b/f|a| l||t" || m.Form != form {
			t.Error(got, m.Form)
		}
	})
}

func TestInterruptedCheckEnds(t *testing.T) {
	s := newStore(t)
	key, _, err := s.add(Folder, imagetest.Archive(entry{Name: "f", Body: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Check(ctx, key, func(string, string) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
