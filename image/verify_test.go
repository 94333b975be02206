package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// damagedIn lists what Verify found as "PATH: WHAT".
func damagedIn(v Verification) (all []string) {
	for _, d := range v.Damage {
		all = append(all, d.Path+": "+d.What)
	}
	slices.Sort(all)
	return all
}

func verifyOne(t *testing.T, s *Store, ref string, repair bool) (Verification, error) {
	t.Helper()
	all, err := s.Verify(ctx, ref, VerifyOptions{Repair: repair})
	if len(all) != 1 {
		t.Fatalf("%d results, %v", len(all), err)
	}
	return all[0], err
}

func verifyClean(t *testing.T, s *Store) {
	t.Helper()
	all, err := s.Verify(ctx, "", VerifyOptions{})
	if err != nil {
		t.Error(err, all)
	}
}

// inBothForms runs a test for either form of layers.
func inBothForms(t *testing.T, test func(t *testing.T, form Form)) {
	for _, form := range []Form{Folder, EROFS} {
		t.Run(string(form), func(t *testing.T) { test(t, form) })
	}
}

// threeLayers is an image whose last layer depends on those below it.
func threeLayers() imagetest.Image {
	return imagetest.Image{Layers: []imagetest.Layer{
		imagetest.NewLayer(entry{Name: "etc/", Mode: 0o750}, entry{Name: "etc/a", Body: noise(10_000)}, entry{Name: "etc/b", Body: noise(9000)}),
		imagetest.NewLayer(entry{Name: "usr/"}, entry{Name: "usr/big", Body: noise(300_000)}, entry{Name: "usr/l", Link: "big"}),
		imagetest.NewLayer(entry{Name: "etc/.wh.b"}, entry{Name: "etc/c", Body: "c"}),
	}}
}

// spoil changes bytes of a file below the layer: in the folder form those of the
// path itself, in an image those where its content stands.
func spoil(t *testing.T, s *Store, key, path string, body []byte) {
	t.Helper()
	info, _ := s.layers.Get(key)
	name := filepath.Join(s.layers.Diff(key), path)
	if info.Form == layer.EROFS {
		name = s.layers.Image(key)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, body)
	if at < 0 {
		t.Fatalf("%s has no such content", name)
	}
	st, _ := os.Stat(name)
	b[at] ^= 1
	if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, b, 0o600), os.Chmod(name, st.Mode()), os.Chtimes(name, st.ModTime(), st.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func keysOf(s *Store, img Image) (keys []string) {
	for _, l := range s.idx.Images[img.Digest].Layers {
		keys = append(keys, l.Key)
	}
	return keys
}

func TestVerifyFindsAndRepairs(t *testing.T) {
	inBothForms(t, func(t *testing.T, form Form) {
		r, s := newRegistry(t), newStore(t, Options{Form: form})
		push(t, r, "app:1", threeLayers())
		img := pullOK(t, s, r.Host+"/app:1")
		v, err := verifyOne(t, s, "", false)
		if err != nil || len(v.Damage) != 0 || v.Files != 4 || v.Layers != 3 || v.Image != r.Host+"/app:1" || v.Digest != img.Digest || v.Bytes < 600_000 {
			t.Fatalf("%+v %v", v, err)
		}
		keys := keysOf(s, img)
		spoil(t, s, keys[0], "etc/a", []byte(noise(10_000)[:5000]))
		spoil(t, s, keys[1], "usr/big", []byte(noise(300_000)[100_000:110_000]))
		v, err = verifyOne(t, s, r.Host+"/app:1", false)
		// The noise begins the same everywhere: in an image the first file with it is met.
		want := []string{"etc/a: content differs", "usr/big: content differs"}
		if got := damagedIn(v); !errors.Is(err, ErrCorrupt) || !slices.Equal(got, want) {
			t.Error(got, err)
		}
		r.Close() // the blobs are here
		v, err = verifyOne(t, s, "", true)
		if got := damagedIn(v); err != nil || !slices.Equal(got, want) || !v.Damage[0].Repaired || !v.Damage[1].Repaired {
			t.Error(got, err, v.Damage)
		}
		verifyClean(t, s)
		if !slices.Equal(keysOf(s, img), keys) {
			t.Error("the layers have other keys")
		}
		assertClean(t, s)
	})
}

func TestVerifyFolder(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	push(t, r, "app:1", threeLayers())
	keys := keysOf(s, pullOK(t, s, r.Host+"/app:1"))
	at := func(p string) string { return filepath.Join(s.layers.Diff(keys[1]), p) }
	for _, c := range []struct {
		what string
		harm func() error
		want []string
	}{
		{"missing", func() error { return os.Remove(at("usr/l")) }, []string{"usr/l: missing"}},
		{"extra", func() error { return os.WriteFile(at("usr/x"), nil, 0o600) }, []string{"usr/x: is not of the layer", "usr: time differs"}},
		{"link", func() error { return errors.Join(os.Remove(at("usr/l")), os.Symlink("other", at("usr/l"))) }, []string{"usr/l: target differs", "usr/l: time differs", "usr: time differs"}},
		{"mode", func() error { return os.Chmod(at("usr/big"), 0o600) }, []string{"usr/big: mode is 600, was 644"}},
		{"time", func() error { return os.Chtimes(at("usr/big"), time.Now(), time.Now()) }, []string{"usr/big: time differs"}},
		{"cut", func() error { return os.Truncate(at("usr/big"), 7) }, []string{"usr/big: size is 7, was 300000", "usr/big: time differs"}},
		{"folder gone", func() error { return os.RemoveAll(s.layers.Diff(keys[1])) }, []string{": missing"}},
		{"layer gone", func() error { return os.RemoveAll(filepath.Dir(s.layers.Diff(keys[1]))) }, []string{": missing"}},
		{"info", func() error { return os.Truncate(filepath.Join(filepath.Dir(s.layers.Diff(keys[1])), "layer.json"), 0) }, []string{": missing"}},
		{"manifest", func() error { return os.Truncate(filepath.Join(filepath.Dir(s.layers.Diff(keys[1])), "manifest"), 100) }, []string{": its manifest is damaged"}},
	} {
		if err := c.harm(); err != nil {
			t.Fatal(err)
		}
		v, err := verifyOne(t, s, "", false)
		got := damagedIn(v)
		if c.what == "missing" {
			got = slices.DeleteFunc(got, func(l string) bool { return l == "usr: time differs" })
		}
		if !errors.Is(err, ErrCorrupt) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q %v", c.what, got, err)
		}
		if _, err := verifyOne(t, s, "", true); err != nil {
			t.Errorf("%s: repair: %v", c.what, err)
		}
		verifyClean(t, s)
	}
	assertClean(t, s)
}

// A blob is fetched again; one that has gone to make room is no damage, but a
// layer is repaired from the registry then.
func TestVerifyBlobs(t *testing.T) {
	inBothForms(t, func(t *testing.T, form Form) {
		r, s := newRegistry(t), newStore(t, Options{Form: form})
		i := threeLayers()
		push(t, r, "app:1", i)
		img := pullOK(t, s, r.Host+"/app:1")
		big := img.Layers[1].Digest
		for _, digest := range []string{big, img.Digest, img.ConfigID} {
			harm(t, s, digest)
		}
		v, err := verifyOne(t, s, img.Digest, false)
		if got := damagedIn(v); !errors.Is(err, ErrCorrupt) || len(got) != 3 || got[0] != ": content differs" {
			t.Error(got, err)
		}
		if v, err := verifyOne(t, s, "", true); err != nil || !v.Damage[2].Repaired {
			t.Error(v, err)
		}
		verifyClean(t, s)
		n := len(getRequests(r, big))
		if n != 2 {
			t.Errorf("blob fetched %d times", n)
		}
		if _, err := s.blobs.Shed(big); err != nil {
			t.Fatal(err)
		}
		verifyClean(t, s)
		spoil(t, s, keysOf(s, img)[1], "usr/big", []byte(noise(300_000)[100_000:110_000]))
		if v, err := verifyOne(t, s, "", true); err != nil || len(v.Damage) != 1 {
			t.Error(v, err)
		}
		verifyClean(t, s)
		assertClean(t, s)
	})
}

func harm(t *testing.T, s *Store, digest string) {
	t.Helper()
	path := s.blobs.Path(digest)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// What cannot be repaired is named and stays as it is.
func TestVerifyRepairFails(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	push(t, r, "app:1", threeLayers())
	ref := r.Host + "/app:1"
	img := pullOK(t, s, ref)
	r.Close()
	digest := img.Layers[0].Digest
	harm(t, s, digest)
	before, _ := os.ReadFile(s.blobs.Path(digest))
	spoil(t, s, keysOf(s, img)[0], "etc/a", []byte(noise(10_000)[:5000]))
	v, err := verifyOne(t, s, "", true)
	if !errors.Is(err, ErrCorrupt) || len(v.Damage) != 2 || v.Damage[0].Repaired || v.Damage[1].Repaired {
		t.Error(v, err)
	}
	for _, part := range []string{ref, digest, img.Layers[0].DiffID, "repair", "its compressed layer is damaged too"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
	if after, _ := os.ReadFile(s.blobs.Path(digest)); !bytes.Equal(before, after) {
		t.Error("the damaged blob is not what it was")
	}
	if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
		t.Error("the image is not usable any more:", err)
	}
	assertClean(t, s)
}

// Each layer is read once, and its damage is told of every image that has it.
func TestVerifySharedLayer(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: EROFS})
	i := threeLayers()
	push(t, r, "a:1", i)
	i.Layers = append(slices.Clip(i.Layers), imagetest.NewLayer(entry{Name: "x", Body: "x"}))
	push(t, r, "b:1", i)
	a, _ := pullOK(t, s, r.Host+"/a:1"), pullOK(t, s, r.Host+"/b:1")
	spoil(t, s, keysOf(s, a)[1], "usr/big", []byte(noise(300_000)[100_000:110_000]))
	var last Progress
	all, err := s.Verify(ctx, "", VerifyOptions{Progress: func(p Progress) { last = p }})
	if !errors.Is(err, ErrCorrupt) || len(all) != 2 || len(all[0].Damage) != 1 || len(all[1].Damage) != 1 || !strings.Contains(err.Error(), "2 images") {
		t.Error(all, err)
	}
	if last.Step != ProgressVerify || last.Done != last.Total || last.Total == 0 {
		t.Errorf("%+v", last)
	}
	all, err = s.Verify(ctx, r.Host+"/a:1", VerifyOptions{Repair: true})
	if err != nil || len(all) != 1 || all[0].Image != r.Host+"/a:1" {
		t.Error(all, err)
	}
	verifyClean(t, s)
}

// A layer without a manifest is compared with what its blob unpacks to, and has
// one then.
func TestVerifyWithoutManifest(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	push(t, r, "app:1", threeLayers())
	keys := keysOf(s, pullOK(t, s, r.Host+"/app:1"))
	for _, key := range keys {
		if err := os.Remove(filepath.Join(s.root, "layers", key, "manifest")); err != nil {
			t.Fatal(err)
		}
	}
	spoil(t, s, keys[1], "usr/big", []byte(noise(300_000)[100_000:110_000]))
	v, err := verifyOne(t, s, "", false)
	if got := damagedIn(v); !errors.Is(err, ErrCorrupt) || !slices.Equal(got, []string{"usr/big: content differs"}) {
		t.Error(got, err)
	}
	for i, key := range keys {
		m, err := s.layers.ReadManifest(key)
		if got := err == nil; got != (i != 1) {
			t.Errorf("layer %d: manifest %v", i, err)
		}
		if err == nil {
			m.Close()
		}
	}
	if _, err := verifyOne(t, s, "", true); err != nil {
		t.Error(err)
	}
	verifyClean(t, s)
	assertClean(t, s)
}

// An EROFS layer always had a manifest: without one it is damaged, and repaired.
func TestVerifyErofsWithoutManifest(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: EROFS})
	push(t, r, "app:1", threeLayers())
	keys := keysOf(s, pullOK(t, s, r.Host+"/app:1"))
	if err := os.Remove(filepath.Join(s.root, "layers", keys[1], "manifest")); err != nil {
		t.Fatal(err)
	}
	v, err := verifyOne(t, s, "", false)
	if got := damagedIn(v); !errors.Is(err, ErrCorrupt) || !slices.Equal(got, []string{": its manifest is missing"}) {
		t.Error(got, err)
	}
	if _, err := verifyOne(t, s, "", true); err != nil {
		t.Error(err)
	}
	verifyClean(t, s)
	assertClean(t, s)
}

// The files of a replaced layer stay as long as a container uses them.
func TestRepairUnderContainer(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	push(t, r, "app:1", threeLayers())
	img := pullOK(t, s, r.Host+"/app:1")
	key := keysOf(s, img)[0]
	if _, err := s.Prepare(ctx, img.Digest, "run", t.TempDir(), PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	used, err := os.OpenRoot(s.layers.Diff(key)) // as the mount has it
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	spoil(t, s, key, "etc/a", []byte(noise(10_000)[:5000]))
	if _, err := verifyOne(t, s, "", true); err != nil {
		t.Fatal(err)
	}
	if _, err := used.Stat("etc/b"); err != nil {
		t.Error("the container has lost a file:", err)
	}
	retired := func() int {
		all, _ := os.ReadDir(filepath.Join(s.root, "layers/retired"))
		return len(all)
	}
	verifyClean(t, s)
	if retired() != 1 {
		t.Error("retired:", retired())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, Options{Root: s.root, Form: Folder})
	if _, err := s.Collect(ctx, GCOptions{}); err != nil || retired() != 1 {
		t.Error("retired:", retired(), err)
	}
	if err := s.Release("run"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(ctx, GCOptions{}); err != nil {
		t.Error(err)
	}
	if retired() != 0 {
		t.Error("still there:", retired())
	}
}

func TestVerifyEnds(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	push(t, r, "app:1", threeLayers())
	pullOK(t, s, r.Host+"/app:1")
	cctx, cancel := context.WithCancelCause(ctx)
	cause := errors.New("enough")
	_, err := s.Verify(cctx, "", VerifyOptions{Progress: func(Progress) { cancel(cause) }})
	if !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := s.Verify(ctx, "none:1", VerifyOptions{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if all, err := newStore(t, Options{}).Verify(ctx, "", VerifyOptions{}); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	assertClean(t, s)
}

func BenchmarkVerify(b *testing.B) {
	for _, form := range []Form{Folder, EROFS} {
		b.Run(string(form), func(b *testing.B) {
			r := imagetest.Start()
			defer r.Close()
			var entries []entry
			for i := range 2000 {
				entries = append(entries, entry{Name: fmt.Sprintf("d%d/f%d", i%20, i), Body: noise(50_000)})
			}
			if _, err := r.Push("app:1", imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(entries...)}}); err != nil {
				b.Fatal(err)
			}
			s, err := Open(Options{Root: b.TempDir(), Form: form})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				all, err := s.Verify(ctx, "", VerifyOptions{})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(all[0].Bytes)
			}
		})
	}
}
