package integration

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
	"github.com/wherry-run/wherry/supervisor/api"
)

// noise is text that does not compress, the same for the same seed.
func noise(seed uint64, n int) string {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	src.Read(b)
	return string(b)
}

// partials lists what pulls left of blobs and layers that are not whole.
func partials(t *testing.T, h *harness.Host) (l []string) {
	t.Helper()
	for _, dir := range []string{"/blobs/partial", "/blobs/tmp", "/layers/tmp"} {
		err := filepath.WalkDir(h.Root+dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && p != h.Root+dir {
				l = append(l, p)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// TestFaultyNetwork: what networks and registries do to Debian's registry.
func TestFaultyNetwork(t *testing.T) {
	needsRoot(t)
	r := harness.StartRegistry(t)
	h := harness.StartHost(t)
	blob := func(r imagetest.Rule) imagetest.Rule {
		r.Path = "/blobs/"
		return r
	}
	for i, c := range []struct {
		name  string
		rules []imagetest.Rule
		fails []string // what the first pull says; empty: it works
	}{
		{"busy", []imagetest.Rule{{Status: 429, RetryAfter: "1", Times: 2}}, nil},
		{"busy-blobs", []imagetest.Rule{blob(imagetest.Rule{Status: 429, RetryAfter: "1", Times: 1})}, nil},
		{"sick", []imagetest.Rule{{Status: 500, Times: 2}, blob(imagetest.Rule{Status: 503, Times: 2})}, nil},
		{"reset", []imagetest.Rule{
			blob(imagetest.Rule{Reset: true, After: 1, Times: 1}), blob(imagetest.Rule{Reset: true, After: 70_000, Times: 2}),
			blob(imagetest.Rule{Reset: true, Times: 1}), {Path: "/manifests/", Reset: true, After: 30, Times: 1}}, nil},
		{"no-ranges", []imagetest.Rule{blob(imagetest.Rule{Reset: true, After: 400_000, Times: 2}), blob(imagetest.Rule{IgnoreRange: true})}, nil},
		{"trickle", []imagetest.Rule{blob(imagetest.Rule{Every: 3 * time.Millisecond, Piece: 10_000})}, nil},
		{"short", []imagetest.Rule{blob(imagetest.Rule{Short: 10, Times: 2})}, nil},
		{"wrong", []imagetest.Rule{blob(imagetest.Rule{Wrong: []int64{5}})}, []string{"verify", "expected sha256:", "got sha256:"}},
		{"cut", []imagetest.Rule{blob(imagetest.Rule{Cut: 10})}, []string{"bytes"}},
		{"added", []imagetest.Rule{blob(imagetest.Rule{Add: "more"})}, []string{"bytes"}},
		{"wrong-manifest", []imagetest.Rule{{Path: "/manifests/", Cut: 40}}, []string{"resolve"}},
		{"gone", []imagetest.Rule{blob(imagetest.Rule{Status: 404})}, []string{"does not have blob"}},
		{"always-sick", []imagetest.Rule{blob(imagetest.Rule{Status: 502})}, []string{"502"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := before(t, r.Addr)
			for _, rule := range c.rules {
				p.Do(rule)
			}
			img := small(t, c.name+"\n")
			img.Layers = append(img.Layers, imagetest.NewLayer(imagetest.Entry{Name: "noise", Body: noise(uint64(i), 1<<20)}))
			r.Make(t, c.name+":1", img)
			ref := p.Host + "/" + c.name + ":1"
			if len(c.fails) > 0 {
				h.Fails(1, append(c.fails, c.name+":1"), "pull", "-q", ref)
				if out := h.OK("image", "list", "-q"); strings.Contains(out, ref) {
					t.Errorf("the image is listed:\n%s", out)
				}
				p.Mend()
			}
			h.OK("pull", "-q", ref)
			says(t, h, ref, c.name)
		})
	}
	if l := partials(t, h); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestPullSurvivesTheDaemon: after a kill -9 in the middle of a large image the
// next pull goes on with what has come.
func TestPullSurvivesTheDaemon(t *testing.T) {
	needsRoot(t)
	const size = 48 << 20
	r := harness.StartRegistry(t)
	p := before(t, r.Addr)
	img := small(t, "big\n")
	for i := range 3 {
		img.Layers = append(img.Layers, imagetest.Layer{Tar: imagetest.Archive(imagetest.Entry{Name: fmt.Sprintf("noise%d", i), Body: noise(100+uint64(i), size/3)}), Compression: imagetest.None})
	}
	r.Make(t, "big:1", img)
	ref := p.Host + "/big:1"
	h := harness.StartHost(t)
	for round, want := range []int64{size / 4, size / 2, size * 3 / 4} {
		p.Do(imagetest.Rule{Path: "/blobs/", Every: 20 * time.Millisecond, Piece: 64 << 10}) // it must not be over before it is looked at
		h.OK("pull", "-d", ref)
		harness.Eventually(t, 30*time.Second, fmt.Sprintf("%d bytes have come", want), func() bool {
			all, err := h.Client().Operations(context.Background())
			if err != nil || len(all) == 0 {
				t.Fatalf("round %d: the pull is over: %v, %v", round, all, err)
			}
			return all[0].Done >= want
		})
		h.KillDaemon()
		p.Mend()
		h.Start()
		if out := h.OK("image", "list", "-q"); out != "" {
			t.Errorf("half an image is listed: %s", out)
		}
	}
	harness.Eventually(t, 10*time.Second, "the proxy's requests end", func() bool { return p.Bytes("/blobs/") > size*3/4 })
	came := p.Bytes("/blobs/")
	h.OK("pull", "-q", ref)
	says(t, h, ref, "big")
	last, all := p.Bytes("/blobs/")-came, p.Bytes("/blobs/")
	t.Logf("%d bytes served for an image of about %d, the last pull fetched %d", all, size, last)
	// What was on its way, or not yet on the disk, at each kill is fetched again.
	if last > size/2 || all > size+size/2 {
		t.Errorf("%d bytes served, %d of them to the last pull: it did not resume", all, last)
	}
	if l := partials(t, h); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestFiftyPulls: images that share layers, over a network that resets connections:
// all come, and no blob comes twice.
func TestFiftyPulls(t *testing.T) {
	needsRoot(t)
	r := harness.StartRegistry(t)
	p := before(t, r.Addr)
	rnd := rand.New(rand.NewPCG(3, 4))
	layers := []imagetest.Layer{tools(t)}
	for i := range 11 {
		layers = append(layers, imagetest.NewLayer(imagetest.Entry{Name: fmt.Sprintf("f%d", i), Body: noise(200+uint64(i), 100_000+150_000*i)}))
	}
	const images = 11
	digests := map[string]string{}
	for i := range images {
		img := imagetest.Image{Config: v1.Config{Cmd: []string{fmt.Sprint(i)}}, Layers: []imagetest.Layer{layers[0]}}
		for _, n := range rnd.Perm(len(layers) - 1)[:4] {
			img.Layers = append(img.Layers, layers[n+1])
		}
		ref := fmt.Sprintf("app%d:1", i)
		digests[ref] = r.Make(t, ref, img)
	}
	// At most three resets a blob: more in a row than five end a pull, rightly.
	resets := map[string]int{}
	for n := range 60 {
		p.Do(imagetest.Rule{Path: "/blobs/", Reset: true, After: rnd.Int64N(1 << uint(8+n%13)), Times: 1, Match: func(q *http.Request) bool {
			digest := filepath.Base(q.URL.Path)
			if resets[digest] >= 3 || rnd.IntN(3) == 0 {
				return false
			}
			resets[digest]++
			return true
		}})
	}
	h := harness.StartHost(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ref := fmt.Sprintf("app%d:1", i%images)
			img, err := h.Client().Pull(context.Background(), api.PullRequest{Ref: p.Host + "/" + ref, Policy: "always"}, nil, nil)
			if err != nil || img.Digest != digests[ref] {
				t.Errorf("%s: %v, %s", ref, err, img.Digest)
			}
		})
	}
	wg.Wait()
	type sum struct{ whole, broken int64 }
	got := map[string]*sum{}
	for _, e := range p.Log("/blobs/") {
		digest := filepath.Base(e.Path)
		if got[digest] == nil {
			got[digest] = &sum{}
		}
		if e.Whole {
			got[digest].whole += e.Bytes
		} else {
			got[digest].broken += e.Bytes
		}
	}
	for digest, s := range got {
		info, err := os.Stat(h.Root + "/blobs/sha256/" + strings.TrimPrefix(digest, "sha256:"))
		if err != nil {
			t.Error(err)
			continue
		}
		if s.whole > info.Size() {
			t.Errorf("%s has %d bytes, and %d were served in whole answers", digest, info.Size(), s.whole)
		}
	}
	broken := 0
	for _, n := range resets {
		broken += n
	}
	if broken < 10 {
		t.Errorf("only %d connections were reset", broken)
	}
	if l := partials(t, h); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
	for _, ref := range slices.Sorted(maps.Keys(digests)) {
		h.OK("run", "--rm", "--net", "none", "--pull", "never", p.Host+"/"+ref, "/bin/sh", "-c", "exit 0")
	}
}
