package powercut

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/image/imagetest"
)

// states is how many states are judged for each form of layers.
const states = 100

// process is a worker.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func startWorker(t *testing.T) *process {
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), workerEnv+"=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		in.Close()
		if err := p.cmd.Wait(); err != nil {
			t.Error("worker:", err)
		}
	})
	return p
}

func (p *process) ask(r request) answer {
	p.t.Helper()
	var a answer
	if err := p.in.Encode(r); err != nil {
		p.t.Fatal("worker:", err)
	}
	if err := p.out.Decode(&a); err != nil {
		p.t.Fatal("worker:", err)
	}
	return a
}

func (p *process) must(r request) answer {
	p.t.Helper()
	a := p.ask(r)
	if a.Err != "" {
		p.t.Fatalf("%s: %s", r.Do, a.Err)
	}
	return a
}

// milestone is the end of a step of the workload.
type milestone struct {
	at    int               // length of the log
	names map[string]string // what the store had then
	do    string
}

func noise(seed byte, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// content is an image of some layers, the first of which others share.
func content(seed byte) imagetest.Image {
	files := []imagetest.Entry{{Name: "lib/"}, {Name: "lib/shared", Body: noise(0, 200_000)}}
	var many []imagetest.Entry
	for i := range 60 {
		many = append(many, imagetest.Entry{Name: fmt.Sprintf("opt/%d", i), Body: noise(seed, 500+97*i)})
	}
	return imagetest.Image{Layers: []imagetest.Layer{
		imagetest.NewLayer(files...), imagetest.NewLayer(many...),
		imagetest.NewLayer(imagetest.Entry{Name: "lib/.wh.shared"}, imagetest.Entry{Name: "lib/own", Body: noise(seed+1, 700_000)}),
	}}
}

func push(t *testing.T, r *imagetest.Registry, ref string, seed byte) {
	t.Helper()
	if _, err := r.Push(ref, content(seed)); err != nil {
		t.Fatal(err)
	}
}

// archive is a docker archive of an image of the registry.
func archive(t *testing.T, r *imagetest.Registry, ref string) string {
	t.Helper()
	from, err := name.ParseReference(r.Host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(from)
	if err != nil {
		t.Fatal(err)
	}
	to, _ := name.NewTag(r.Host + "/loaded:1")
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := tarball.WriteToFile(path, to, img); err != nil {
		t.Fatal(err)
	}
	return path
}

// record runs the workload and returns its milestones.
func record(t *testing.T, p *process, m *medium, device, dir string, form image.Form) (steps []milestone, refs []string) {
	r := imagetest.Start()
	t.Cleanup(r.Close)
	for i, ref := range []string{"a:1", "b:1", "c:1", "d:1"} {
		push(t, r, ref, byte(10*i+1))
	}
	at := func(ref string) string { return r.Host + "/" + ref }
	m.mu.Lock()
	m.logging = true
	m.mu.Unlock()
	step := func(q request) {
		t.Helper()
		q.Device, q.Dir, q.Form, q.Boot = device, dir, form, "first"
		a := p.must(q)
		steps = append(steps, milestone{m.position(), a.Names, q.Do + " " + strings.Join(q.Refs, " ")})
	}
	step(request{Do: "boot"})
	step(request{Do: "pull", Refs: []string{at("a:1")}})
	step(request{Do: "prepare", Refs: []string{at("a:1")}})
	step(request{Do: "pull", Refs: []string{at("b:1"), at("c:1")}})
	step(request{Do: "repair"})
	push(t, r, "b:1", 91)
	step(request{Do: "pull", Refs: []string{at("b:1")}}) // the name moves
	step(request{Do: "remove", Refs: []string{at("c:1")}})
	step(request{Do: "load", Path: archive(t, r, "d:1")})
	step(request{Do: "collect"})
	step(request{Do: "pull", Refs: []string{at("d:1"), at("c:1")}})
	step(request{Do: "remove", Refs: []string{at("d:1")}})
	p.must(request{Do: "halt"})
	m.mu.Lock()
	m.logging = false
	m.mu.Unlock()
	return steps, []string{at("a:1"), at("b:1"), at("c:1"), at("d:1")}
}

// allowed says what a name may stand for when the power goes at a place of the
// log: what it did after the last step that was done, or will after the next one.
func allowed(steps []milestone, cut int) (all map[string][]string, step string) {
	all = map[string][]string{}
	next := slices.IndexFunc(steps, func(m milestone) bool { return m.at > cut })
	if next < 0 {
		next = len(steps) - 1
	}
	for _, m := range steps {
		for name := range m.names {
			all[name] = nil
		}
	}
	for name := range all {
		for _, k := range []int{next - 1, next} {
			digest := ""
			if k >= 0 {
				digest = steps[k].names[name]
			}
			all[name] = append(all[name], digest)
		}
	}
	return all, steps[next].do
}

// survivors picks what of the writes since the last flush has reached the disk:
// everything, nothing, or any part of it.
func survivors(rnd *rand.Rand, since []event, m *medium) (kind string) {
	m.changed = map[int64]*[piece]byte{}
	share := []float64{1, 1, 0, 0.1, 0.5, 0.9}[rnd.IntN(6)]
	torn := rnd.IntN(2) == 0
	for _, e := range since {
		if e.flush() {
			continue
		}
		if !torn {
			if rnd.Float64() < share {
				m.put(e.data, e.at)
			}
			continue
		}
		for from := int64(0); from < int64(len(e.data)); from += piece {
			if rnd.Float64() < share {
				m.put(e.data[from:min(from+piece, int64(len(e.data)))], e.at+from)
			}
		}
	}
	return fmt.Sprintf("%.0f %% of %d events, torn %v", 100*share, len(since), torn)
}

func TestPowerCut(t *testing.T) {
	for _, form := range []image.Form{image.Folder, image.EROFS} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel() // most of the time goes into waiting for flushes
			testPowerCut(t, form)
		})
	}
}

func testPowerCut(t *testing.T, form image.Form) {
	fresh := filepath.Join(t.TempDir(), "fresh")
	if out, err := exec.Command("truncate", "-s", fmt.Sprint(diskSize), fresh).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", fresh).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s", err, out)
	}
	// Mapped for longer than there is the disk: whoever looks at every new or changed block device may still read of it.
	recorder, base := &medium{base: imageOf(t, fresh)}, imageOf(t, fresh)
	disk, device := newDisk(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := startWorker(t)
	disk.insert(recorder)
	steps, refs := record(t, p, recorder, device, dir, form)
	log := recorder.log
	flushes, bytes := 0, 0
	for _, e := range log {
		bytes += len(e.data)
		if e.flush() {
			flushes++
		}
	}
	t.Logf("%d events, %d flushes, %d MiB", len(log), flushes, bytes>>20)
	if flushes < len(steps) {
		t.Errorf("only %d flushes have reached the disk in %d steps", flushes, len(steps))
	}

	seed := uint64(os.Getpid())
	rnd := rand.New(rand.NewPCG(seed, 1))
	first := steps[0].at / 2 // half of the first boot: there is a file system by then
	var cuts []int
	for range states {
		cuts = append(cuts, first+rnd.IntN(len(log)-first))
	}
	slices.Sort(cuts)
	done, bad := 0, 0
	for i, cut := range cuts {
		flushed := done
		for k := done; k < cut; k++ {
			if log[k].flush() {
				flushed = k
			}
		}
		for ; done < flushed; done++ {
			copy(base[log[done].at:], log[done].data)
		}
		m := &medium{base: base}
		kind := survivors(rnd, log[flushed:cut], m)
		disk.insert(m)
		q := request{Device: device, Dir: dir, Form: form, Boot: fmt.Sprintf("after-%d", i), Refs: refs}
		var step string
		q.Allowed, step = allowed(steps, cut)
		q.Harmed = strings.HasPrefix(step, "repair")
		q.Do = "boot"
		a := p.ask(q)
		opened := a.Log
		if a.Err == "" {
			q.Do = "judge"
			a = p.ask(q)
		}
		if a.Err != "" {
			bad++
			t.Errorf("seed %d: power cut at event %d of %d (%s), during %q: %s\n%s", seed, cut, len(log), kind, step, a.Err, strings.Join(append(opened, a.Log...), ""))
		} else if len(opened) > 0 && !q.Harmed {
			t.Logf("at event %d (%s), during %q, the store said:\n%s", cut, kind, step, strings.Join(opened, ""))
		}
		if a := p.ask(request{Do: "halt"}); a.Err != "" {
			t.Fatal(a.Err)
		}
		if bad > 10 {
			t.Fatal("enough")
		}
	}
	t.Logf("%d states, %d bad", len(cuts), bad)
}
