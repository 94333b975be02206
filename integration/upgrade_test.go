package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/integration/harness"
)

// keeperFile is a copy of the keeper with more behind it, which the loader does
// not mind.
func keeperFile(t *testing.T, h *harness.Host, name, more string) string {
	t.Helper()
	b, err := os.ReadFile(h.Bin + "/wherry-keeper")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.Dir, name)
	if err := os.WriteFile(path, append(b, more...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// otherKeeper is a keeper of another build.
func otherKeeper(t *testing.T, h *harness.Host) string {
	t.Helper()
	return keeperFile(t, h, "other-keeper", "another build")
}

func keeperPid(t *testing.T, h *harness.Host) int {
	t.Helper()
	info, err := h.Client().Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return info.KeeperPid
}

func keeperExe(t *testing.T, pid int) string {
	t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// TestKeeperUpgraded: a daemon that comes back with a newer keeper beside it
// upgrades the one that runs, and no container notices.
func TestKeeperUpgraded(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	now := exiting(h, r, "seven")
	count, seven := h.Running("count", 1), h.Running("seven", 1)
	keeper := keeperPid(t, h)
	n := growsBeyond(t, h, 5)

	h.StopDaemon()
	other := otherKeeper(t, h)
	h.Start("--keeper", other)

	if pid := keeperPid(t, h); pid != keeper {
		t.Errorf("the keeper is pid %d, was %d", pid, keeper)
	}
	if exe := keeperExe(t, keeper); exe != other {
		t.Errorf("the keeper runs %s, want %s", exe, other)
	}
	if out := h.OK("events"); !strings.Contains(out, "upgraded in place") {
		t.Errorf("no event of the upgrade:\n%s", out)
	}
	if out := h.Run("status"); strings.Contains(out.Stderr, "not upgraded") {
		t.Errorf("status warns:\n%s", out.Stderr)
	}
	undisturbed(t, h, "count", count)
	undisturbed(t, h, "seven", seven)
	growsBeyond(t, h, n+20)
	touch(t, now)
	exitCode(t, h, "seven", 7)
	execs(t, h)
}

// TestKeeperUpgradedByReload: the package replaced the file, and a reload is
// all that is asked for.
func TestKeeperUpgradedByReload(t *testing.T) {
	r := registry(t)
	h := harness.NewHost(t)
	mine := keeperFile(t, h, "keeper", "")
	h.Start("--keeper", mine)
	counter(h, r)
	count, keeper := h.Running("count", 1), keeperPid(t, h)
	n := growsBeyond(t, h, 5)
	if err := os.Rename(otherKeeper(t, h), mine); err != nil {
		t.Fatal(err)
	}
	if out := h.OK("reload"); !strings.Contains(out, "keeper") {
		t.Errorf("reload does not name the keeper: %q", out)
	}
	if exe := keeperExe(t, keeper); exe != mine {
		t.Errorf("the keeper runs %s, want %s", exe, mine)
	}
	undisturbed(t, h, "count", count)
	growsBeyond(t, h, n+20)
	if out := h.OK("reload"); strings.Contains(out, "keeper") {
		t.Errorf("a second reload upgrades again: %q", out)
	}
}

// TestBrokenKeeperRefused: what cannot take over is not let near, and the
// operator is told.
func TestBrokenKeeperRefused(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	now := exiting(h, r, "seven")
	count, keeper := h.Running("count", 1), keeperPid(t, h)
	exe := keeperExe(t, keeper)
	n := growsBeyond(t, h, 5)
	script := filepath.Join(h.Dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho not today; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for binary, word := range map[string]string{"/bin/true": "no wherry-keeper", script: "not today"} {
		h.StopDaemon()
		h.Start("--keeper", binary)
		out := h.Run("status")
		if !strings.Contains(out.Stderr+out.Stdout, "keeper not upgraded") || !strings.Contains(out.Stderr+out.Stdout, word) {
			t.Errorf("%s: status says\n%s%s", binary, out.Stdout, out.Stderr)
		}
		if pid := keeperPid(t, h); pid != keeper || keeperExe(t, pid) != exe {
			t.Errorf("%s: the keeper is pid %d, was %d, and runs %s", binary, pid, keeper, keeperExe(t, pid))
		}
		undisturbed(t, h, "count", count)
		n = growsBeyond(t, h, n+20)
	}
	touch(t, now)
	exitCode(t, h, "seven", 7)
	execs(t, h)
}
