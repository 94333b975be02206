package image

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// startDistribution starts the registry that most others are built from.
func startDistribution(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, host)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		resp, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			resp.Body.Close()
			return host
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // another process: there is nothing to wait on
	}
}

func TestPullFromDistribution(t *testing.T) {
	host := startDistribution(t)
	ref, err := name.ParseReference(host + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(300000, 4)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Options{Platform: Platform{OS: "linux", Architecture: "amd64"}})
	got := pullOK(t, s, host+"/team/app:1")
	if d, _ := img.Digest(); got.Digest != d.String() || len(got.Layers) != len(c.RootFS.DiffIDs) {
		t.Errorf("%+v", got)
	}
	// Its blobs can be read from the middle.
	repo := s.connect(mustRef(t, s, host+"/team/app:1"), nil)
	layers, _ := img.Layers()
	digest, _ := layers[0].Digest()
	size, _ := layers[0].Size()
	d := descriptor(digest, size)
	body, at, err := repo.Blob(ctx, d, size-10, -1)
	if err != nil || at != size-10 {
		t.Fatal(at, err)
	}
	body.Close()
	assertClean(t, s)
}

func mustRef(t *testing.T, s *Store, ref string) reference {
	t.Helper()
	r, err := s.parseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func descriptor(digest v1.Hash, size int64) v1.Descriptor {
	return v1.Descriptor{Digest: digest, Size: size}
}
