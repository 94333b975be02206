package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

// bigImage has one layer that is larger than the buffers on its way.
func bigImage() (imagetest.Image, imagetest.Layer) {
	l := imagetest.NewLayer(entry{Name: "f", Body: noise(1 << 20)})
	return imagetest.Image{Layers: []imagetest.Layer{l}}, l
}

// TestRegistryFaults: what a registry may do wrong, what the error says, and
// that a later pull works.
func TestRegistryFaults(t *testing.T) {
	img, l := bigImage()
	blob := "/blobs/" + digestOf(l)
	for _, c := range []struct {
		name  string
		fault imagetest.Fault
		is    error
		want  []string
	}{
		{"wrong bytes", imagetest.Fault{Path: blob, Corrupt: true}, ErrCorrupt, []string{"verify " + digestOf(l), "expected " + digestOf(l) + ", got sha256:"}},
		{"too few bytes", imagetest.Fault{Path: blob, Truncate: 1000}, ErrCorrupt, []string{"verify " + digestOf(l), "bytes"}},
		{"too many bytes", imagetest.Fault{Path: blob, Replace: func(b []byte) []byte { return append(b, "more"...) }}, ErrCorrupt, []string{"verify"}},
		{"other content of the same size", imagetest.Fault{Path: blob, Replace: func(b []byte) []byte { return make([]byte, len(b)) }}, ErrCorrupt, []string{"verify"}},
		{"blob away", imagetest.Fault{Path: blob, Status: 404}, ErrNotFound, []string{"fetch " + digestOf(l), "does not have blob"}},
		{"always cut", imagetest.Fault{Path: blob, CutAfter: 1000}, nil, []string{"fetch " + digestOf(l)}},
		{"always busy", imagetest.Fault{Path: blob, Status: 503}, ErrUnavailable, []string{"fetch", "answers 503 Service Unavailable: broken on purpose"}},
		{"rate limit", imagetest.Fault{Path: "/manifests/", Status: 429}, ErrUnavailable, []string{"resolve", "too many requests"}},
		{"forbidden", imagetest.Fault{Path: "/manifests/", Status: 403}, ErrDenied, []string{"resolve", "access denied"}},
		{"down", imagetest.Fault{Status: 500}, ErrUnavailable, []string{"resolve", "answers 500"}},
		{"manifest is no manifest", imagetest.Fault{Path: "/manifests/", Replace: func([]byte) []byte { return []byte("<html>") }}, nil, []string{"resolve"}},
		{"manifest is huge", imagetest.Fault{Path: "/manifests/", Replace: func([]byte) []byte { return make([]byte, 4<<20+1) }}, nil, []string{"resolve", "larger than 4.0 MiB"}},
		{"old manifest", imagetest.Fault{Path: "/manifests/", Replace: func([]byte) []byte { return []byte(`{"schemaVersion":1}`) },
			Header: func(h http.Header) { h.Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+json") }}, nil, []string{"not supported"}},
		{"an artifact", imagetest.Fault{Path: "/manifests/", Replace: func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "application/vnd.oci.image.config.v1+json", "application/vnd.helm.config.v1+json", 1))
		}}, nil, []string{"not a container image", "helm"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newRegistry(t), newStore(t, Options{})
			push(t, r, "app:1", img)
			r.Break(c.fault)
			_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{})
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("%v, want %v", err, c.is)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %q", err, want)
				}
			}
			var step *StepError
			if !errors.As(err, &step) {
				t.Errorf("%T is no step", err)
			}
			if all, err := s.List(); err != nil || len(all) != 0 {
				t.Error(all, err)
			}
			assertClean(t, s)
			r.Mend()
			pullOK(t, s, r.Host+"/app:1")
		})
	}
}

func TestNoSuchImageAndNoRegistry(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	_, err := s.Pull(ctx, r.Host+"/none:1", PullOptions{})
	if !errors.Is(err, ErrNotFound) || err.Error() != "resolve "+r.Host+"/none:1: no such image" {
		t.Error(err)
	}
	r.Close()
	_, err = s.Pull(ctx, r.Host+"/none:1", PullOptions{})
	if !errors.Is(err, ErrUnavailable) || err.Error() != "resolve "+r.Host+"/none:1: registry "+r.Host+": connection refused" {
		t.Error(err)
	}
}

func TestWrongManifestForDigest(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	digest := push(t, r, "app:1", oneFile("f", "1"))
	r.Break(imagetest.Fault{Path: "/manifests/", Replace: func(b []byte) []byte { return append(b, ' ') }})
	if _, err := s.Pull(ctx, r.Host+"/app@"+digest, PullOptions{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "expected "+digest) {
		t.Error(err)
	}
}

// A broken connection goes on where it broke; a few errors are nothing to
// speak of.
func TestResume(t *testing.T) {
	img, l := bigImage()
	for name, faults := range map[string][]imagetest.Fault{
		"ranges":         {{Path: "/blobs/" + digestOf(l), CutAfter: 300 << 10, Times: 3}},
		"without ranges": {{Path: "/blobs/" + digestOf(l), CutAfter: 700 << 10, Times: 1}, {Path: "/blobs/" + digestOf(l), NoRanges: true}},
		"5xx then well":  {{Path: "/blobs/", Status: 502, Times: 2}, {Path: "/manifests/", Status: 503, Times: 2}},
		"ping fails":     {{Status: 500, Times: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newRegistry(t), newStore(t, Options{})
			push(t, r, "app:1", img)
			for _, f := range faults {
				r.Break(f)
			}
			pullOK(t, s, r.Host+"/app:1")
			assertClean(t, s)
		})
	}
}

// A config that claims the diff ID of a layer somebody else pulled gets
// nothing: its blob has to unpack to it.
func TestForeignLayerCannotBeClaimed(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	private := pullOKImage(t, r, s, "private:1", oneFile("secret", "s3cret"))
	diffID, err := v1.NewHash(private.Layers[0].DiffID)
	if err != nil {
		t.Fatal(err)
	}
	thief := oneFile("other", "x")
	thief.DiffIDs = []v1.Hash{diffID}
	push(t, r, "thief:1", thief)
	_, err = s.Pull(ctx, r.Host+"/thief:1", PullOptions{})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "verify") || !strings.Contains(err.Error(), "the image's config says "+private.Layers[0].DiffID) {
		t.Error(err)
	}
	assertClean(t, s)
}

func pullOKImage(t *testing.T, r *imagetest.Registry, s *Store, ref string, i imagetest.Image) Image {
	t.Helper()
	push(t, r, ref, i)
	return pullOK(t, s, r.Host+"/"+ref)
}

func TestHostileLayerIsReported(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	push(t, r, "evil:1", oneFile("../../evil", "x"))
	_, err := s.Pull(ctx, r.Host+"/evil:1", PullOptions{})
	if err == nil || !strings.HasPrefix(err.Error(), "unpack sha256:") || !strings.HasSuffix(err.Error(), " of "+r.Host+`/evil:1: entry "../../evil": name contains ".."`) {
		t.Error(err)
	}
	assertClean(t, s)
}

func TestDamagedBlobAndLayerAreMended(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	img := pullOKImage(t, r, s, "app:1", oneFile("f", "1"))
	hex := strings.TrimPrefix(img.Layers[0].Digest, "sha256:")
	path := filepath.Join(s.root, "blobs/sha256", hex)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o400)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.root, "layers", s.idx.Images[img.Digest].Layers[0].Key)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err == nil || !strings.Contains(err.Error(), "pull the image again") {
		t.Error(err)
	}
	pullOK(t, s, r.Host+"/app:1")
	if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
		t.Error(err)
	}
	if b, err := s.blobs.Read(img.Layers[0].Digest); err != nil || len(b) == 0 {
		t.Error(err)
	}
	assertClean(t, s)
}

// gate holds a layer's download until it is opened.
func gate(r *imagetest.Registry, path string) (reached chan struct{}, open func()) {
	reached, wait := make(chan struct{}, 16), make(chan struct{})
	r.Break(imagetest.Fault{Path: path, Before: func(q *http.Request) {
		reached <- struct{}{}
		select {
		case <-wait:
		case <-q.Context().Done():
		}
	}})
	return reached, sync.OnceFunc(func() { close(wait) })
}

// awaitWaiting returns when n pulls wait for layers. One that has failed instead
// must not have the test wait for ever.
func (s *Store) awaitWaiting(t *testing.T, n int) {
	t.Helper()
	for tries := 0; !s.waiting(n); tries++ {
		if tries > 120_000 {
			buf := make([]byte, 1<<20)
			t.Fatalf("there are never %d pulls that wait:\n%s", n, buf[:runtime.Stack(buf, true)])
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
}

func (s *Store) waiting(n int) bool {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	refs := 0
	for _, f := range s.flights.m {
		f.mu.Lock()
		refs += len(f.seats)
		f.mu.Unlock()
	}
	return refs == n
}

// Pulls that need one blob share one download, and the ones that leave do not
// disturb the one that stays.
func TestSharedDownload(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	img, l := bigImage()
	for _, ref := range []string{"a:1", "b:1", "c:1"} {
		img.Config.Cmd = []string{ref}
		push(t, r, ref, img)
	}
	reached, open := gate(r, "/blobs/"+digestOf(l))
	defer open()
	type result struct {
		ref string
		err error
	}
	results := make(chan result, 3)
	leaving, leave := context.WithCancel(ctx)
	for _, ref := range []string{"a:1", "b:1", "c:1"} {
		pctx := ctx
		if ref == "a:1" {
			pctx = leaving
		}
		go func() {
			_, err := s.Pull(pctx, r.Host+"/"+ref, PullOptions{})
			results <- result{ref, err}
		}()
		if ref == "a:1" {
			<-reached // a starts the download, the others join
		}
	}
	s.awaitWaiting(t, 3)
	leave()
	if got := <-results; got.ref != "a:1" || !errors.Is(got.err, context.Canceled) {
		t.Error(got)
	}
	open()
	for range 2 {
		if got := <-results; got.err != nil {
			t.Error(got)
		}
	}
	if n := len(r.Requests("/blobs/"+digestOf(l))) - len(r.Requests("HEAD")); n < 1 || len(getRequests(r, digestOf(l))) != 1 {
		t.Errorf("%d downloads", len(getRequests(r, digestOf(l))))
	}
	assertClean(t, s)
}

func getRequests(r *imagetest.Registry, digest string) []string {
	var got []string
	for _, q := range r.Requests("/blobs/" + digest) {
		if strings.HasPrefix(q, "GET ") {
			got = append(got, q)
		}
	}
	return got
}

func TestCancelLeavesNothing(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	img, l := bigImage()
	push(t, r, "app:1", img)
	reached, open := gate(r, "/blobs/"+digestOf(l))
	defer open()
	cctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(cctx, r.Host+"/app:1", PullOptions{})
		done <- err
	}()
	<-reached
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	assertClean(t, s)
	if keys, _ := s.layers.List(); len(keys) != 0 {
		t.Error(keys)
	}
}

// TestDiskFull pulls into a small file system: the error has the numbers, and
// nothing half done stays.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=3m,nr_inodes=600"); err != nil {
		t.Skipf("cannot mount tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := newRegistry(t)
	small := strings.Repeat("compresses well ", 1<<18) // 4 MiB in a few KiB
	var many []entry
	for i := range 400 {
		many = append(many, entry{Name: "f" + strings.Repeat("x", i%200) + string(rune('a'+i/200)), Body: small[:16<<10]})
	}
	var inodes []entry
	for i := range 700 {
		inodes = append(inodes, entry{Name: fmt.Sprintf("e%d", i)})
	}
	inodes = append(inodes, entry{Name: "rest", Body: noise(100 << 10)})
	for name, c := range map[string]struct {
		img  imagetest.Image
		want string
		left string
	}{
		"blob":        {oneFile("f", noise(4<<20)), "fetch ", "no space left on "},
		"large file":  {oneFile("f", small), `unpack sha256:`, "no space left on "},
		"small files": {imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(many...)}}, `unpack sha256:`, "no space left on "},
		"inodes":      {imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(inodes...)}}, `unpack sha256:`, "no inodes left on "},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Options{Root: root})
			ref := strings.ReplaceAll(name, " ", "-") + ":1"
			push(t, r, ref, c.img)
			_, err := s.Pull(ctx, r.Host+"/"+ref, PullOptions{})
			if !errors.Is(err, ErrNoSpace) || !strings.HasPrefix(err.Error(), c.want) || !strings.Contains(err.Error(), c.left+root) || !strings.Contains(err.Error(), " free") {
				t.Error(err)
			}
			assertClean(t, s)
			if _, err := s.Collect(ctx, GCOptions{}); err != nil {
				t.Error(err)
			}
			pullOKImage(t, r, s, "tiny:1", oneFile("f", "1"))
			s.Close()
		})
	}
}

// TestConfigGone: an image whose config is gone hides no other one, and a pull heals it.
func TestConfigGone(t *testing.T) {
	r := newRegistry(t)
	s := newStore(t, Options{})
	push(t, r, "a:1", imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(imagetest.Files(map[string]string{"f": "a"})...)}})
	push(t, r, "b:1", imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(imagetest.Files(map[string]string{"f": "b"})...)}, Config: v1.Config{User: "b"}})
	broken := pullOK(t, s, r.Host+"/a:1")
	pullOK(t, s, r.Host+"/b:1")
	if err := os.Remove(filepath.Join(s.root, "blobs", "sha256", strings.TrimPrefix(broken.ConfigID, "sha256:"))); err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(); err != nil || len(all) != 2 {
		t.Errorf("%+v %v", all, err)
	}
	if _, err := s.Get(r.Host + "/a:1"); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if _, err := s.Pull(ctx, r.Host+"/a:1", PullOptions{Policy: Never}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	pullOK(t, s, r.Host+"/a:1")
	if _, err := s.Get(r.Host + "/a:1"); err != nil {
		t.Error(err)
	}
}
