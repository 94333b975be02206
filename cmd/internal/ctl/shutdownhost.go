package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// hostStops asks systemd whether the host goes down (or restarts only its user space). It does so
// over systemd's own socket, which works until the end, without D-Bus.
func hostStops(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "is-system-running").Output()
	word := strings.TrimSpace(string(out))
	if word == "" && err != nil { // any other state but "running" is an exit code as well
		return false, &term.Failure{Code: term.ExitFailed, Err: fmt.Errorf("cannot ask systemd whether the host stops: %w", err)}
	}
	return word == "stopping", nil
}

// extendStop asks systemd for time, if it has started us and its TimeoutStopSec is shorter.
func extendStop(d time.Duration) {
	_, _ = daemon.SdNotify(false, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// shutdownHost is shutdown for a host that goes down in any case: what runs is ended, with the
// daemon's help or without.
func (a *app) shutdownHost(ctx context.Context, budget time.Duration) error {
	err := a.shutdown(ctx, budget)
	if err == nil || !errors.Is(err, api.ErrUnreachable) && !errors.Is(err, errHangs) {
		return err
	}
	a.note("no daemon answers (%v): what runs is ended without it", err)
	if errors.Is(err, api.ErrUnreachable) && budget == 0 {
		budget = fallbackBudget
	} else if errors.Is(err, errHangs) && !errors.Is(err, api.ErrUnreachable) {
		budget = 0 // it has had its time
	}
	extendStop(budget + 2*shutdownPatience)
	return endAll(ctx, os.Getenv("WHERRY_CGROUP_PARENT"), budget)
}

// endAll ends all processes of the groups below parent: without a daemon nobody knows an order.
// Otherwise systemd would do it at the very end, after up to a minute and a half.
func endAll(ctx context.Context, parent string, budget time.Duration) error {
	var errs []error
	left := groupsBelow(parent)
	for _, g := range left {
		pids, _ := g.Procs()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGTERM) // it may have ended meanwhile
		}
	}
	for deadline := time.Now().Add(budget); anyProcess(left) && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(100 * time.Millisecond)
	}
	limited, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	for _, g := range left {
		if err := g.Kill(limited); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func anyProcess(groups []cgroup.Group) bool {
	for _, g := range groups {
		if pids, err := g.Procs(); err == nil && len(pids) > 0 {
			return true
		}
	}
	return false
}

// cargoGroup is where wherry-cargo.service keeps its own process, see its DelegateSubgroup=.
const cargoGroup = "cargo"

// groupsBelow are the groups of containers directly below parent.
func groupsBelow(parent string) []cgroup.Group {
	if parent == "" {
		return nil
	}
	entries, _ := os.ReadDir(filepath.Join("/sys/fs/cgroup", parent))
	var groups []cgroup.Group
	for _, e := range entries {
		if e.IsDir() && e.Name() != cargoGroup {
			groups = append(groups, cgroup.Group{Path: filepath.Join("/", parent, e.Name())})
		}
	}
	return groups
}
