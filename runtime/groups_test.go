package runtime_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// A container, and what is run in it later, stands in its group in every
// hierarchy that has controllers, with its limits, and the keeper does not.
func TestGroups(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	limit, pids := int64(64<<20), int64(50)
	c.Spec.Linux.Resources = &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: &limit},
		Pids:    &specs.LinuxPids{Limit: &pids},
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
	}
	st := w.start(c)
	inGroup(t, st.Pid, st.Cgroup)
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/cgroup", w.rt.KeeperPid()))
	if len(threads) == 0 {
		t.Error("the keeper has no threads")
	}
	for _, name := range threads {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(st.Cgroup)) {
			t.Errorf("%s: a thread of the keeper has stayed:\n%s", name, b)
		}
	}
	stats, err := (cgroup.Group{Path: st.Cgroup}).Stats()
	if err != nil || stats.MemoryLimit != limit {
		t.Errorf("memory limit %d, %v, want %d", stats.MemoryLimit, err, limit)
	}
	mode, err := cgroup.Detect()
	if err != nil || mode == cgroup.Unified {
		return // device rules are a program there
	}
	if b, err := os.ReadFile("/sys/fs/cgroup/devices" + st.Cgroup + "/devices.list"); err != nil || strings.HasPrefix(string(b), "a *:* rwm") {
		t.Errorf("device rules %q, %v: all are allowed", b, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	exit, err := w.rt.Exec(t.Context(), c.ID(), runtime.Process{Args: []string{"cat", "/proc/self/cgroup"}, Stdout: f})
	if err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	b, err := os.ReadFile(out)
	if err != nil || len(b) == 0 {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) { // as the container's cgroup namespace shows it
		if !strings.HasSuffix(line, ":/\n") {
			t.Errorf("exec stands in %s", line)
		}
	}
}

func inGroup(t *testing.T, pid int, group string) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if parts[0] == "0" && strings.Count(string(b), "\n") > 1 {
			continue // no controllers
		}
		if parts[2] != group {
			t.Errorf("process %d: %s, want group %s", pid, strings.TrimSpace(line), group)
		}
	}
}

// TestGroupOfAKeeperGoesLate: a process that is on its way out when the keeper ends, as what a
// failed start has left may be, does not make its group stay. checkLeft looks.
func TestGroupOfAKeeperGoesLate(t *testing.T) {
	// In the keeper's group until a moment after the keeper has left it.
	late := exec.Command("sh", "-c", `while cat "$@" 2>/dev/null | grep -qx "$0"; do sleep 0.01; done; sleep 0.05`)
	ended := make(chan struct{})
	t.Cleanup(func() { // behind the world's own
		if late.Process != nil {
			late.Process.Kill()
			<-ended
		}
	})
	w := newWorld(t)
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + w.group + "/.keeper/cgroup.procs")
	v2, _ := filepath.Glob("/sys/fs/cgroup" + w.group + "/.keeper/cgroup.procs")
	if groups = append(groups, v2...); len(groups) == 0 {
		t.Fatal("the keeper has no group of its own")
	}
	late.Args = append(append(late.Args, strconv.Itoa(w.rt.KeeperPid())), groups...)
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { late.Wait(); close(ended) }()
	for _, g := range groups {
		if err := os.WriteFile(g, []byte(strconv.Itoa(late.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
}
