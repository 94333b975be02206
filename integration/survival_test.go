package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
	"github.com/wherry-run/wherry/supervisor/api"
)

// counter is a unit whose container counts to its log, a line every 10 ms.
func counter(h *harness.Host, r *harness.Registry) {
	h.Apply("count", fmt.Sprintf(`
image: %s
network: none
restart: no
entrypoint: [sh, -c, "i=0; while :; do i=$((i+1)); echo n $i; usleep 10000; done"]
`, r.Ref("busybox")))
}

// countedTo checks that a counter's log has every number, in order, each at
// least once (a piece may repeat at the point where a keeper was killed), and
// returns the last.
func countedTo(t *testing.T, log string) int {
	t.Helper()
	want := 1
	for line := range strings.Lines(log) {
		n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "n ")))
		if err != nil {
			t.Fatalf("not a line of the counter: %q", line)
		}
		switch {
		case n == want:
			want++
		case n > want:
			t.Fatalf("lines %d to %d are missing", want, n-1)
		}
	}
	return want - 1
}

// growsBeyond waits until the counter has logged more than n.
func growsBeyond(t *testing.T, h *harness.Host, n int) int {
	t.Helper()
	var last int
	harness.Eventually(t, 30*time.Second, fmt.Sprintf("the counter goes on after %d", n), func() bool {
		last = countedTo(t, h.OK("logs", "count"))
		return last > n
	})
	return last
}

// exiting makes a unit that ends with code 7 once the file go appears.
func exiting(h *harness.Host, r *harness.Registry, name string) (goFile string) {
	dir := filepath.Join(h.Dir, "go-"+name)
	os.Mkdir(dir, 0o755)
	h.Apply(name, fmt.Sprintf(`
image: %s
network: none
restart: no
volumes: ["%s:/go"]
entrypoint: [sh, -c, "until [ -e /go/now ]; do usleep 10000; done; exit 7"]
`, r.Ref("busybox"), dir))
	return filepath.Join(dir, "now")
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// ended waits until the process is gone or a zombie.
func ended(t *testing.T, pid int) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, fmt.Sprintf("process %d ends", pid), func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z")
	})
}

// exitOf waits for the exit of the unit's first instance.
func exitOf(t *testing.T, h *harness.Host, unit string) (e api.Exit) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, unit+" has an exit", func() bool {
		u := h.Unit(unit)
		if len(u.Instances) == 0 || u.Instances[0].Exit == nil {
			return false
		}
		e = *u.Instances[0].Exit
		return true
	})
	return e
}

func exitCode(t *testing.T, h *harness.Host, unit string, want int) {
	t.Helper()
	e := exitOf(t, h, unit)
	if e.Unknown || e.Signal != "" || e.Code != want {
		t.Errorf("%s: exit %+v, want code %d", unit, e, want)
	}
}

// undisturbed: the unit's first instance is the same process as before, of the
// same run.
func undisturbed(t *testing.T, h *harness.Host, unit string, before api.Instance) {
	t.Helper()
	if got := h.Running(unit, 1); got.Pid != before.Pid || got.Run != before.Run {
		t.Errorf("%s is pid %d of run %s, was pid %d of run %s", unit, got.Pid, got.Run, before.Pid, before.Run)
	}
}

// execs: the counter's container still takes commands.
func execs(t *testing.T, h *harness.Host) {
	t.Helper()
	if out := h.OK("exec", "count", "echo", "hi"); out != "hi\n" {
		t.Errorf("exec: %q", out)
	}
}

func TestDaemonKilled(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	now := exiting(h, r, "seven")
	count, seven := h.Running("count", 1), h.Running("seven", 1)
	n := growsBeyond(t, h, 5)

	h.KillDaemon()
	touch(t, now)
	ended(t, seven.Pid)
	h.Start()

	undisturbed(t, h, "count", count)
	exitCode(t, h, "seven", 7)
	growsBeyond(t, h, n+20)
	execs(t, h)
}

func TestKeeperKilled(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	now := exiting(h, r, "seven")
	count, seven := h.Running("count", 1), h.Running("seven", 1)
	n := growsBeyond(t, h, 5)

	for range 3 {
		h.KillKeeper()
		n = growsBeyond(t, h, n+20)
	}
	undisturbed(t, h, "count", count)
	undisturbed(t, h, "seven", seven)
	touch(t, now)
	exitCode(t, h, "seven", 7)
	execs(t, h)
}

// TestBothKilled: with daemon and keeper gone, a container that ends meanwhile
// has told its init's record, and one that goes on loses no line.
func TestBothKilled(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	now := exiting(h, r, "seven")
	count, seven := h.Running("count", 1), h.Running("seven", 1)
	n := growsBeyond(t, h, 5)
	keeper := keeperPid(t, h)
	h.KillDaemon()
	kill9(t, keeper)
	touch(t, now)
	ended(t, seven.Pid)
	h.Start()
	undisturbed(t, h, "count", count)
	exitCode(t, h, "seven", 7)
	growsBeyond(t, h, n+20)
}

// TestInitKilledUnseen: nobody can know the code of a container whose init was
// killed while no keeper lived, unless the kernel tells; it is never 0.
func TestInitKilledUnseen(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	count := h.Running("count", 1)
	keeper := keeperPid(t, h)
	h.KillDaemon()
	kill9(t, keeper)
	kill9(t, count.Pid)
	ended(t, count.Pid)
	h.Start()
	if e := exitOf(t, h, "count"); !e.Unknown && e.Signal != "SIGKILL" {
		t.Errorf("exit %+v, want unknown or SIGKILL", e)
	}
}
