package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestLoadBoundsWhatNamesCost: long names and long lists cost an archive's reader memory and
// time, while they compress to nearly nothing.
func TestLoadBoundsWhatNamesCost(t *testing.T) {
	long := strings.Repeat("n", 5000)
	layers := strings.Repeat(`"l",`, 100_000) + `"l"`
	for want, data := range map[string][]byte{
		"file name too long": makeTar(tarFile{name: long, body: "x"}),
		"name too long":      makeTar(tarFile{name: "a", link: long}),
		"100001 layers":      makeTar(tarFile{name: "c", body: "{}"}, tarFile{name: "l", body: "x"}, tarFile{name: dockerManifest, body: `[{"Config":"c","Layers":[` + layers + `]}]`}),
	} {
		s := newStore(t, Options{})
		if _, err := s.Load(ctx, bytes.NewReader(data), LoadOptions{}); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestSaveFolderStaysInside: who owns the folder that root saves to cannot send it
// elsewhere, nor let it wait.
func TestSaveFolderStaysInside(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	push(t, r, "a:1", oneFile("f", "f"))
	pullOK(t, s, r.Host+"/a:1")
	for name, plant := range map[string]func(dir, outside string) error{
		"blobs": func(dir, outside string) error { return os.Symlink(outside, filepath.Join(dir, "blobs")) },
		"sha256": func(dir, outside string) error {
			return os.Mkdir(filepath.Join(dir, "blobs"), 0o755)
		},
		"index.json": func(dir, outside string) error {
			return os.Symlink(filepath.Join(outside, "x"), filepath.Join(dir, indexFile))
		},
		"fifo": func(dir, _ string) error { return syscall.Mkfifo(filepath.Join(dir, indexFile), 0o666) },
	} {
		dir, outside := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(outside, "x"), []byte(`{"schemaVersion":2}`), 0o600); err != nil {
			t.Fatal(err)
		}
		err := plant(dir, outside)
		if err == nil && name == "sha256" {
			err = os.Symlink(outside, filepath.Join(dir, "blobs", "sha256"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SaveFolder(ctx, dir, []string{r.Host + "/a:1"}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if all, err := os.ReadDir(outside); err != nil || len(all) != 1 {
			t.Errorf("%s: outside has %v, %v", name, all, err)
		}
	}
}
