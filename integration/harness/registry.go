package harness

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
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// ImageDir is where scripts/images puts the test images.
func ImageDir() string {
	cache := os.Getenv("WHERRY_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/wherry-test"
	}
	return filepath.Join(cache, "images")
}

// Registry is Debian's docker-registry on loopback.
type Registry struct {
	Addr string // "127.0.0.1:PORT"
	dir  string
	cmd  *exec.Cmd

	guard  Guard
	client *http.Client    // that it lets in
	push   []remote.Option // with which it does
}

// StartSharedRegistry starts a registry with the named test images in it; the caller closes it.
func StartSharedRegistry(t testing.TB, images ...string) *Registry {
	t.Helper()
	return startRegistry(t, Guard{}, images...)
}

func startRegistry(t testing.TB, g Guard, images ...string) *Registry {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed: scripts/setup test")
	}
	dir, err := os.MkdirTemp("", "whi-registry")
	if err != nil {
		t.Fatal(err)
	}
	r := &Registry{Addr: freeAddr(t), dir: dir, guard: g, client: http.DefaultClient}
	config := filepath.Join(r.dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"+
		"storage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nhttp:\n  addr: %s\n", r.dir, r.Addr) + g.config(t, r)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(bin, "serve", config)
	r.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	r.start(t)
	for _, i := range images {
		r.Push(t, i)
	}
	return r
}

// StartRegistry starts a registry with the named test images in it, for one test.
func StartRegistry(t testing.TB, images ...string) *Registry {
	t.Helper()
	r := StartSharedRegistry(t, images...)
	t.Cleanup(r.Close)
	return r
}

// Close stops the registry and deletes its content.
func (r *Registry) Close() {
	r.Stop()
	os.RemoveAll(r.dir)
}

func (r *Registry) start(t testing.TB) {
	t.Helper()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "the registry answers", func() bool {
		if !alive(r.cmd.Process.Pid) { // somebody's connection has its port for now
			r.again(t)
		}
		resp, err := r.client.Get(r.guard.scheme() + "://" + r.Addr + "/v2/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK || r.guard.User != "" && resp.StatusCode == http.StatusUnauthorized
	})
}

// Stop ends the registry; Restart brings it back with its content.
func (r *Registry) Stop() {
	if r.cmd.Process == nil || r.cmd.ProcessState != nil {
		return
	}
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// Restart starts a stopped registry again at the same address.
func (r *Registry) Restart(t testing.TB) {
	t.Helper()
	r.Stop()
	r.cmd = r.command()
	r.start(t)
}

func (r *Registry) command() *exec.Cmd {
	c := exec.Command(r.cmd.Path, r.cmd.Args[1:]...)
	c.Env = r.cmd.Env
	return c
}

// again starts the program once more that has ended.
func (r *Registry) again(t testing.TB) {
	t.Helper()
	r.cmd.Wait()
	time.Sleep(100 * time.Millisecond)
	r.cmd = r.command()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Ref is the name of a pushed image.
func (r *Registry) Ref(image string) string { return r.Addr + "/" + image + ":latest" }

// Push uploads a test image.
func (r *Registry) Push(t testing.TB, image string) {
	t.Helper()
	PushTo(t, r.Ref(image), image, r.push...)
}

// PushTo uploads a test image to any registry on loopback.
func PushTo(t testing.TB, ref, image string, how ...remote.Option) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(ImageDir(), image))
	if err != nil {
		t.Skipf("test image %s is not built: scripts/images (%v)", image, err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, how...); err != nil {
		t.Fatal(err)
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
