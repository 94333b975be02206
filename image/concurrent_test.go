package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

// Fifty pulls at once of images that share layers, from a registry whose
// connections break: all succeed, and no blob is fetched twice.
func TestManyPullsAtOnce(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Root: memoryDir(t), Form: EROFS})
	rnd := rand.New(rand.NewPCG(1, 2))
	var layers []imagetest.Layer
	for i := range 12 {
		layers = append(layers, imagetest.NewLayer(entry{Name: fmt.Sprintf("f%d", i), Body: noise(100_000 + 40_000*i)}))
	}
	digests := map[string]string{}
	for i := range 17 {
		img := imagetest.Image{Config: v1.Config{Cmd: []string{fmt.Sprint(i)}}}
		for _, n := range rnd.Perm(len(layers))[:5] {
			img.Layers = append(img.Layers, layers[n])
		}
		ref := fmt.Sprintf("app%d:1", i)
		digests[ref] = push(t, r, ref, img)
	}
	f := newFront(t, r)
	f.cut = func(_ string, n int) int64 {
		if n >= 3 { // five in a row are too many for a pull
			return -1
		}
		return rnd.Int64N(300_000) // called with f's lock held
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ref := fmt.Sprintf("app%d:1", i%17)
			img, err := s.Pull(ctx, f.Host+"/"+ref, PullOptions{Policy: Always})
			if err != nil || img.Digest != digests[ref] {
				t.Error(ref, err)
			}
		})
	}
	wg.Wait()
	for i, l := range layers {
		b := f.of(digestOf(l))
		if b.requests > 0 && (b.complete != 1 || b.served-b.lost > int64(len(l.Blob()))) {
			t.Errorf("layer %d with %d bytes: %d requests, %d complete, %d bytes, %d of them lost", i, len(l.Blob()), b.requests, b.complete, b.served, b.lost)
		}
	}
	assertClean(t, s)
	assertNoPartials(t, s)
}

func assertNoPartials(t *testing.T, s *Store) {
	t.Helper()
	if left, err := s.blobs.Partials(); err != nil || len(left) > 0 {
		t.Error("partial downloads are left:", left, err)
	}
}

// Two images that say different things about one blob: it is fetched once, and
// only who is right gets it.
func TestOneBlobTwoDiffIDs(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	honest, l := bigImage()
	liar := honest
	liar.DiffIDs = []v1.Hash{descOf("a", 1).Digest}
	push(t, r, "honest:1", honest)
	push(t, r, "liar:1", liar)
	f := newFront(t, r)
	joined := make(chan struct{})
	f.hold = func(q *http.Request, digest string, _ int64) {
		if digest != digestOf(l) {
			return
		}
		select {
		case <-joined:
		case <-q.Context().Done():
		}
	}
	errs := make(chan error, 2)
	for _, ref := range []string{"honest:1", "liar:1"} {
		go func() {
			_, err := s.Pull(ctx, f.Host+"/"+ref, PullOptions{})
			if (ref == "liar:1") != errors.Is(err, ErrCorrupt) {
				err = fmt.Errorf("%s: %w", ref, err)
			} else {
				err = nil
			}
			errs <- err
		}()
	}
	s.awaitWaiting(t, 2)
	close(joined)
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Error(err)
	}
	if b := f.of(digestOf(l)); b.requests != 1 {
		t.Errorf("%d requests", b.requests)
	}
	assertClean(t, s)
}

// When the pull whose registry is asked fails, the others ask theirs.
func TestOthersGoOnWithTheirOwnRegistry(t *testing.T) {
	bad, good, s := newRegistry(t), newRegistry(t), newStore(t, Options{})
	img, l := bigImage()
	push(t, bad, "app:1", img)
	push(t, good, "app:1", img)
	reached, release := make(chan struct{}, 1), make(chan struct{})
	bad.Break(imagetest.Fault{Path: "/blobs/" + digestOf(l), Status: 403, Before: func(*http.Request) {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-release
	}})
	errs := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, bad.Host+"/app:1", PullOptions{})
		errs <- err
	}()
	<-reached
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, good.Host+"/app:1", PullOptions{})
		done <- err
	}()
	s.awaitWaiting(t, 2)
	close(release)
	if err := <-errs; !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	assertClean(t, s)
}

// A pull that is cancelled, wherever it is, returns at once and leaves no
// goroutine, no layer and no claim; the next one goes on with what came.
func TestCancelAtAnyMoment(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Root: memoryDir(t), Form: EROFS})
	var img imagetest.Image
	for i := range 4 {
		img.Layers = append(img.Layers, imagetest.NewLayer(entry{Name: fmt.Sprint(i), Body: noise(3<<20 + i)}))
	}
	push(t, r, "app:1", img)
	f := newFront(t, r)
	before := ours()
	for i := range 12 {
		cctx, cancel := context.WithCancel(ctx)
		var mu sync.Mutex
		left := int64(i) * 1_500_000
		f.mu.Lock()
		f.hold = func(q *http.Request, _ string, _ int64) {
			if cctx.Err() != nil {
				return
			}
			mu.Lock()
			left -= 32 << 10
			stop := left < 0
			mu.Unlock()
			if stop {
				cancel()
			}
		}
		f.mu.Unlock()
		_, err := s.Pull(cctx, f.Host+"/app:1", PullOptions{Progress: func(Progress) {}})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		cancel()
		assertClean(t, s)
		s.room.mu.Lock()
		if len(s.room.claims) > 0 || len(s.room.flying) > 0 {
			t.Error("claims left:", s.room.claims)
		}
		s.room.mu.Unlock()
		for n := 0; ours() > before; n++ {
			if n > 60_000 {
				buf := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, before %d:\n%s", ours(), before, buf[:runtime.Stack(buf, true)])
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) // they are on their way out
		}
		if err == nil {
			break
		}
	}
	f.mu.Lock()
	f.hold = nil
	f.mu.Unlock()
	if _, err := s.Pull(ctx, f.Host+"/app:1", PullOptions{}); err != nil {
		t.Error(err)
	}
	assertNoPartials(t, s)
}

// ours counts the goroutines that run code of this module, but for tests and
// their registries.
func ours() (n int) {
	buf := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "wherry/image") && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "net/http.(*conn).serve") {
			n++
		}
	}
	return n
}

// A config is fetched once for all pulls that need it, and not for longer than
// they do.
func TestConfigIsShared(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	img, l := bigImage()
	push(t, r, "app:1", img)
	reached, open := gate(r, "/blobs/"+digestOf(l))
	defer open()
	errs := make(chan error, 5)
	for i := range cap(errs) {
		go func() {
			_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{Policy: Always})
			errs <- err
		}()
		if i == 0 {
			<-reached // the config of the first one is there, and not stored yet
		}
	}
	s.awaitWaiting(t, cap(errs))
	open()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	all := r.Requests("GET /v2/app/blobs/")
	if n := len(all) - len(getRequests(r, digestOf(l))); n != 1 {
		t.Errorf("%d configs fetched: %q", n, all)
	}
	if n := len(s.flights.configs.m); n != 0 {
		t.Errorf("%d configs are kept", n)
	}
}
