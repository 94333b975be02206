package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/disk"
)

// disked gives the store a file system of its own: what the root takes is in
// use, and total bytes there are.
func disked(s *Store, total int64) {
	s.statfs = func(string) (disk.Stat, error) {
		t, err := disk.Measure(ctx, s.root)
		return disk.Stat{Total: total, Used: t.Bytes, Free: total - t.Bytes, Inodes: 1 << 20, InodesFree: 1<<20 - t.Files}, err
	}
	s.reserve = -1
}

// clock lets the store's time pass by hand.
type clock struct{ at time.Time }

func withClock(s *Store) *clock {
	c := &clock{time.Now()}
	s.now = func() time.Time { return c.at }
	return c
}

// pulled makes images a:1, b:1, ... that take about 128 KiB each, blob and layer
// together, and were last used a day apart, a first.
func pulled(t *testing.T, r *imagetest.Registry, s *Store, names ...string) map[string]Image {
	t.Helper()
	c := withClock(s)
	now := c.at
	all := map[string]Image{}
	for i, name := range names {
		body := name + noise(64<<10)
		img := pullOKImage(t, r, s, name+":1", oneFile("f", body))
		c.at = now.AddDate(0, 0, i-len(names))
		if _, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Release("x"); err != nil {
			t.Fatal(err)
		}
		rec := s.idx.Images[img.Digest]
		rec.PulledAt = now.AddDate(0, -1, 0)
		s.idx.Images[img.Digest] = rec
		all[name] = img
	}
	c.at = now
	return all
}

// there lists the images that are there, by the first part of their names.
func there(t *testing.T, s *Store) string {
	t.Helper()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, img := range list {
		base := filepath.Base(img.Names[0])
		names = append(names, base[:len(base)-2])
	}
	return strings.Join(names, " ")
}

func TestCollectByMarks(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	all := pulled(t, r, s, "a", "b", "c", "d")
	used := must(disk.Measure(ctx, s.root)).Bytes
	disked(s, used*10/9) // 90 % are in use
	if res, err := s.Collect(ctx, GCOptions{High: 95, Low: 50}); err != nil || len(res.Images) > 0 || res.Disk.Used < 89 {
		t.Errorf("below High: %+v %v", res, err)
	}
	dry, err := s.Collect(ctx, GCOptions{High: 85, Low: 55, DryRun: true})
	if err != nil || there(t, s) != "a b c d" {
		t.Errorf("dry: %+v %v", dry, err)
	}
	res, err := s.Collect(ctx, GCOptions{High: 85, Low: 55})
	if err != nil || there(t, s) != "c d" || !slices.Equal(res.Images, []string{all["a"].Digest, all["b"].Digest}) || res.Disk.Used > 55 {
		t.Errorf("%+v %v: %s", res, err, there(t, s))
	}
	if !slices.Equal(dry.Images, res.Images) || !slices.Equal(dry.Deleted, res.Deleted) || dry.Freed != res.Freed || !slices.Equal(dry.Untagged, res.Untagged) {
		t.Errorf("not what was foretold:\n%+v\n%+v", dry, res)
	}
	if got := used - must(disk.Measure(ctx, s.root)).Bytes; got < res.Freed-16<<10 || got > res.Freed+16<<10 {
		t.Errorf("%d bytes freed, it says %d", got, res.Freed)
	}
	pullOK(t, s, r.Host+"/a:1")
	assertClean(t, s)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCollectSpares(t *testing.T) {
	r := newRegistry(t)
	var holds []Hold
	var fail error
	s := newStore(t, Options{Holds: func(context.Context) ([]Hold, error) { return holds, fail }})
	all := pulled(t, r, s, "digest", "gone", "leased", "name", "young")
	holds = []Hold{{Digest: all["digest"].Digest, Why: "x"}, {Name: r.Host + "/name:1", Why: "y"}, {Name: "not/here", Why: "z"}, {Name: "N o", Why: "z"}}
	if _, err := s.Prepare(ctx, all["leased"].Digest, "web.1", t.TempDir(), PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	// Used in the last two days is young.
	everything := GCOptions{All: true, MinAge: 36 * time.Hour}
	fail = errors.New("no database")
	if res, err := s.Collect(ctx, everything); err == nil || !strings.Contains(err.Error(), "nothing was deleted: what must stay is not known: no database") || len(res.Images) > 0 {
		t.Error(res, err)
	}
	if _, err := s.Explain(ctx, "digest", everything); err == nil {
		t.Error("explained without knowing")
	}
	fail = nil
	if res, err := s.Collect(ctx, everything); err != nil || there(t, s) != "digest leased name young" || !slices.Equal(res.Images, []string{all["gone"].Digest}) {
		t.Errorf("%+v %v: %s", res, err, there(t, s))
	}
	if err := s.Release("web.1"); err != nil {
		t.Fatal(err)
	}
	withClock(s).at = time.Now().AddDate(0, 0, 3)
	if _, err := s.Collect(ctx, everything); err != nil || there(t, s) != "digest name" {
		t.Errorf("%v: %s", err, there(t, s))
	}
	cctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Collect(cctx, GCOptions{All: true}); !errors.Is(err, context.Canceled) || there(t, s) != "digest name" {
		t.Error(err, there(t, s))
	}
}

// Whoever asks for an image while the holds are being gathered keeps it.
func TestCollectSparesWhatIsAskedFor(t *testing.T) {
	r := newRegistry(t)
	var s *Store
	var ask func()
	s = newStore(t, Options{Holds: func(context.Context) ([]Hold, error) { ask(); return nil, nil }})
	pulled(t, r, s, "got", "other", "pulled")
	ask = func() {
		if _, err := s.Get(r.Host + "/got:1"); err != nil {
			t.Error(err)
		}
		pullOK(t, s, r.Host+"/pulled:1")
	}
	if _, err := s.Collect(ctx, GCOptions{All: true}); err != nil || there(t, s) != "got pulled" {
		t.Error(err, there(t, s))
	}
	ask = func() {}
	if _, err := s.Collect(ctx, GCOptions{All: true}); err != nil || there(t, s) != "" {
		t.Error("kept for ever:", err, there(t, s))
	}
}

func TestExplain(t *testing.T) {
	r := newRegistry(t)
	holds := []Hold{}
	s := newStore(t, Options{Holds: func(context.Context) ([]Hold, error) { return holds, nil }})
	all := pulled(t, r, s, "a", "b")
	disked(s, 1<<30)
	e, err := s.Explain(ctx, r.Host+"/a:1", GCOptions{})
	if err != nil || !e.Stays || e.Image != r.Host+"/a:1" || e.Digest != all["a"].Digest || e.Size < 128<<10 || e.Frees < 128<<10 || e.LastUse.IsZero() ||
		len(e.Reasons) != 3 || e.Reasons[1] != "disk 0 % used, below 85 %" || !strings.HasPrefix(e.Reasons[2], "unused for 2 days: first of 2 to go, frees 1") {
		t.Errorf("%+v %v", e, err)
	}
	if e, err = s.Explain(ctx, all["b"].Digest, GCOptions{All: true}); err != nil || e.Stays || e.Image != r.Host+"/b:1" {
		t.Errorf("%+v %v", e, err)
	}
	if _, err := s.Prepare(ctx, all["a"].Digest, "web.1-7f3k", t.TempDir(), PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	holds = []Hold{{Digest: all["a"].Digest, Why: "revision 3 of unit web"}}
	if e, err = s.Explain(ctx, r.Host+"/a:1", GCOptions{All: true}); err != nil || !slices.Equal(e.Reasons, []string{"container web.1-7f3k uses it", "revision 3 of unit web"}) {
		t.Errorf("%+v %v", e, err)
	}
	if _, err := s.Explain(ctx, "none:1", GCOptions{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestCollectPartials(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	pulled(t, r, s, "a")
	disked(s, 1<<30)
	partial := func(n int, age time.Duration) string {
		path := filepath.Join(s.root, "blobs/partial", hex.EncodeToString(append(make([]byte, 31), byte(n))))
		if err := errors.Join(os.WriteFile(path, make([]byte, 100_000), 0o600), os.WriteFile(path+".log", nil, 0o600),
			os.Chtimes(path, time.Time{}, time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, young := partial(1, partialTTL+time.Hour), partial(2, time.Hour)
	if u, err := s.Usage(ctx); err != nil || u.Partial < 200_000 {
		t.Errorf("%+v %v", u, err)
	}
	if res, err := s.Collect(ctx, GCOptions{}); err != nil || res.Freed < 100_000 || exists(old) || !exists(young) {
		t.Errorf("%+v %v", res, err)
	}
	// They go before the first image does.
	disked(s, must(disk.Measure(ctx, s.root)).Bytes*10/9)
	if res, err := s.Collect(ctx, GCOptions{High: 85, Low: 80}); err != nil || len(res.Images) > 0 || exists(young) || exists(young+".log") {
		t.Errorf("%+v %v", res, err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// When nothing else is left, compressed layers go of which the layer is there.
func TestShed(t *testing.T) {
	r := newRegistry(t)
	s := newStore(t, Options{})
	all := pulled(t, r, s, "a", "b")
	for name, img := range all {
		if _, err := s.Prepare(ctx, img.Digest, "run."+name, t.TempDir(), PrepareOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	disked(s, must(disk.Measure(ctx, s.root)).Bytes*10/9)
	if res, err := s.Collect(ctx, GCOptions{High: 95}); err != nil || len(res.Blobs) > 0 {
		t.Errorf("%+v %v", res, err)
	}
	res, err := s.Collect(ctx, GCOptions{High: 85, Low: 80})
	if err != nil || len(res.Images) > 0 || len(res.Blobs) != 1 || res.Freed < 64<<10 || there(t, s) != "a b" {
		t.Fatalf("%+v %v", res, err)
	}
	disked(s, 1<<30)
	// A pull that needs the layer does not fetch the blob for it.
	shed := res.Blobs[0]
	name := map[string]string{all["a"].Layers[0].Digest: "a", all["b"].Layers[0].Digest: "b"}[shed]
	before := r.Requests("/blobs/" + shed)
	if _, err := s.Pull(ctx, r.Host+"/"+name+":1", PullOptions{Policy: Always}); err != nil {
		t.Error(err)
	}
	if n := r.Requests("/blobs/" + shed); fmt.Sprint(n) != fmt.Sprint(before) {
		t.Error("fetched again:", n)
	}
	if _, err := s.Prepare(ctx, all[name].Digest, "again", t.TempDir(), PrepareOptions{}); err != nil {
		t.Error(err)
	}
	// To save the image it is fetched again.
	if err := s.SaveFolder(ctx, t.TempDir(), []string{r.Host + "/" + name + ":1"}); err != nil {
		t.Error(err)
	}
	if n := r.Requests("/blobs/" + shed); len(n) != len(before)+1 {
		t.Error("not fetched again:", n)
	}
	if n, err := s.blobs.Shed(shed); n == 0 || err != nil {
		t.Error(n, err)
	}
	// With the layer goes what was known of the blob.
	if err := errors.Join(s.Release("again"), s.Release("run."+name)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, all[name].Digest); err != nil {
		t.Error(err)
	}
	if d := s.blobs.DiffID(shed); d != "" {
		t.Error("still known:", d)
	}
	pullOK(t, s, r.Host+"/"+name+":1")
	if _, ok := s.blobs.Size(shed); !ok {
		t.Error("the blob was not fetched with the layer")
	}
}

// A pull that needs what is being deleted waits for that, and fetches it anew.
func TestPinWaitsForDeletion(t *testing.T) {
	s := newStore(t, Options{})
	begun, end := make(chan struct{}), make(chan struct{})
	gone := make(chan bool, 1)
	go func() {
		ok, _ := s.doom("blob", func() (bool, error) { return s.pins["blob"] > 0, nil }, func() error {
			close(begun)
			<-end
			return nil
		})
		gone <- ok
	}()
	<-begun
	pinned := make(chan struct{})
	go func() {
		s.pinNames([]string{"other", "blob"})
		close(pinned)
	}()
	for { // until the pull has pinned it
		s.mu.Lock()
		n := s.pins["blob"]
		s.mu.Unlock()
		if n > 0 {
			break
		}
	}
	select {
	case <-pinned:
		t.Error("did not wait")
	default:
	}
	close(end)
	<-pinned
	if !<-gone {
		t.Error("not deleted")
	}
	if ok, err := s.doom("blob", func() (bool, error) { return s.pins["blob"] > 0, nil }, func() error { return nil }); ok || err != nil {
		t.Error("deleted although it is pinned", err)
	}
	s.unpinNames([]string{"other", "blob"})
}

// Collections, pulls, starts and removals at the same time: nothing that is
// being pulled or started is deleted, and all that is said to be there is.
func TestCollectRaces(t *testing.T) {
	r := newRegistry(t)
	var mu sync.Mutex
	held := map[string]int{}
	hold := func(ref string, n int) {
		mu.Lock()
		defer mu.Unlock()
		held[ref] += n
	}
	s := newStore(t, Options{Holds: func(context.Context) ([]Hold, error) {
		mu.Lock()
		defer mu.Unlock()
		var list []Hold
		for ref, n := range held {
			if n > 0 {
				list = append(list, Hold{Name: ref, Why: "it is being started"})
			}
		}
		return list, nil
	}})
	shared := imagetest.NewLayer(entry{Name: "base", Body: noise(5000)})
	const images = 4
	for i := range images {
		push(t, r, fmt.Sprintf("app%d:1", i), imagetest.Image{Layers: []imagetest.Layer{shared, imagetest.NewLayer(entry{Name: "own", Body: fmt.Sprint(i)})}})
	}
	stop := make(chan struct{})
	var tidy, starts sync.WaitGroup
	until := func(f func() error) {
		tidy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	until(func() error { _, err := s.Collect(ctx, GCOptions{All: true}); return err })
	until(func() error { _, err := s.Usage(ctx); return err })
	until(func() error {
		_, err := s.Explain(ctx, r.Host+"/app0:1", GCOptions{})
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		return err
	})
	for w := range 6 {
		starts.Go(func() {
			for n := range 15 {
				ref := fmt.Sprintf("%s/app%d:1", r.Host, (w+n)%images)
				if w == 5 { // somebody who removes what he can
					if _, err := s.Remove(ctx, r.Host+"/app3:1"); err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrNotFound) {
						t.Error(err)
					}
					continue
				}
				if (w+n)%images == 3 {
					continue // may be removed at any time
				}
				hold(ref, 1)
				if err := startOnce(t, s, ref, fmt.Sprintf("run.%d", w)); err != nil {
					t.Error(err)
				}
				hold(ref, -1)
			}
		})
	}
	starts.Wait()
	close(stop)
	tidy.Wait()
	if _, err := s.Collect(ctx, GCOptions{All: true}); err != nil || there(t, s) != "" {
		t.Error(err, there(t, s))
	}
	if u, err := s.Usage(ctx); err != nil || u.Blobs != 0 || u.Layers != 0 {
		t.Errorf("left: %+v %v", u, err)
	}
	assertClean(t, s)
}

// startOnce pulls, takes a lease, and looks at the files.
func startOnce(t *testing.T, s *Store, ref, run string) error {
	img, err := s.Pull(ctx, ref, PullOptions{})
	if err != nil {
		return err
	}
	if img, err = s.Get(ref); err != nil {
		return err
	}
	if _, err := s.Prepare(ctx, img.Digest, run, t.TempDir(), PrepareOptions{}); err != nil {
		return err
	}
	s.mu.Lock()
	layers := s.idx.Images[img.Digest].Layers
	s.mu.Unlock()
	for _, l := range layers {
		if _, ok := s.layers.Get(l.Key); !ok {
			err = errors.Join(err, fmt.Errorf("%s: layer %s is gone under its lease", run, l.Key))
		}
	}
	return errors.Join(err, s.Release(run))
}

func TestUsage(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	shared := imagetest.NewLayer(entry{Name: "base", Body: noise(100_000)})
	one := pullOKImage(t, r, s, "one:1", imagetest.Image{Layers: []imagetest.Layer{shared}})
	two := pullOKImage(t, r, s, "two:1", imagetest.Image{Layers: []imagetest.Layer{shared, imagetest.NewLayer(entry{Name: "own", Body: noise(200_000)})}})
	dir := t.TempDir()
	if _, err := s.Prepare(ctx, two.Digest, "web.1", dir, PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "upper", "f"), make([]byte, 50_000), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage(ctx)
	if err != nil || len(u.Images) != 2 {
		t.Fatal(u, err)
	}
	between := func(what string, n, from, to int64) {
		t.Helper()
		if n < from || n > to {
			t.Errorf("%s: %d, want %d to %d", what, n, from, to)
		}
	}
	if u.Images[0].Digest != two.Digest || u.Images[1].Digest != one.Digest || !slices.Equal(u.Images[0].Names, two.Names) {
		t.Errorf("%+v", u.Images)
	}
	between("two", u.Images[0].Size, 600_000, 700_000)
	between("two alone", u.Images[0].Unique, 400_000, 460_000)
	between("one", u.Images[1].Size, 200_000, 250_000)
	between("one alone", u.Images[1].Unique, 0, 10_000)
	between("blobs", u.Blobs, 300_000, 340_000)
	between("layers", u.Layers, 300_000, 370_000)
	between("writable", u.Leases["web.1"], 50_000, 70_000)
	// Layers are measured once.
	s2 := s.idx.LoadSizes()
	if len(s2) != 2 {
		t.Error(s2)
	}
}
