package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// peer is a runtime that takes Docker's words.
type peer struct {
	name   string
	cli    []string
	comm   *regexp.Regexp // names of the processes that are its overhead
	figure map[string][]float64
}

// TestBench measures wherry and the peers that answer, in turn. It runs only
// when WHERRY_BENCH says how often (scripts/bench does). WHERRY_PEERS adds or
// replaces peers: "name=command line;name=command line". They must be willing
// to pull from a plain HTTP registry on loopback (docker is, podman must be told):
// WHERRY_BENCH_REGISTRY names a running one with busybox and nginx in it.
func TestBench(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("WHERRY_BENCH"))
	if n == 0 {
		t.Skip("a measurement, not a test: scripts/bench")
	}
	idle := 200
	if m, err := strconv.Atoi(os.Getenv("WHERRY_BENCH_IDLE")); err == nil {
		idle = m
	}
	ref := func(image string) string { return os.Getenv("WHERRY_BENCH_REGISTRY") + "/" + image + ":latest" }
	if os.Getenv("WHERRY_BENCH_REGISTRY") == "" {
		ref = registry(t).Ref
	}
	image := ref("busybox")
	h := harness.StartHost(t)
	peers := findPeers(t, image)
	peers = append([]*peer{{
		name: "wherry", cli: []string{h.Bin + "/wherry", "ctl", "--socket", h.Socket},
		comm: regexp.MustCompile("^wherry"), figure: map[string][]float64{},
	}}, peers...)

	peers[0].run(t, "pull", "-q", image)
	for _, net := range []string{"host", "none", "bridge"} {
		inTurn(peers, n, func(p *peer) {
			p.take(t, "run --rm, "+net+", ms", 1e3, "run", "--rm", "--net", net, image, "true")
		})
	}
	for _, p := range peers {
		p.run(t, "run", "-d", "--net", "host", "--name", "whbench-exec", image, "sleep", "86000")
	}
	inTurn(peers, n, func(p *peer) { p.take(t, "exec, ms", 1e3, "exec", "whbench-exec", "true") })
	inTurn(peers, n, func(p *peer) { p.first(t, image) })
	for _, net := range []string{"host", "bridge"} {
		inTurn(peers, 2, func(p *peer) { p.rate(t, image, net, 40) })
	}
	for _, p := range peers {
		p.remove(t, "whbench-exec")
	}
	inTurn(peers, 3, func(p *peer) {
		p.take(t, "pull nginx, s", 1, "pull", "-q", ref("nginx"))
		p.run(t, "rmi", "-f", ref("nginx"))
	})
	for _, p := range peers {
		p.memory(t, image, idle)
	}
	t.Log("\n" + report(peers))
}

func findPeers(t *testing.T, image string) (l []*peer) {
	overhead := map[string]string{
		"nerdctl": "^(containerd|containerd-shim|nerdctl)",
		"docker":  "^(dockerd|containerd|containerd-shim|docker-proxy)", "podman": "^(conmon|podman|aardvark-dns|catatonit)",
	}
	clis := map[string][]string{"docker": {"docker"}, "podman": {"podman"}}
	for _, def := range strings.Split(os.Getenv("WHERRY_PEERS"), ";") {
		if name, cli, ok := strings.Cut(def, "="); ok {
			clis[name] = strings.Fields(cli)
		}
	}
	for name, cli := range clis {
		if out, err := exec.Command(cli[0], append(slices.Clone(cli[1:]), "pull", "-q", image)...).CombinedOutput(); err != nil {
			t.Logf("%s is not measured: it cannot pull the image: %v\n%s", name, err, out)
			continue
		}
		comm := overhead[strings.TrimRight(name, "0123456789")]
		if comm == "" {
			comm = "^" + regexp.QuoteMeta(name)
		}
		l = append(l, &peer{name: name, cli: cli, comm: regexp.MustCompile(comm), figure: map[string][]float64{}})
	}
	slices.SortFunc(l, func(a, b *peer) int { return strings.Compare(a.name, b.name) })
	return l
}

// inTurn lets the peers take turns, with one round that does not count.
func inTurn(peers []*peer, n int, do func(*peer)) {
	for round := range n + 1 {
		for _, p := range peers {
			do(p)
			if round == 0 {
				for name, f := range p.figure {
					if len(f) == 1 {
						p.figure[name] = nil
					}
				}
			}
		}
	}
}

func (p *peer) run(t *testing.T, args ...string) time.Duration {
	t.Helper()
	c := exec.Command(p.cli[0], append(slices.Clone(p.cli[1:]), args...)...)
	var errs bytes.Buffer
	c.Stderr = &errs
	start := time.Now()
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", p.name, strings.Join(args, " "), err, errs.String())
	}
	return time.Since(start)
}

func (p *peer) take(t *testing.T, figure string, scale float64, args ...string) {
	t.Helper()
	p.figure[figure] = append(p.figure[figure], p.run(t, args...).Seconds()*scale)
}

// remove removes running containers at once; podman would wait for sleep to heed its stop signal.
func (p *peer) remove(t *testing.T, names ...string) {
	t.Helper()
	args := []string{"rm", "-f"}
	if strings.HasPrefix(p.name, "podman") {
		args = append(args, "-t", "0")
	}
	p.run(t, append(args, names...)...)
}

// first is the time from the call to the first instruction of a container that is
// started in the background: it makes a file.
func (p *peer) first(t *testing.T, image string) {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command(p.cli[0], append(slices.Clone(p.cli[1:]), "run", "-d", "--net", "host", "--name", "whbench-first",
		"-v", dir+":/t", image, "sh", "-c", "echo >/t/first; exec sleep 86000")...)
	began := time.Now()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for time.Since(began) < 30*time.Second {
		if _, err := os.Stat(dir + "/first"); err == nil {
			break
		}
		time.Sleep(200 * time.Microsecond)
	}
	took := time.Since(began)
	if err := c.Wait(); err != nil {
		t.Fatalf("%s run -d: %v", p.name, err)
	}
	p.figure["first instruction, ms"] = append(p.figure["first instruction, ms"], took.Seconds()*1e3)
	p.remove(t, "whbench-first")
}

// rate is how many containers a second are started by four callers.
func (p *peer) rate(t *testing.T, image, net string, n int) {
	t.Helper()
	var names []string
	began := time.Now()
	var callers sync.WaitGroup
	next := make(chan string)
	for range 4 {
		callers.Go(func() {
			for name := range next {
				c := exec.Command(p.cli[0], append(slices.Clone(p.cli[1:]), "run", "-d", "--net", net, "--name", name, image, "sleep", "86000")...)
				if out, err := c.CombinedOutput(); err != nil {
					t.Errorf("%s run -d: %v\n%s", p.name, err, out)
				}
			}
		})
	}
	for i := range n {
		names = append(names, fmt.Sprintf("whbench-rate%d", i))
		next <- names[i]
	}
	close(next)
	callers.Wait()
	figure := "starts per second, " + net
	p.figure[figure] = append(p.figure[figure], float64(n)/time.Since(began).Seconds())
	p.remove(t, names...)
}

// memory is the proportional set size of all overhead processes, with n idle
// containers and without, by container.
func (p *peer) memory(t *testing.T, image string, n int) {
	t.Helper()
	time.Sleep(2 * time.Second)
	before := p.pss()
	var names []string
	for i := range n {
		name := fmt.Sprintf("whbench-mem%d", i)
		names = append(names, name)
		p.run(t, "run", "-d", "--net", "host", "--name", name, image, "sleep", "86000")
	}
	time.Sleep(3 * time.Second)
	p.figure["base, MiB"] = []float64{before}
	p.figure["per idle container, MiB"] = []float64{(p.pss() - before) / float64(n)}
	p.remove(t, names...)
}

func (p *peer) pss() (mib float64) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range procs {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil || !p.comm.Match(bytes.TrimSpace(comm)) {
			continue
		}
		mib += float64(number(pssLine, dir+"/smaps_rollup")) / 1024
	}
	return mib
}

// report is a table of medians with minimum and maximum, and the ratio to wherry's.
func report(peers []*peer) string {
	var names []string
	for name := range peers[0].figure {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		ours := median(peers[0].figure[name])
		for _, p := range peers {
			f := p.figure[name]
			if len(f) == 0 {
				continue
			}
			fmt.Fprintf(&b, "%-26s %-10s %8.2f  (%.2f to %.2f, n=%d)  x%.2f\n", name, p.name, median(f), slices.Min(f), slices.Max(f), len(f), median(f)/ours)
		}
	}
	return b.String()
}

func median(f []float64) float64 {
	f = slices.Sorted(slices.Values(f))
	if len(f) == 0 {
		return 0
	}
	return f[len(f)/2]
}
