package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/integration/harness"
)

// puller is something that can pull an image into an empty store and delete it
// again, all below one folder.
type puller interface {
	name() string
	pull(t *testing.T, ref string) (client time.Duration) // CPU time of processes that ended
	drop(t *testing.T, ref string)
	daemons() []int // processes whose CPU time counts besides
}

// pullFigures are the measurements of one puller and one image.
type pullFigures struct{ wall, cpu, gone, rss []float64 }

// TestBenchPull measures cold pulls of wherry and of the peers that are installed,
// in turn and on one journaled file system of its own: wall time with everything
// synced, CPU time of daemon and client, and how long a deletion takes until the space
// is free again. "tar" is gzip -dc | tar -x of the same layers, synced too: no runtime,
// just the files. It runs only when WHERRY_BENCH_PULL says how often.
// WHERRY_BENCH_REGISTRY names a running registry with the images of
// WHERRY_BENCH_IMAGES (nginx, manyfiles, big); without it they are generated.
func TestBenchPull(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("WHERRY_BENCH_PULL"))
	if rounds == 0 {
		t.Skip("a measurement, not a test: scripts/bench pull")
	}
	images := strings.Fields(os.Getenv("WHERRY_BENCH_IMAGES"))
	if len(images) == 0 {
		images = []string{"nginx", "manyfiles", "big"}
	}
	host := os.Getenv("WHERRY_BENCH_REGISTRY")
	if host == "" {
		host = harness.StartRegistry(t, images...).Addr
	}
	fs := journaledDisk(t)
	pullers := startPullers(t, fs)
	var report strings.Builder
	for _, image := range images {
		ref := host + "/" + image + ":latest"
		all := append([]puller{newTarFloor(t, fs, ref)}, pullers...)
		figures := map[string]*pullFigures{}
		for range rounds {
			for _, p := range all {
				f := figures[p.name()]
				if f == nil {
					f = &pullFigures{}
					figures[p.name()] = f
				}
				f.round(t, fs, p, ref)
			}
		}
		pullTable(&report, image, all, figures)
	}
	t.Log("\n" + report.String())
}

func (f *pullFigures) round(t *testing.T, fs string, p puller, ref string) {
	t.Helper()
	syncDisk(t, fs)
	before := freeSpace(t, fs)
	cpu := cpuOf(p.daemons())
	peak := watchMemory(p.daemons())
	start := time.Now()
	client := p.pull(t, ref)
	syncDisk(t, fs)
	f.wall = append(f.wall, time.Since(start).Seconds())
	f.cpu = append(f.cpu, (cpuOf(p.daemons()) - cpu + client).Seconds())
	f.rss = append(f.rss, peak())
	took := before - freeSpace(t, fs)
	start = time.Now()
	p.drop(t, ref)
	// What a store keeps of names and logs does not count.
	for freeSpace(t, fs) < before-took/50-(1<<20) {
		if time.Since(start) > 30*time.Second {
			t.Logf("%s: %d MiB of %d MiB are not free 30 s after the deletion", p.name(), (before-freeSpace(t, fs))>>20, took>>20)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.gone = append(f.gone, time.Since(start).Seconds())
}

// pullTable prints medians with their range, and the ratio to wherry's.
func pullTable(b *strings.Builder, image string, all []puller, figures map[string]*pullFigures) {
	ours := figures["wherry"]
	for _, row := range []struct {
		name string
		get  func(*pullFigures) []float64
	}{
		{"pull and sync, s", func(f *pullFigures) []float64 { return f.wall }},
		{"CPU, s", func(f *pullFigures) []float64 { return f.cpu }},
		{"deletion, s", func(f *pullFigures) []float64 { return f.gone }},
		{"memory above idle, MiB", func(f *pullFigures) []float64 { return f.rss }},
	} {
		for _, p := range all {
			v := row.get(figures[p.name()])
			if slices.Max(v) == 0 {
				continue
			}
			fmt.Fprintf(b, "%-10s %-24s %-9s %8.2f  (%.2f to %.2f, n=%d)  wherry / it: %.2f\n", image, row.name, p.name(),
				median(v), slices.Min(v), slices.Max(v), len(v), median(row.get(ours))/median(v))
		}
	}
}

// journaledDisk mounts a fresh ext4 from a sparse file: a file system without
// a journal, or one that is full of deleted files, would measure itself.
func journaledDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "whb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	img, mnt := dir+"/img", dir+"/fs"
	sh(t, "truncate -s 24G %s && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -N 2000000 %s && mkdir %s && mount -o loop,noatime %s %s", img, img, mnt, img, mnt)
	t.Cleanup(func() { sh(t, "umount -R %s", mnt) })
	return mnt
}

func sh(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func syncDisk(t *testing.T, fs string) {
	t.Helper()
	d, err := os.Open(fs)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Fatal(err)
	}
}

func freeSpace(t *testing.T, fs string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(fs, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// cpuOf is the CPU time that processes and their ended children have used.
func cpuOf(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if len(f) < 15 {
			continue
		}
		for _, ticks := range f[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.Atoi(ticks)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// watchMemory returns a function that tells how far the resident memory of the
// processes rose at most, in MiB.
func watchMemory(pids []int) func() float64 {
	read := func(pid int, key string) float64 {
		f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			var kib float64
			if _, err := fmt.Sscanf(s.Text(), key+": %f kB", &kib); err == nil {
				return kib / 1024
			}
		}
		return 0
	}
	var idle float64
	for _, pid := range pids {
		os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // resets VmHWM
		idle += read(pid, "VmRSS")
	}
	return func() (peak float64) {
		for _, pid := range pids {
			peak += read(pid, "VmHWM")
		}
		return peak - idle
	}
}

// command is a puller with a command line.
type command struct {
	label      string
	cli        []string
	pullFlags  []string
	background []int
}

func (c *command) name() string   { return c.label }
func (c *command) daemons() []int { return c.background }

func (c *command) run(t *testing.T, args ...string) time.Duration {
	t.Helper()
	x := exec.Command(c.cli[0], append(slices.Clone(c.cli[1:]), args...)...)
	if out, err := x.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", c.label, strings.Join(args, " "), err, out)
	}
	return x.ProcessState.UserTime() + x.ProcessState.SystemTime()
}

func (c *command) pull(t *testing.T, ref string) time.Duration {
	t.Helper()
	return c.run(t, append(append([]string{"pull", "-q"}, c.pullFlags...), ref)...)
}

func (c *command) drop(t *testing.T, ref string) {
	t.Helper()
	c.run(t, "rmi", "-f", ref)
}

// startPullers starts wherry and every peer that is installed, each with its
// store on the disk fs. None of them may touch the host's network.
func startPullers(t *testing.T, fs string) []puller {
	t.Helper()
	h := harness.NewHost(t)
	h.Root = fs + "/wherry"
	h.Start()
	all := []puller{&command{label: "wherry", cli: []string{h.Bin + "/wherry", "ctl", "--socket", h.Socket}, background: []int{h.DaemonPid()}}}
	t.Cleanup(func() { os.RemoveAll(h.Root) })
	dir := func(name string) string {
		d := filepath.Join(fs, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if bin, err := exec.LookPath("podman"); err == nil {
		d := dir("podman")
		all = append(all, &command{label: "podman", cli: []string{bin, "--root", d + "/root", "--runroot", d + "/run", "--storage-driver", "overlay"}, pullFlags: []string{"--tls-verify=false"}})
	}
	if bin, err := exec.LookPath("dockerd"); err == nil {
		d := dir("docker")
		c := &command{label: "docker", cli: []string{"docker", "-H", "unix://" + d + "/sock"}}
		c.start(t, d, bin, "-H", "unix://"+d+"/sock", "--data-root", d+"/data", "--exec-root", d+"/run", "--pidfile", d+"/pid",
			"--bridge", "none", "--iptables=false", "--ip6tables=false", "--exec-opt", "native.cgroupdriver=cgroupfs")
		all = append(all, c)
	}
	nerdctl, err := exec.LookPath("nerdctl")
	if bin, err2 := exec.LookPath("containerd"); err == nil && err2 == nil {
		d := dir("nerdctl")
		config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", d+"/root", d+"/state", d+"/sock")
		if err := os.WriteFile(d+"/config.toml", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &command{label: "nerdctl", cli: []string{nerdctl, "--address", d + "/sock", "--data-root", d + "/data"}}
		c.start(t, d, bin, "-c", d+"/config.toml")
		all = append(all, c)
	}
	return all
}

// start starts a peer's daemon and waits until its client gets an answer.
func (c *command) start(t *testing.T, dir, bin string, args ...string) {
	t.Helper()
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	x := exec.Command(bin, args...)
	x.Stdout, x.Stderr = log, log
	x.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.Process.Signal(syscall.SIGTERM)
		x.Wait()
		log.Close()
	})
	harness.Eventually(t, 30*time.Second, c.label+" answers", func() bool {
		return exec.Command(c.cli[0], append(slices.Clone(c.cli[1:]), "version")...).Run() == nil
	})
	c.background = append(childrenOf(x.Process.Pid), x.Process.Pid)
}

func childrenOf(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, _ := os.ReadFile(s)
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// tarFloor is gzip and tar, without a download.
type tarFloor struct {
	dir    string
	layers []string
}

func newTarFloor(t *testing.T, fs, image string) *tarFloor {
	t.Helper()
	ref, err := name.ParseReference(image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	f := &tarFloor{dir: fs + "/tar"}
	blobs := t.TempDir()
	for i, l := range layers {
		path := fmt.Sprintf("%s/%d", blobs, i)
		f.layers = append(f.layers, path)
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
		out.Close()
	}
	return f
}

func (f *tarFloor) name() string   { return "tar" }
func (f *tarFloor) daemons() []int { return nil }

func (f *tarFloor) pull(t *testing.T, _ string) (cpu time.Duration) {
	t.Helper()
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range f.layers {
		c := exec.Command("sh", "-c", fmt.Sprintf("gzip -dc <%s | tar -x -C %s -f -", l, f.dir))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	return cpu
}

func (f *tarFloor) drop(t *testing.T, _ string) {
	t.Helper()
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
}
