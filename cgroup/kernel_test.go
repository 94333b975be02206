package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process in a group: it says that it is
// ready, waits for a line, then does what it was told.
func TestMain(m *testing.M) {
	switch os.Getenv("WHC_CHILD") {
	case "":
		os.Exit(m.Run())
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "eat":
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
		var hold [][]byte
		for range 256 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 512 {
				b[i] = 1
			}
			hold = append(hold, b)
		}
		fmt.Println("survived", len(hold))
	}
}

// testGroup is a new group of the test's own, below a parent that has the
// controllers, with all of it removed and looked for at the end.
func testGroup(t testing.TB, name string) Group {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making control groups needs root")
	}
	h, err := theHost()
	if err != nil {
		t.Skip(err)
	}
	parent := Group{Path: "/whC-" + name}
	g := Group{Path: parent.Path + "/app"}
	if err := (Parent{Path: parent.Path}).Prepare(); err != nil {
		t.Skip("no group can be made here: ", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := parent.Kill(ctx); err != nil {
			t.Error(err)
		}
		if err := parent.Remove(ctx); err != nil {
			t.Error(err)
		}
		if left := h.dirs(parent.Path); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
	roots := h.roots()
	for _, r := range roots {
		if r == h.v1["cpuset"] {
			continue
		}
		if err := os.MkdirAll(filepath.Join(r, g.Path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// limit writes what libcontainer would write.
func limit(t *testing.T, g Group, v2, v1, controller, value string) {
	t.Helper()
	h, _ := theHost()
	name := v2
	if h.mode == Legacy {
		name = v1
	}
	file := h.file(controller, g.Path, name)
	if err := writeFile(file, value); err != nil {
		t.Skip("cannot limit: ", err)
	}
}

// child starts the test binary in the group. Its Stdin starts what it does.
func child(t *testing.T, g Group, what string) (*exec.Cmd, *os.File) {
	t.Helper()
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "WHC_CHILD="+what, "GOMAXPROCS=1")
	cmd.Stdin = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() { feed.Close(); cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	if err := g.Join(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return cmd, feed
}

func TestKillAndRemove(t *testing.T) {
	g := testGroup(t, "kill")
	var pids []int
	for range 3 {
		cmd, _ := child(t, g, "sleep")
		pids = append(pids, cmd.Process.Pid)
	}
	slices.Sort(pids)
	if got, err := g.Procs(); err != nil || !slices.Equal(got, pids) {
		t.Errorf("procs %v, %v, want %v", got, err, pids)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); err == nil || !strings.Contains(err.Error(), "3 processes are in it") || !errors.Is(err, unix.EBUSY) {
		t.Errorf("remove of a busy group: %v", err)
	}
	if err := g.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Procs(); len(got) > 0 {
		t.Errorf("left after kill: %v, %v", got, err)
	}
	for range 2 {
		if err := g.Remove(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := g.Exists(); ok || err != nil {
		t.Errorf("still there: %v, %v", ok, err)
	}
	if err := g.Kill(context.Background()); err != nil {
		t.Errorf("kill of what is gone: %v", err)
	}
	if _, err := g.Memory(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("memory of no group: %v", err)
	}
	if _, err := g.Stats(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stats of what is gone: %v", err)
	}
}

// Frozen processes are killed as well, with and without cgroup.kill.
func TestKillFrozen(t *testing.T) {
	h, err := theHost()
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		name string
		kill func(Group) error
	}{
		{"whole", func(g Group) error { return g.Kill(context.Background()) }},
		{"each", func(g Group) error {
			h.killEach(g.Path)
			for range 60_000 {
				if p, err := g.Procs(); err == nil && len(p) == 0 {
					return nil
				}
				(&backoff{}).wait(context.Background())
			}
			return errors.New("processes are left")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := testGroup(t, "frozen")
			child(t, g, "sleep")
			h.freeze(g.Path)
			if err := c.kill(g); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Our numbers are those of containerd's library.
func TestStatsAgreeWithLibrary(t *testing.T) {
	g := testGroup(t, "stats")
	limit(t, g, "memory.max", "memory.limit_in_bytes", "memory", "104857600")
	limit(t, g, "pids.max", "pids.max", "pids", "77")
	cmd, _ := child(t, g, "sleep")
	unix.Kill(cmd.Process.Pid, unix.SIGSTOP) // so that the numbers stand still
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	mode, _ := Detect()
	var want Stats
	if mode == Unified {
		want = libraryV2(t, g)
	} else {
		want = libraryV1(t, g)
	}
	near := func(a, b int64) bool { return max(a-b, b-a) < 1<<20 }
	if !near(got.MemoryCurrent, want.MemoryCurrent) || !near(got.MemoryWorking, want.MemoryWorking) ||
		got.MemoryLimit != 104857600 || got.MemoryLimit != want.MemoryLimit ||
		got.PidsLimit != 77 || got.PidsLimit != want.PidsLimit || got.Pids != want.Pids || got.Pids == 0 ||
		!near(int64(got.CPUUsec), int64(want.CPUUsec)) || got.OOMKills != want.OOMKills {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if m, err := g.Memory(); err != nil || m.Peak < got.MemoryPeak || m.Limit != got.MemoryLimit || m.OOMKills != got.OOMKills {
		t.Errorf("memory: %+v, %v; want that of %+v", m, err, got)
	}
}

func libraryV1(t *testing.T, g Group) Stats {
	t.Helper()
	c, err := cgroup1.Load(cgroup1.StaticPath(g.Path))
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		t.Fatal(err)
	}
	return Stats{
		MemoryCurrent: int64(m.Memory.Usage.Usage), MemoryWorking: int64(m.Memory.Usage.Usage - m.Memory.TotalInactiveFile),
		MemoryLimit: int64(m.Memory.Usage.Limit), CPUUsec: m.CPU.Usage.Total / 1000,
		Pids: int64(m.Pids.Current), PidsLimit: int64(m.Pids.Limit), OOMKills: m.MemoryOomControl.OomKill,
	}
}

func libraryV2(t *testing.T, g Group) Stats {
	t.Helper()
	c, err := cgroup2.Load(g.Path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Stats{
		MemoryCurrent: int64(m.Memory.Usage), MemoryWorking: int64(m.Memory.Usage - m.Memory.InactiveFile),
		MemoryLimit: int64(m.Memory.UsageLimit), CPUUsec: m.CPU.UsageUsec,
		Pids: int64(m.Pids.Current), PidsLimit: int64(m.Pids.Limit), OOMKills: m.MemoryEvents.OomKill,
	}
}

func TestWatcher(t *testing.T) {
	hungry, quiet := testGroup(t, "oom"), testGroup(t, "quiet")
	limit(t, hungry, "memory.max", "memory.limit_in_bytes", "memory", "31457280")
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, g := range []Group{hungry, quiet} {
		if err := w.Add(g); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		cmd, feed := child(t, hungry, "eat")
		feed.WriteString("go\n")
		e := <-w.Events()
		if e.Group != hungry || e.Kills != uint64(i+1) {
			t.Errorf("event %+v", e)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Errorf("the child was not killed: %v", err)
		}
		if n, err := hungry.OOMKills(); n != uint64(i+1) || err != nil {
			t.Errorf("counted %d, %v", n, err)
		}
	}
	w.Remove(quiet)
	if err := w.Add(Group{Path: hungry.Path + "/none"}); err == nil {
		t.Error("a group that is not there can be watched")
	}
}

// A group that is removed is forgotten where the kernel tells of it.
func TestWatcherForgets(t *testing.T) {
	g := testGroup(t, "forget")
	mode, _ := Detect()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(g); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
	if mode == Unified {
		w.Remove(g)
	}
	for range 60_000 { // the kernel destroys groups one after the other, also those of others
		w.mu.Lock()
		n := len(w.byKey) + len(w.byPath)
		w.mu.Unlock()
		if n == 0 {
			break
		}
		(&backoff{}).wait(context.Background())
	}
	w.mu.Lock()
	if len(w.byKey)+len(w.byPath) != 0 {
		t.Error("the removed group is still watched")
	}
	w.mu.Unlock()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-w.Events(); open {
		t.Error("an event after Close")
	}
	if err := w.Add(g); err == nil {
		t.Error("Add after Close works")
	}
	w.Close()
}

func TestPrepareOnV2(t *testing.T) {
	if mode, err := Detect(); err != nil || mode != Unified {
		t.Skip("needs cgroup v2 alone")
	}
	unit := testGroup(t, "unit")
	p := Parent{Path: unit.Path + "/keep/containers", Delegated: unit.Path}
	above, _ := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control")
	cmd, _ := child(t, unit, "sleep")
	if err := p.Prepare(); !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Fatalf("an occupied group: %v", err)
	}
	p.Subgroup = "own"
	for range 2 {
		if err := p.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := (Group{Path: unit.Path + "/own"}).Procs()
	if err != nil || !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("the process is not in the subgroup: %v, %v", got, err)
	}
	on, _ := readWords("/sys/fs/cgroup" + p.Path + "/cgroup.subtree_control")
	for _, c := range []string{"memory", "cpu", "pids"} {
		if !slices.Contains(on, c) {
			t.Errorf("%s is not enabled below the parent: %v", c, on)
		}
	}
	if err := (Limits{Memory: 1 << 30, CPUs: 1, Pids: 5}).Check(Group{Path: p.Path}); err != nil {
		t.Error(err)
	}
	if now, _ := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); string(now) != string(above) {
		t.Errorf("controllers above us changed from %q to %q", above, now)
	}
}

// TestPrepareInDelegated: a parent below a systemd unit's own group is found to
// be so by systemd's mark, and only then are processes moved.
func TestPrepareInDelegated(t *testing.T) {
	if mode, err := Detect(); err != nil || mode != Unified {
		t.Skip("needs cgroup v2 alone")
	}
	unit := testGroup(t, "deleg")
	p := Parent{Path: unit.Path + "/containers", Subgroup: "daemon"}
	cmd, _ := child(t, unit, "sleep")
	all := Limits{Memory: 1 << 30, CPUs: 1, Pids: 5}
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	if pids, err := unit.Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("a process of a group that nobody delegated was moved: %v, %v", pids, err)
	}
	if err := p.Require(all); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("limits below an occupied group: %v, want an error that names the controller", err)
	}
	if err := unix.Setxattr("/sys/fs/cgroup"+unit.Path, "trusted.delegate", []byte("1"), 0); err != nil {
		t.Skip("no marks on groups here: ", err)
	}
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := p.Require(all); err != nil {
		t.Error(err)
	}
	if pids, err := (Group{Path: unit.Path + "/daemon"}).Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("the unit's process stands elsewhere: %v, %v", pids, err)
	}
}

// TestRequire: where a controller is off above our own group, a limit that needs
// it switches it on, and no other.
func TestRequire(t *testing.T) {
	if mode, err := Detect(); err != nil || mode != Unified {
		t.Skip("needs cgroup v2 alone")
	}
	above := testGroup(t, "require")
	p := Parent{Path: above.Path + "/ours/containers"}
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := p.Require(Limits{}); err != nil {
		t.Error(err)
	}
	if err := p.Require(Limits{Pids: 5}); err != nil {
		t.Error(err)
	}
	for _, g := range []string{above.Path, above.Path + "/ours", p.Path} {
		if on, err := readWords("/sys/fs/cgroup" + g + "/cgroup.subtree_control"); err != nil || !slices.Equal(on, []string{"pids"}) {
			t.Errorf("%s hands down %v, %v; want pids alone", g, on, err)
		}
	}
}

func BenchmarkStats(b *testing.B) {
	g := testGroup(b, "bench")
	for b.Loop() {
		if _, err := g.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}

// What groups below are given is added up, and written where it differs.
func TestShares(t *testing.T) {
	if mode, err := Detect(); err != nil || mode != Unified {
		t.Skip("needs cgroup v2 alone")
	}
	g := testGroup(t, "shares")
	p := Parent{Path: g.Path, Delegated: g.Path}
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", ".keep"} {
		if err := os.Mkdir("/sys/fs/cgroup"+g.Path+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sum := func(want Share) {
		t.Helper()
		got, err := g.Sum(nil)
		got.IOWeight = 0
		if err != nil || got != want {
			t.Errorf("sum %+v, %v, want %+v", got, err, want)
		}
	}
	sum(Share{CPUWeight: 100})
	for _, x := range []struct{ group, file, value string }{{"a", "cpu.weight", "59"}, {"b", "memory.low", "16777216"}, {"a", "memory.low", "8388608"}} {
		limit(t, Group{Path: g.Path + "/" + x.group}, x.file, "", "", x.value)
	}
	sum(Share{CPUWeight: 159, MemoryLow: 24 << 20})
	if got, err := g.Sum(map[string]Share{"b": {CPUWeight: 100, MemoryLow: 1 << 20}}); err != nil || got.MemoryLow != 9<<20 {
		t.Errorf("with one that is known better: %+v, %v", got, err)
	}
	want := Share{CPUWeight: 159, IOWeight: 100, MemoryLow: 24 << 20}
	if err := g.SetShare(want); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Share(); err != nil || got != want {
		t.Errorf("share %+v, %v, want %+v", got, err, want)
	}
}

// 200 groups are watched by one inotify instance, of which a user may have 128, and nothing of it stays.
func TestWatcherOfManyGroups(t *testing.T) {
	if mode, err := Detect(); err != nil || mode != Unified {
		t.Skip("needs cgroup v2 alone")
	}
	instances := func() (fds []string, watches int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == "anon_inode:inotify" {
				info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
				fds, watches = append(fds, e.Name()), watches+strings.Count(string(info), "inotify wd:")
			}
		}
		return fds, watches
	}
	before, _ := instances()
	g := testGroup(t, "many")
	if err := (Parent{Path: g.Path, Delegated: g.Path}).Prepare(); err != nil {
		t.Fatal(err)
	}
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	const many = 200
	for i := range many {
		c := Group{Path: g.Path + "/c" + strconv.Itoa(i)}
		if err := os.Mkdir("/sys/fs/cgroup"+c.Path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := w.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	if fds, watches := instances(); len(fds) != len(before)+1 || watches != many {
		t.Errorf("%d instances more, %d watches", len(fds)-len(before), watches)
	}
	for i := range many {
		c := Group{Path: g.Path + "/c" + strconv.Itoa(i)}
		w.Remove(c)
		if err := c.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, watches := instances(); watches != 0 || len(w.byKey) != 0 || len(w.byPath) != 0 {
		t.Errorf("%d watches are left, %d and %d groups", watches, len(w.byKey), len(w.byPath))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if fds, _ := instances(); len(fds) != len(before) {
		t.Errorf("%d instances are left", len(fds)-len(before))
	}
}
