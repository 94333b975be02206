package image

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that is killed again and again while it pulls gets further each
// time: what has come of a blob is not fetched again.
func TestKilledPullGoesOn(t *testing.T) {
	r, root := newRegistry(t), t.TempDir()
	body := noise(24 << 20)
	img := oneFile("f", body)
	push(t, r, "app:1", img)
	digest := digestOf(img.Layers[0])
	size := int64(len(img.Layers[0].Blob()))
	f := newFront(t, r)
	rnd := rand.New(rand.NewPCG(7, uint64(os.Getpid())))
	for range 3 {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
		child.Env = append(os.Environ(), crashEnv+"="+root, crashEnv+"_REF="+f.Host+"/app:1")
		log := filepath.Join(root, "blobs/partial", strings.TrimPrefix(digest, "sha256:")+".log")
		before := noted(log)
		stopAt := f.of(digest).served + 3<<20 + rnd.Int64N(2<<20)
		f.mu.Lock()
		f.hold = func(q *http.Request, d string, served int64) {
			if d == digest && served >= stopAt {
				<-q.Context().Done()
			}
		}
		f.mu.Unlock()
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		for n := 0; noted(log) < before+1<<20; n++ {
			if n > 60_000 {
				t.Fatalf("the child fetches nothing; %d bytes are there, before %d", noted(log), before)
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
	}
	f.mu.Lock()
	f.hold = nil
	f.mu.Unlock()
	s := newStore(t, Options{Root: root, Form: Folder})
	missing := s.blobs.Missing(digest, size)
	served := f.of(digest).served
	if missing > size-2<<20 {
		t.Errorf("%d of %d bytes are still missing", missing, size)
	}
	pulled := pullOK(t, s, f.Host+"/app:1")
	if last := f.of(digest).served - served; last != missing {
		t.Errorf("%d bytes fetched, %d were missing", last, missing)
	}
	b, err := os.ReadFile(filepath.Join(s.layers.Diff(s.idx.Images[pulled.Digest].Layers[0].Key), "f"))
	if err != nil || string(b) != body {
		t.Error(len(b), err)
	}
	assertClean(t, s)
	assertNoPartials(t, s)
}

// noted is how far a download is by its log, which may not be there. It is fetched in
// one piece, as it is too small to be split.
func noted(path string) (to int64) {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		var from, end int64
		if n, _ := fmt.Sscanf(line, "%d %d\n", &from, &end); n == 2 {
			to = max(to, end)
		}
	}
	return to
}
