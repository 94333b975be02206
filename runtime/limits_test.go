package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// groupFile reads a file of a container's group, of whichever version.
func groupFile(t *testing.T, st runtime.Status, v1, v2 string) string {
	t.Helper()
	name := filepath.Join("/sys/fs/cgroup", st.Cgroup, v2)
	if mode, err := cgroup.Detect(); err != nil {
		t.Fatal(err)
	} else if mode == cgroup.Legacy {
		controller, _, _ := strings.Cut(v1, ".")
		name = filepath.Join("/sys/fs/cgroup", controller, st.Cgroup, v1)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func testDisk(t *testing.T) string {
	t.Helper()
	for _, disk := range []string{"/dev/vda", "/dev/sda", "/dev/nvme0n1"} {
		if _, err := os.Stat(disk); err == nil {
			return disk
		}
	}
	return ""
}

// limits is what a container is given, and where it is found again.
func (w *world) limited(l cgroup.Limits, args ...string) runtime.Config {
	c := w.config(args...)
	l, err := l.Resolve()
	if err != nil {
		w.tb.Fatal(err)
	}
	devices := c.Spec.Linux.Resources.Devices
	c.Spec.Linux.Resources = l.Resources()
	c.Spec.Linux.Resources.Devices = devices
	return c
}

type want struct{ v1, v2, value1, value2 string }

func checkFiles(t *testing.T, what string, st runtime.Status, list []want) {
	t.Helper()
	mode, _ := cgroup.Detect()
	for _, f := range list {
		name, value := f.v1, f.value1
		if mode == cgroup.Unified {
			name, value = f.v2, f.value2
		}
		if name == "" {
			continue
		}
		if got := groupFile(t, st, f.v1, f.v2); got != value {
			t.Errorf("%s: %s is %q, want %q", what, name, got, value)
		}
	}
}

func TestLimitsAreReadBack(t *testing.T) {
	w := newWorld(t)
	first := cgroup.Limits{Memory: 64 << 20, MemoryReservation: 16 << 20, CPUs: 0.5, CPUShares: 512, Pids: 50, CpusetCPUs: "0", CpusetMems: "0"}
	disk := testDisk(t)
	if disk != "" {
		first.IO.ReadBytes = []cgroup.Rate{{Device: disk, Rate: 10 << 20}}
	}
	c := w.limited(first, "sleep", "1000")
	st := w.start(c)
	files := []want{
		{"memory.limit_in_bytes", "memory.max", "67108864", "67108864"},
		{"memory.soft_limit_in_bytes", "memory.low", "16777216", "16777216"},
		{"cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"},
		{"cpu.shares", "cpu.weight", "512", "59"},
		{"pids.max", "pids.max", "50", "50"},
		{"cpuset.cpus", "cpuset.cpus", "0", "0"},
		{"cpuset.mems", "cpuset.mems", "0", "0"},
		{"", "memory.swap.max", "", "0"},
		{"", "memory.oom.group", "", "1"},
	}
	checkFiles(t, "after the start", st, files)
	if disk != "" {
		if got := groupFile(t, st, "blkio.throttle.read_bps_device", "io.max"); !strings.Contains(got, "10485760") {
			t.Errorf("io: %q", got)
		}
	}

	second := cgroup.Limits{Memory: 96 << 20, CPUs: 1.25, CPUReservation: 1, Pids: 70, CpusetCPUs: "0-1"}
	if err := w.rt.Update(w.ctx(), c.ID(), second); err != nil {
		t.Fatal(err)
	}
	changed := []want{
		{"memory.limit_in_bytes", "memory.max", "100663296", "100663296"},
		{"memory.soft_limit_in_bytes", "memory.low", "9223372036854771712", "0"},
		{"cpu.cfs_quota_us", "cpu.max", "125000", "125000 100000"},
		{"cpu.shares", "cpu.weight", "1024", "100"},
		{"pids.max", "pids.max", "70", "70"},
		{"cpuset.cpus", "cpuset.cpus", "0-1", "0-1"},
		{"", "memory.swap.max", "", "0"},
	}
	checkFiles(t, "after the update", st, changed)
	if disk != "" {
		if got := groupFile(t, st, "blkio.throttle.read_bps_device", "io.max"); got != "" {
			t.Errorf("io is still limited: %q", got)
		}
	}

	// What cannot be set leaves everything as it was.
	bad := second
	bad.Pids, bad.CpusetCPUs = 80, "0,4000"
	if err := w.rt.Update(w.ctx(), c.ID(), bad); err == nil || !strings.Contains(err.Error(), "4000") {
		t.Errorf("got %v", err)
	}
	checkFiles(t, "after an update that failed", st, changed)

	// The next keeper can do it too, and a process that comes later finds it so.
	w.killKeeper(t)
	if err := w.rt.Update(w.ctx(), c.ID(), cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	lifted := []want{
		{"memory.limit_in_bytes", "memory.max", "9223372036854771712", "max"},
		{"cpu.cfs_quota_us", "cpu.max", "-1", "max 100000"},
		{"pids.max", "pids.max", "max", "max"},
		{"", "memory.swap.max", "", "max"},
	}
	checkFiles(t, "after the lifting", st, lifted)
	if x, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"true"}}); err != nil || x.Code != 0 {
		t.Errorf("exec: %+v, %v", x, err)
	}
	checkFiles(t, "after an exec", st, lifted)
	if now, err := w.rt.Get(w.ctx(), c.ID()); err != nil || now.Pid != st.Pid {
		t.Errorf("it is another process: %+v, %v", now, err)
	}
	w.rt.Kill(w.ctx(), c.ID())
	w.finish(c)
	if err := w.rt.Update(w.ctx(), c.ID(), second); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("of one that is gone: %v", err)
	}
}

// killKeeper ends the keeper by SIGKILL and waits for the next one.
func (w *world) killKeeper(t *testing.T) {
	t.Helper()
	pid := w.rt.KeeperPid()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	w.gone(pid)
	// The first call may still find the connection to the old one.
	if _, err := w.rt.List(w.ctx()); err != nil {
		if _, err = w.rt.List(w.ctx()); err != nil {
			t.Fatal(err)
		}
	}
}

// eat takes n MiB of memory at once.
func eat(mebibytes int) string {
	return fmt.Sprintf("dd if=/dev/zero of=/dev/null bs=%dM count=1 2>/dev/null", mebibytes)
}

func TestMemoryInUseIsNotTaken(t *testing.T) {
	w := newWorld(t)
	c := w.limited(cgroup.Limits{Memory: 512 << 20}, "sh", "-c", "x=$(dd if=/dev/zero bs=1M count=10 2>/dev/null | cat -v); echo ready; sleep 1000; echo $x | wc -c")
	st := w.start(c)
	w.waitText(t, c, "ready")
	stats, serr := w.rt.Stats(w.ctx(), c.ID())
	if serr != nil || stats.MemoryCurrent < 16<<20 {
		t.Fatalf("it uses too little for the test: %+v, %v", stats, serr)
	}
	err := w.rt.Update(w.ctx(), c.ID(), cgroup.Limits{Memory: 8 << 20})
	if err == nil || !strings.Contains(err.Error(), "more is in use") || !strings.Contains(err.Error(), "8MiB") {
		t.Errorf("got %v", err)
	}
	checkFiles(t, "after it was refused", st, []want{{"memory.limit_in_bytes", "memory.max", "536870912", "536870912"}, {"", "memory.high", "", "max"}})
	if now, err := w.rt.Get(w.ctx(), c.ID()); err != nil || now.State != runtime.Running {
		t.Errorf("it did not survive: %+v, %v", now, err)
	}
	w.rt.Kill(w.ctx(), c.ID())
	w.finish(c)
}

func (w *world) waitText(t *testing.T, c runtime.Config, text string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(w.text(c), text) {
			return
		}
	}
	t.Fatalf("it never said %q but %q", text, w.text(c))
}

func TestOOMOfGroupAndProcess(t *testing.T) {
	w := newWorld(t)
	// A child runs out of memory; its parent would live on.
	script := eat(400) + "; echo child ended $?; sleep 1000"
	group := w.limited(cgroup.Limits{Memory: 32 << 20}, "sh", "-c", script)
	w.start(group)
	if exit := w.finish(group); exit.Signal != "SIGKILL" || !exit.OOM {
		t.Errorf("group: ended as %+v\n%s", exit, w.text(group))
	}
	single := w.limited(cgroup.Limits{Memory: 32 << 20}, "sh", "-c", script)
	single.OOM = "process"
	w.start(single)
	w.waitText(t, single, "child ended 137")
	if st, err := w.rt.Get(w.ctx(), single.ID()); err != nil || st.State != runtime.Running {
		t.Errorf("process: %+v, %v", st, err)
	}
	w.rt.Kill(w.ctx(), single.ID())
	w.finish(single)
	// A limit that comes later is watched as well.
	hold := filepath.Join(w.run, "hold")
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	later := w.config("sh", "-c", "read x </hold; "+script)
	later.Spec.Mounts = append(later.Spec.Mounts, bind(hold, "/hold"))
	w.start(later)
	if err := w.rt.Update(w.ctx(), later.ID(), cgroup.Limits{Memory: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	release(t, hold)
	if exit := w.finish(later); exit.Signal != "SIGKILL" || !exit.OOM {
		t.Errorf("later: ended as %+v\n%s", exit, w.text(later))
	}
}

func TestPauseAndResume(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "trap 'echo told; exit 7' TERM; while :; do echo tick; sleep 0.05; done")
	w.start(c)
	w.waitText(t, c, "tick")
	for range 2 { // twice is no error
		if err := w.rt.Pause(w.ctx(), c.ID()); err != nil {
			t.Fatal(err)
		}
	}
	paused := func() bool {
		st, err := w.rt.Get(w.ctx(), c.ID())
		if err != nil {
			t.Fatal(err)
		}
		frozen, err := (cgroup.Group{Path: st.Cgroup}).Frozen()
		if err != nil || frozen != st.Paused {
			t.Errorf("the status says %v, the kernel %v, %v", st.Paused, frozen, err)
		}
		return st.Paused
	}
	if !paused() {
		t.Error("it is not paused")
	}
	if _, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"true"}}); !errors.Is(err, runtime.ErrPaused) {
		t.Errorf("exec: %v", err)
	}
	w.killKeeper(t)
	if !paused() {
		t.Error("the next keeper does not know that it is paused")
	}
	if err := w.rt.Resume(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	if paused() {
		t.Error("it is still paused")
	}
	if err := w.rt.Pause(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	// A stop lets it see the signal.
	if exit, err := w.rt.Stop(w.ctx(), c.ID(), patience); err != nil || exit.Code != 7 {
		t.Errorf("stopped as %+v, %v", exit, err)
	}
	w.finish(c)
	killed := w.config("sleep", "1000")
	w.start(killed)
	if err := w.rt.Pause(w.ctx(), killed.ID()); err != nil {
		t.Fatal(err)
	}
	if err := w.rt.Kill(w.ctx(), killed.ID()); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(killed); exit.Signal != "SIGKILL" {
		t.Errorf("killed as %+v", exit)
	}
}
