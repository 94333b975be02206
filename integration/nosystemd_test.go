package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// runit runs the service that we ship, in a folder of its own, for h.
func runit(t *testing.T, h *harness.Host) (sv func(verb string)) {
	t.Helper()
	for _, program := range []string{"runsv", "sv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no runit: scripts/setup test")
		}
	}
	run, err := os.ReadFile("../scripts/package/runit/wherry/run")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.Dir, "sv/wherry")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("WHERRY=%s/wherry\nWHERRY_FLAGS=\"%s\"\nexec >>%s/daemon.log\n", h.Bin, strings.Join(h.Flags(), " "), h.Dir)
	for name, text := range map[string]string{"run": string(run), "conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	service := exec.Command("runsv", dir)
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	sv = func(verb string) {
		t.Helper()
		if out, err := exec.Command("sv", "-w", "60", verb, dir).CombinedOutput(); err != nil {
			t.Errorf("sv %s: %v\n%s\n%s", verb, err, out, h.DaemonLog())
		}
	}
	t.Cleanup(func() {
		sv("force-stop")
		service.Process.Signal(syscall.SIGTERM) // it ends with its service
		service.Wait()
	})
	daemonAnswers(t, h, 0)
	return sv
}

// daemonAnswers waits for a daemon that is not the one with pid, and returns its pid.
func daemonAnswers(t *testing.T, h *harness.Host, pid int) int {
	t.Helper()
	now := 0
	harness.Eventually(t, 30*time.Second, "another daemon answers", func() bool {
		i, err := h.Client().Info(context.Background())
		now = i.Pid
		return err == nil && now != pid
	})
	return now
}

// TestRunit: where systemd is not, the service that we ship restarts a daemon that was killed, and
// whatever becomes of the daemon, containers go on.
func TestRunit(t *testing.T) {
	r := registry(t)
	h := harness.NewHost(t)
	sv := runit(t, h)
	counter(h, r)
	now := exiting(h, r, "seven")
	count := h.Running("count", 1)
	keeper, daemon := keeperPid(t, h), daemonAnswers(t, h, 0)
	n := growsBeyond(t, h, 5)

	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	daemon = daemonAnswers(t, h, daemon)
	undisturbed(t, h, "count", count)

	sv("restart")
	daemon = daemonAnswers(t, h, daemon)
	undisturbed(t, h, "count", count)

	sv("stop")
	if r := h.Run("status"); r.Code != 5 {
		t.Errorf("status after sv stop: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := syscall.Kill(count.Pid, 0); err != nil {
		t.Errorf("sv stop took the container with it: %v", err)
	}
	touch(t, now) // ends while no daemon is there
	sv("start")
	daemonAnswers(t, h, daemon)
	undisturbed(t, h, "count", count)
	exitCode(t, h, "seven", 7)
	growsBeyond(t, h, n+20)
	if pid := keeperPid(t, h); pid != keeper {
		t.Errorf("the keeper is pid %d, was %d", pid, keeper)
	}

	// The keeper that the daemon started, it starts again.
	h.KillKeeper()
	undisturbed(t, h, "count", count)
	growsBeyond(t, h, n+40)
	execs(t, h)
}
