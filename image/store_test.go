package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

type entry = imagetest.Entry

var ctx = context.Background()

func newStore(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s.backoff = func(int) time.Duration { return 0 }
	t.Cleanup(func() { s.Close() })
	return s
}

// memoryDir is a folder for what has much to sync: on a busy disk that takes longer
// than all else.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "wherry-image-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newRegistry(t *testing.T) *imagetest.Registry {
	t.Helper()
	r := imagetest.Start()
	t.Cleanup(r.Close)
	return r
}

func push(t *testing.T, r *imagetest.Registry, ref string, i imagetest.Image) string {
	t.Helper()
	digest, err := r.Push(ref, i)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func pullOK(t *testing.T, s *Store, ref string) Image {
	t.Helper()
	img, err := s.Pull(ctx, ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// noise does not compress, so that a blob is as large as its layer.
func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(b)
	return string(b)
}

func oneFile(name, body string) imagetest.Image {
	return imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(entry{Name: name, Body: body})}}
}

func digestOf(l imagetest.Layer) string {
	h, _, _ := v1.SHA256(strings.NewReader(string(l.Blob())))
	return h.String()
}

// assertClean fails if a pull has left something that is not whole.
func assertClean(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{"blobs/tmp", "layers/tmp"} {
		if left, err := os.ReadDir(filepath.Join(s.root, dir)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v %v", dir, left, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pins) != 0 || len(s.flights.m) != 0 {
		t.Errorf("left: pins %v, flights %v", s.pins, s.flights.m)
	}
}

func TestPullAndFind(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	digest := push(t, r, "team/app:1.2", imagetest.Image{
		Layers: []imagetest.Layer{imagetest.NewLayer(entry{Name: "f", Body: "one"}), imagetest.NewLayer(entry{Name: "g", Body: "two"})},
		Config: v1.Config{
			Entrypoint: []string{"/app"}, Cmd: []string{"-v"}, Env: []string{"A=b"}, User: "1:2", WorkingDir: "/srv", StopSignal: "SIGQUIT",
			Volumes: map[string]struct{}{"/b": {}, "/a": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, Labels: map[string]string{"k": "v"},
		},
	})
	ref := r.Host + "/team/app:1.2"
	img := pullOK(t, s, ref)
	if img.Digest != digest || len(img.Names) != 1 || img.Names[0] != ref || len(img.Layers) != 2 || img.Size == 0 || img.PulledAt.IsZero() || img.Created.IsZero() {
		t.Errorf("%+v", img)
	}
	if got, want := fmt.Sprint(img.Config), "{[/app] [-v] [A=b] 1:2 /srv SIGQUIT [/a /b] [80/tcp] map[k:v]}"; got != want {
		t.Errorf("config %s, want %s", got, want)
	}
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, find := range []string{ref, digest, hex, hex[:12], "sha256:" + hex[:20], img.ConfigID, r.Host + "/team/app@" + digest} {
		if got, err := s.Get(find); err != nil || got.Digest != digest {
			t.Errorf("Get(%q): %v", find, err)
		}
	}
	for find, want := range map[string]error{
		hex[:11]: ErrNotFound, "nginx": ErrNotFound, "NGINX": ErrInvalid, "": ErrInvalid, r.Host + "/other@" + digest: ErrNotFound,
		"sha256:" + strings.Repeat("0", 64): ErrNotFound,
	} {
		if _, err := s.Get(find); !errors.Is(err, want) {
			t.Errorf("Get(%q): %v, want %v", find, err, want)
		}
	}
	for i, name := range []string{"f", "g"} {
		if _, err := os.Stat(filepath.Join(s.layers.Diff(s.idx.Images[digest].Layers[i].Key), name)); err != nil {
			t.Error(err)
		}
	}
	if again := pullOK(t, s, ref); !again.PulledAt.Equal(img.PulledAt) {
		t.Errorf("pulled at %v, stored is %v", again.PulledAt, img.PulledAt)
	}
	assertClean(t, s)
	// All of it survives the process.
	s.Close()
	again := newStore(t, Options{Root: s.root})
	all, err := again.List()
	if err != nil || len(all) != 1 || all[0].Digest != digest {
		t.Error(all, err)
	}
}

func TestPullKinds(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	for _, c := range []imagetest.Compression{imagetest.None, imagetest.Gzip, imagetest.Zstd} {
		for _, docker := range []bool{false, true} {
			name := fmt.Sprintf("kind-%s-%v:1", c, docker)
			i := imagetest.Image{Docker: docker, Layers: []imagetest.Layer{{Tar: imagetest.Archive(entry{Name: name, Body: noise(100000)}), Compression: c}}}
			if digest := push(t, r, name, i); pullOK(t, s, r.Host+"/"+name).Digest != digest {
				t.Error(name)
			}
		}
	}
	if img := pullOK(t, s, r.Host+"/scratch:1@"+push(t, r, "scratch:1", imagetest.Image{})); len(img.Layers) != 0 || !strings.Contains(img.Names[0], "@sha256:") {
		t.Errorf("%+v", img)
	}
	assertClean(t, s)
}

func TestNames(t *testing.T) {
	s := newStore(t, Options{Insecure: []string{"plain.example:80"}})
	for in, want := range map[string]string{
		"nginx": "docker.io/library/nginx:latest", "a/b:1": "docker.io/a/b:1", "docker.io/nginx:2": "docker.io/library/nginx:2",
		"index.docker.io/library/nginx": "docker.io/library/nginx:latest", "host:5000/a/b:tag": "host:5000/a/b:tag",
		"quay.io/x/y": "quay.io/x/y:latest", "localhost/x": "localhost/x:latest",
		"a/b:1@sha256:" + strings.Repeat("a", 64): "docker.io/a/b@sha256:" + strings.Repeat("a", 64),
	} {
		r, err := s.parseRef(in)
		if err != nil || r.String() != want {
			t.Errorf("%s: %s %v, want %s", in, r, err, want)
		}
		if in != "localhost/x" && !strings.Contains(in, "5000") && r.Context().Scheme() != "https" {
			t.Errorf("%s: %s", in, r.Context().Scheme())
		}
	}
	for in, why := range map[string]string{
		"UPPER": "a repository is written in lower case", "r.example:5000/Team/x:V1": "a repository is written in lower case",
		"a/b:1@sha256:abc": "after @ come sha256: and 64 hexadecimal digits", "https://host/x": "a name begins with the host, without a scheme",
	} {
		if _, err := s.parseRef(in); err == nil || !strings.HasSuffix(err.Error(), strconv.Quote(in)+": "+why) {
			t.Errorf("%s: %v", in, err)
		}
	}
	if _, err := s.parseRef("a b"); err == nil || !strings.HasSuffix(err.Error(), `"a b"`) {
		t.Error(err) // nothing is known
	}
	for _, in := range []string{"", "UPPER", "a b", "a/-b", "a:b:c", "x@sha256:12", "http://host/x", "a//b", "a/b:" + strings.Repeat("t", 200)} {
		if _, err := s.Pull(ctx, in, PullOptions{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
	if r, _ := s.parseRef("plain.example:80/x"); r.Context().Scheme() != "http" {
		t.Error("insecure host over https")
	}
}

func TestPolicies(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	ref := r.Host + "/app:1"
	if _, err := s.Pull(ctx, ref, PullOptions{Policy: Never}); !errors.Is(err, ErrNotFound) || !strings.HasPrefix(err.Error(), "resolve "+ref+": no such image") {
		t.Error(err)
	}
	first := push(t, r, "app:1", oneFile("f", "1"))
	pullOK(t, s, ref)
	n := len(r.Requests(""))
	second := push(t, r, "app:1", oneFile("f", "2"))
	for _, p := range []Policy{Missing, Never, ""} {
		if img, err := s.Pull(ctx, ref, PullOptions{Policy: p}); err != nil || img.Digest != first {
			t.Error(p, err)
		}
	}
	if img, err := s.Pull(ctx, r.Host+"/app@"+first, PullOptions{}); err != nil || len(img.Names) != 2 {
		t.Error("a digest that is there", img.Names, err)
	}
	if got := len(r.Requests("")); got != n {
		t.Errorf("%d requests for what is there", got-n)
	}
	if img, err := s.Pull(ctx, ref, PullOptions{Policy: Always}); err != nil || img.Digest != second {
		t.Error(err)
	}
	if img, err := s.Get(first); err != nil || len(img.Names) != 1 {
		t.Error("the image that lost its tag", img.Names, err)
	}
	if _, err := s.Pull(ctx, ref, PullOptions{Policy: "sometimes"}); err == nil {
		t.Error("unknown policy")
	}
}

func TestPlatforms(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Platform: Platform{OS: "linux", Architecture: "amd64"}})
	build := func(arch, variant string) imagetest.Image {
		i := oneFile("f", arch+variant)
		i.Platform = v1.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return i
	}
	index, err := r.PushIndex("multi:1", build("arm", "v6"), build("amd64", ""), build("arm64", "v8"), build("arm", "v7"))
	if err != nil {
		t.Fatal(err)
	}
	for want, p := range map[string]Platform{
		"linux/amd64": {}, "linux/arm64": {Architecture: "aarch64"}, "linux/arm/v7": {OS: "linux", Architecture: "arm"},
		"linux/arm/v6": {OS: "linux", Architecture: "arm", Variant: "v6"},
	} {
		for _, ref := range []string{r.Host + "/multi:1", r.Host + "/multi@" + index} {
			img, err := s.Pull(ctx, ref, PullOptions{Platform: p})
			if err != nil || img.Platform != want {
				t.Errorf("%s: got %s, %v", want, img.Platform, err)
			}
		}
	}
	_, err = s.Pull(ctx, r.Host+"/multi:1", PullOptions{Platform: Platform{OS: "linux", Architecture: "riscv64"}})
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/riscv64; it is for: linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8") {
		t.Error(err)
	}
	push(t, r, "single:1", build("s390x", ""))
	if _, err := s.Pull(ctx, r.Host+"/single:1", PullOptions{}); !errors.Is(err, ErrPlatform) {
		t.Error(err)
	}
}

func TestPlatformRank(t *testing.T) {
	for _, c := range []struct {
		host, image string
		want        int
	}{
		{"linux/amd64", "linux/amd64", 0}, {"linux/x86_64", "linux/amd64/v1", 0}, {"linux/amd64", "linux/amd64/v3", -1},
		{"linux/amd64/v3", "linux/amd64/v2", 10}, {"linux/amd64/v3", "linux/amd64", 500}, {"linux/arm64", "linux/arm64/v8", 0},
		{"linux/arm/v7", "linux/arm/v6", 10}, {"linux/arm/v6", "linux/arm/v7", -1}, {"linux/arm/v7", "linux/arm", 0},
		{"linux/arm64", "linux/arm/v7", -1}, {"linux/amd64", "windows/amd64", -1},
	} {
		h, err1 := ParsePlatform(c.host)
		i, err2 := ParsePlatform(c.image)
		if got := h.rank(i); err1 != nil || err2 != nil || got != c.want {
			t.Errorf("%s on %s: %d, want %d", c.image, c.host, got, c.want)
		}
	}
	for _, bad := range []string{"", "linux", "linux/", "a/b/c/d", "/amd64"} {
		if _, err := ParsePlatform(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestProgress(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	l := imagetest.NewLayer(entry{Name: "f", Body: noise(1 << 20)})
	push(t, r, "app:1", imagetest.Image{Layers: []imagetest.Layer{l}})
	_, open := gate(r, "/blobs/"+digestOf(l))
	defer open()
	watch := func() string {
		var mu sync.Mutex
		var seen []string
		_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{Policy: Always, Progress: func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			if p.Image != r.Host+"/app:1" || p.Layer != "" && (p.Layer != digestOf(l) || p.Total != int64(len(l.Blob())) || p.Done > p.Total) {
				t.Errorf("%+v", p)
			}
			step := p.Step
			if p.Layer != "" && step == string(StepFetch) {
				open() // not before: all could be there when the first look is taken
			}
			if p.Layer == "" && step == string(StepFetch) { // of the image, now and then
				if p.Done <= 0 || p.Done > p.Total || p.Rate < 0 || p.Left < 0 {
					t.Errorf("%+v", p)
				}
				return
			}
			if p.Layer != "" {
				step = "layer " + step
			}
			if len(seen) == 0 || seen[len(seen)-1] != step {
				seen = append(seen, step)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(seen, ", ")
	}
	if got := watch(); !strings.HasPrefix(got, "resolve, layer fetch, ") || !strings.HasSuffix(got, "layer unpack, layer commit, layer done, commit, done") {
		t.Error(got)
	}
	if got := watch(); got != "resolve, layer exists, commit, done" {
		t.Error(got)
	}
}

// Layers that name no parents take them from the layers below, each in its own
// chain.
func TestDependentLayers(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Form: Folder})
	base1 := imagetest.NewLayer(entry{Name: "opt/", Mode: 0o750}, entry{Name: "lib/"})
	base2 := imagetest.NewLayer(entry{Name: "opt/", Mode: 0o700}, entry{Name: "usr/"}, entry{Name: "usr/lib/"}, entry{Name: "lib", Link: "usr/lib"})
	app := imagetest.NewLayer(entry{Name: "opt/app", Body: "app"}, entry{Name: "lib/app.so", Body: "so"})
	top := imagetest.NewLayer(entry{Name: "h", Link: "opt/app", Type: '1'})
	push(t, r, "one:1", imagetest.Image{Layers: []imagetest.Layer{base1, app, top}})
	push(t, r, "two:1", imagetest.Image{Layers: []imagetest.Layer{base2, app, top}})
	push(t, r, "bare:1", imagetest.Image{Layers: []imagetest.Layer{app}})
	for ref, want := range map[string]struct {
		mode fs.FileMode
		so   string
	}{"one:1": {0o750, "lib/app.so"}, "two:1": {0o700, "usr/lib/app.so"}, "bare:1": {0o755, "lib/app.so"}} {
		img := pullOK(t, s, r.Host+"/"+ref)
		rec := s.idx.Images[img.Digest]
		diff := s.layers.Diff(rec.Layers[min(1, len(rec.Layers)-1)].Key)
		st, err := os.Stat(filepath.Join(diff, "opt"))
		if err != nil || st.Mode().Perm() != want.mode {
			t.Error(ref, st.Mode(), err)
		}
		if _, err := os.Stat(filepath.Join(diff, want.so)); err != nil {
			t.Error(ref, err)
		}
		if len(rec.Layers) == 3 {
			b, err := os.ReadFile(filepath.Join(s.layers.Diff(rec.Layers[2].Key), "h"))
			if err != nil || string(b) != "app" {
				t.Error(ref, string(b), err)
			}
		}
	}
	if n := len(getRequests(r, digestOf(app))); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	assertClean(t, s)
}

func TestOpenCleansAndLocks(t *testing.T) {
	r, root := newRegistry(t), t.TempDir()
	push(t, r, "app:1", oneFile("f", "1"))
	s := newStore(t, Options{Root: root})
	digest := pullOK(t, s, r.Host+"/app:1").Digest
	if _, err := Open(Options{Root: root}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Error(err)
	}
	child, err := unix.Dup(int(s.lock.Fd())) // as one that is just being started has it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	s.Close()
	for _, junk := range []string{"blobs/tmp/x", "layers/tmp/y/diff/z", "images/leases/.tmp-a", "images/index.json.tmp"} {
		path := filepath.Join(root, junk)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "images/leases/cut"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, Options{Root: root})
	if ids, err := s.Leases(); err != nil || len(ids) != 0 {
		t.Error(ids, err)
	}
	assertClean(t, s)
	if _, err := s.Get(digest); err != nil {
		t.Error(err)
	}
	if _, err := Open(Options{}); err == nil {
		t.Error("no root")
	}
}
