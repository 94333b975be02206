package image

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
)

// logged collects what a store logs.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// powerCut ends a store as one does, and opens it in the next boot.
func powerCut(t *testing.T, s *Store, o Options) (*Store, *logged) {
	t.Helper()
	s.idle.stop()
	s.layers.Close()
	if err := s.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if o.Root = s.root; o.Form == "" {
		o.Form = Folder
	}
	was := bootIDPath
	t.Cleanup(func() { bootIDPath = was })
	bootIDPath = filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(bootIDPath, []byte(fmt.Sprintf("boot-%d\n", time.Now().UnixNano())), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &logged{}
	o.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return newStore(t, o), l
}

func pulledApp(t *testing.T, form Form) (*imagetest.Registry, *Store, Image) {
	t.Helper()
	r, s := newRegistry(t), newStore(t, Options{Form: form})
	push(t, r, "app:1", threeLayers())
	return r, s, pullOK(t, s, r.Host+"/app:1")
}

func TestCleanBoot(t *testing.T) {
	_, s, _ := pulledApp(t, Folder)
	root := s.root
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, Options{Root: root, Form: Folder})
	if n := len(s.suspects.keys()); n != 0 {
		t.Errorf("%d suspects", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, l := powerCut(t, newStore(t, Options{Root: root}), Options{})
	if n := len(s.suspects.keys()); n != 3 || l.String() != "" {
		t.Errorf("%d suspects, %s", n, l)
	}
	// The doubt outlives a restart, and ends when all were read.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, Options{Root: root, Form: Folder})
	if n := len(s.suspects.keys()); n != 3 {
		t.Errorf("%d suspects after a restart", n)
	}
	s.checkAll(ctx)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = newStore(t, Options{Root: root}); len(s.suspects.keys()) != 0 {
		t.Error("suspects after the check")
	}
}

// What Open can see is dropped at once, and made again without a network.
func TestPowerCutSeen(t *testing.T) {
	inBothForms(t, func(t *testing.T, form Form) {
		r, s, img := pulledApp(t, form)
		keys := keysOf(s, img)
		for i, name := range []string{"layer.json", "manifest"} {
			if err := os.Truncate(filepath.Join(s.root, "layers", keys[i], name), 0); err != nil {
				t.Fatal(err)
			}
		}
		content := s.layers.Image(keys[2])
		if form == Folder {
			content = s.layers.Diff(keys[2])
		}
		if err := os.RemoveAll(content); err != nil {
			t.Fatal(err)
		}
		r.Close()
		s, l := powerCut(t, s, Options{Form: form})
		if n := strings.Count(l.String(), "dropped a layer"); n != 3 {
			t.Error(l)
		}
		if got := pullOK(t, s, r.Host+"/app:1"); got.Digest != img.Digest {
			t.Error(got)
		}
		verifyClean(t, s)
		if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
			t.Error(err)
		}
		assertClean(t, s)
	})
}

// What only reading shows is found before a container gets it.
func TestPowerCutUnseen(t *testing.T) {
	inBothForms(t, func(t *testing.T, form Form) {
		r, s, img := pulledApp(t, form)
		keys := keysOf(s, img)
		spoil(t, s, keys[1], "usr/big", []byte(noise(300_000)[100_000:110_000]))
		r.Close()
		s, l := powerCut(t, s, Options{Form: form})
		if l.String() != "" {
			t.Error(l)
		}
		if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
			t.Error(err)
		}
		if !strings.Contains(l.String(), "usr/big") || !strings.Contains(l.String(), "made a damaged layer again") {
			t.Error(l)
		}
		verifyClean(t, s)
		assertClean(t, s)
	})
}

// Without the blob the layer has to be pulled, and is.
func TestPowerCutBlobToo(t *testing.T) {
	r, s, img := pulledApp(t, Folder)
	spoil(t, s, keysOf(s, img)[1], "usr/big", []byte(noise(300_000)[100_000:110_000]))
	for _, l := range img.Layers {
		if err := os.Truncate(s.blobs.Path(l.Digest), 5); err != nil {
			t.Fatal(err)
		}
	}
	s, l := powerCut(t, s, Options{})
	if n := strings.Count(l.String(), "dropped a compressed layer"); n != 3 {
		t.Error(l)
	}
	if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err == nil || !strings.Contains(err.Error(), "pull the image again") {
		t.Error(err)
	}
	pullOK(t, s, r.Host+"/app:1")
	if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
		t.Error(err)
	}
	verifyClean(t, s)
	assertClean(t, s)
}

func TestPowerCutSmallFiles(t *testing.T) {
	r, s, img := pulledApp(t, Folder)
	if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(s.root, "images")
	h := func(digest string) string { return strings.TrimPrefix(digest, "sha256:") }
	for _, f := range []string{
		s.blobs.Path(img.ConfigID), filepath.Join(images, "leases/x"), filepath.Join(images, "boot.json"),
		filepath.Join(s.root, "blobs/diffid", h(img.Layers[0].Digest)),
	} {
		if err := errors.Join(os.Chmod(f, 0o600), os.Truncate(f, 0)); err != nil {
			t.Fatal(err)
		}
	}
	s, l := powerCut(t, s, Options{})
	if _, err := s.Get(r.Host + "/app:1"); !errors.Is(err, ErrNotFound) {
		t.Error("the image without a config:", err)
	}
	if !strings.Contains(l.String(), "dropped an image") || !strings.Contains(l.String(), "damaged lease") {
		t.Error(l)
	}
	if n := len(s.suspects.keys()); n != 3 {
		t.Errorf("%d suspects", n)
	}
	pullOK(t, s, r.Host+"/app:1")
	verifyClean(t, s)
	s.checkAll(ctx)
	if n := len(s.suspects.keys()); n != 0 {
		t.Errorf("%d suspects", n)
	}
}

func TestPowerCutIndex(t *testing.T) {
	r, s, img := pulledApp(t, Folder)
	push(t, r, "app:2", oneFile("f", "f"))
	pullOK(t, s, r.Host+"/app:2")
	if err := os.Truncate(filepath.Join(s.root, "images/index.json"), 10); err != nil {
		t.Fatal(err)
	}
	s, l := powerCut(t, s, Options{})
	if !strings.Contains(l.String(), "list of images was damaged") {
		t.Error(l)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Digest != img.Digest {
		t.Error(all, err)
	}
	pullOK(t, s, r.Host+"/app:2")
	verifyClean(t, s)
}

func BenchmarkOpen(b *testing.B) {
	r := imagetest.Start()
	defer r.Close()
	root := b.TempDir()
	s, err := Open(Options{Root: root, Form: Folder})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 50 {
		img := imagetest.Image{}
		for k := range 8 {
			img.Layers = append(img.Layers, imagetest.NewLayer(entry{Name: fmt.Sprintf("f%d", k), Body: noise(1000 + i*(k/4))}, entry{Name: "g", Body: noise(3000)}))
		}
		ref := fmt.Sprintf("app:%d", i)
		if _, err := r.Push(ref, img); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Pull(ctx, r.Host+"/"+ref, PullOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for _, unclean := range []bool{false, true} {
		b.Run(map[bool]string{false: "clean", true: "unclean"}[unclean], func(b *testing.B) {
			for b.Loop() {
				if unclean {
					if err := os.WriteFile(filepath.Join(root, "images/boot.json"), []byte(`{"boot":"x"}`), 0o600); err != nil {
						b.Fatal(err)
					}
				}
				s, err := Open(Options{Root: root, Form: Folder})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
