package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/integration/harness"
)

// resting is a host with idle units on the bridge: WHERRY_BENCH_UNITS of them, else 50.
type resting struct {
	*harness.Host
	t      *testing.T
	image  string
	units  int
	daemon int
	keeper int
}

// newResting skips unless the variable that asks for the measurement is set to a
// positive number, which it returns.
func newResting(t *testing.T, variable string) (*resting, int) {
	n, _ := strconv.Atoi(os.Getenv(variable))
	if n <= 0 {
		t.Skip("a measurement, not a test: scripts/bench")
	}
	units := 50
	if m, err := strconv.Atoi(os.Getenv("WHERRY_BENCH_UNITS")); err == nil {
		units = m
	}
	r := &resting{Host: harness.StartHost(t), t: t, image: registry(t).Ref("busybox"), units: units}
	r.OK("pull", "-q", r.image)
	i, err := r.Client().Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r.daemon, r.keeper = i.Pid, i.KeeperPid
	return r, n
}

func (r *resting) fill() {
	var names []string
	for i := range r.units {
		names = append(names, fmt.Sprintf("idle%d", i))
		r.OK("run", "-d", "--name", names[i], r.image, "sleep", "86000")
	}
	if len(names) > 0 {
		r.t.Cleanup(func() { r.OK(append([]string{"rm", "-f"}, names...)...) })
	}
}

// TestBenchStatus measures `wherry ctl status` beside an empty Go program, and what of it is the
// program's own start (`wherry version`), in turn. It runs only when WHERRY_BENCH_STATUS says
// how often.
func TestBenchStatus(t *testing.T) {
	r, n := newResting(t, "WHERRY_BENCH_STATUS")
	r.fill()
	peers := []*whole{
		{name: "ctl status", cmd: []string{r.Bin + "/wherry", "ctl", "--socket", r.Socket, "status"}},
		{name: "version", cmd: []string{r.Bin + "/wherry", "version"}},
		{name: "empty program", cmd: []string{emptyProgram(t)}},
	}
	for round := range n + 1 {
		for _, p := range peers {
			p.run(t, round > 0)
		}
	}
	lines := []string{fmt.Sprintf("%d units; medians of %d", r.units, n)}
	for _, p := range peers {
		lines = append(lines, p.String())
	}
	status, empty := median(peers[0].wall), median(peers[2].wall)
	lines = append(lines, fmt.Sprintf("the goal for ctl status is 1.5 x %.1f + 15 = %.1f ms; it took %.1f", empty, 1.5*empty+15, status))
	t.Log("\n" + strings.Join(lines, "\n"))
}

// whole is a command that is measured as a whole process.
type whole struct {
	name      string
	cmd       []string
	wall, cpu []float64 // ms
}

func (w *whole) run(t *testing.T, counts bool) {
	t.Helper()
	c := exec.Command(w.cmd[0], w.cmd[1:]...)
	began := time.Now()
	out, err := c.Output() // with a pipe, as scripts read it
	took := time.Since(began)
	if err != nil {
		t.Fatalf("%s: %v\n%s", w.name, err, out)
	}
	if counts {
		w.wall = append(w.wall, took.Seconds()*1e3)
		w.cpu = append(w.cpu, (c.ProcessState.UserTime()+c.ProcessState.SystemTime()).Seconds()*1e3)
	}
}

func (w *whole) String() string {
	return fmt.Sprintf("%-14s %6.1f ms (%.1f to %.1f), CPU %.1f ms", w.name, median(w.wall), slices.Min(w.wall), slices.Max(w.wall), median(w.cpu))
}

func emptyProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "main.go"), filepath.Join(dir, "empty")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "build", "-ldflags", "-s -w", "-o", exe, src)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return exe
}

// TestBenchIdle measures what daemon and keeper take of the host while nothing happens beside idle
// units: memory, CPU time, and how often they wake up. It runs only when WHERRY_BENCH_REST
// says for how many seconds. Before that it waits until both have given back what the starts took.
func TestBenchIdle(t *testing.T) {
	r, seconds := newResting(t, "WHERRY_BENCH_REST")
	r.fill()
	time.Sleep(20 * time.Second)
	procs := map[string]int{"daemon": r.daemon, "keeper": r.keeper}
	before := map[string]usage{}
	for name, pid := range procs {
		before[name] = r.usageOf(pid)
	}
	rest := time.Duration(seconds) * time.Second
	time.Sleep(rest)
	lines := []string{fmt.Sprintf("%d idle units, %s", r.units, rest)}
	var mib, share float64
	for _, name := range []string{"daemon", "keeper"} {
		u := r.usageOf(procs[name])
		cpu := (u.cpu - before[name].cpu).Seconds() / rest.Seconds() * 100
		mib, share = mib+u.pss, share+cpu
		lines = append(lines, fmt.Sprintf("%-7s PSS %5.1f MiB, CPU %.3f %% of a core, %.1f wakeups a second", name, u.pss, cpu,
			float64(u.wakeups-before[name].wakeups)/rest.Seconds()))
	}
	lines = append(lines, fmt.Sprintf("both    PSS %5.1f MiB (goal 40), CPU %.3f %% (goal 0.2)", mib, share))
	t.Log("\n" + strings.Join(lines, "\n"))
}

// usage is what a process has taken so far.
type usage struct {
	cpu     time.Duration
	wakeups int
	pss     float64 // MiB
}

var (
	pssLine    = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`)
	switchLine = regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\s+(\d+)`)
)

// usageOf asks for the process's own clock: /proc/PID/stat counts ticks of 10 ms, and the
// times of threads go with them.
func (r *resting) usageOf(pid int) (u usage) {
	r.t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil { // CPUCLOCK_SCHED of include/linux/posix-timers.h
		r.t.Fatalf("clock of process %d: %v", pid, err)
	}
	u.cpu = time.Duration(ts.Nano())
	dir := fmt.Sprintf("/proc/%d/", pid)
	tasks, _ := filepath.Glob(dir + "task/*")
	for _, task := range tasks {
		u.wakeups += number(switchLine, task+"/status")
	}
	u.pss = float64(number(pssLine, dir+"smaps_rollup")) / 1024
	return u
}

// number is what a line of the file says; 0 if there is none.
func number(line *regexp.Regexp, file string) int {
	b, _ := os.ReadFile(file)
	m := line.FindSubmatch(b)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// TestBenchBeside measures whether a run or an exec costs more beside idle units than on an empty
// host: as a whole command, and the CPU time of client, daemon, and keeper with the container. It
// runs only when WHERRY_BENCH_BESIDE says how often.
func TestBenchBeside(t *testing.T) {
	r, n := newResting(t, "WHERRY_BENCH_BESIDE")
	r.OK("run", "-d", "--name", "target", "--net", "host", r.image, "sleep", "86000")
	defer r.OK("rm", "-f", "target")
	var lines []string
	for _, units := range []int{0, r.units} {
		if units > 0 {
			r.fill()
		}
		for _, what := range [][]string{{"run", "--rm", "--net", "host", r.image, "true"}, {"run", "--rm", "--net", "none", r.image, "true"},
			{"run", "--rm", r.image, "true"}, {"exec", "target", "true"}} {
			lines = append(lines, fmt.Sprintf("beside %3d  %-16s %s", units, besideName(what), r.cost(n, what)))
		}
	}
	t.Log("\n" + strings.Join(lines, "\n"))
}

func besideName(args []string) string {
	if args[0] == "exec" {
		return "exec"
	}
	if at := slices.Index(args, "--net"); at >= 0 {
		return "run, " + args[at+1]
	}
	return "run, bridge"
}

// cost is what a command takes, once more than n times. What daemon and keeper do after
// its end is counted too.
func (r *resting) cost(n int, args []string) string {
	w := &whole{cmd: append([]string{r.Bin + "/wherry", "ctl", "--socket", r.Socket}, args...)}
	w.run(r.t, false)
	time.Sleep(100 * time.Millisecond)
	daemon, group := r.usageOf(r.daemon).cpu, r.groupCPU()
	for range n {
		w.run(r.t, true)
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	daemon, group = r.usageOf(r.daemon).cpu-daemon, r.groupCPU()-group
	each := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(n) }
	return fmt.Sprintf("%6.1f ms (%.1f to %.1f); CPU ms: client %.1f, daemon %.1f, keeper and container %.1f", median(w.wall),
		slices.Min(w.wall), slices.Max(w.wall), median(w.cpu), each(daemon), each(group))
}

// groupCPU is the CPU time of keeper and containers, which stand below one group.
func (r *resting) groupCPU() time.Duration {
	if b, err := os.ReadFile("/sys/fs/cgroup/cpuacct/" + r.Cgroup + "/cpuacct.usage"); err == nil {
		ns, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return time.Duration(ns)
	}
	us := number(regexp.MustCompile(`(?m)^usage_usec (\d+)`), "/sys/fs/cgroup/"+r.Cgroup+"/cpu.stat")
	if us == 0 {
		r.t.Fatalf("group %s has no CPU time", r.Cgroup)
	}
	return time.Duration(us) * time.Microsecond
}
