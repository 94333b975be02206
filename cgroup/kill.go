package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// removeLimit bounds Remove where its context does not.
const removeLimit = 5 * time.Second

// Kill ends every process in it: cgroup.kill where there is one, else freeze,
// kill and thaw until none is left.
func (g Group) Kill(ctx context.Context) error {
	h, err := g.host("kill")
	if err != nil {
		return err
	}
	return g.wrap("kill", h.kill(ctx, g.Path))
}

func (h *host) kill(ctx context.Context, group string) error {
	// On a hybrid host the v2 hierarchy has cgroup.kill as well, but a process
	// may stand in the v1 group only: the loop below looks again.
	patience := 0
	if h.killAtOnce(group) {
		patience = 4 // some milliseconds for them to go
	}
	for pause := (backoff{}); ; {
		pids, err := h.procs(group)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && len(pids) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
		if pause.n >= patience {
			h.killEach(group)
		}
		if err := pause.wait(ctx); err != nil {
			return fmt.Errorf("%d processes are left: %w", len(pids), err)
		}
	}
}

// killAtOnce uses cgroup.kill (5.14 and newer). A frozen v1 group is thawed,
// or its processes would never see the signal; v2 kills frozen ones.
func (h *host) killAtOnce(group string) bool {
	if h.unified == "" || writeFile(filepath.Join(h.unified, group, "cgroup.kill"), "1") != nil {
		return false
	}
	if h.mode == Legacy {
		h.thaw(group)
	}
	return true
}

// killEach signals each process while all are frozen, so that none can fork
// and no process id can pass to somebody else.
func (h *host) killEach(group string) {
	h.freeze(group)
	defer h.thaw(group)
	pids, err := h.procs(group)
	if err != nil {
		return
	}
	for _, pid := range pids {
		if pid != os.Getpid() { // a thread of ours may be passing through on v1
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// freeze asks for it and waits a moment. On v1 a group may stay "FREEZING"
// while a process sleeps uninterruptibly; the kill goes on without.
func (h *host) freeze(group string) {
	if h.mode == Unified {
		writeFile(filepath.Join(h.unified, group, "cgroup.freeze"), "1")
		return
	}
	state := h.file("freezer", group, "freezer.state")
	if state == "" {
		return
	}
	for range 10 {
		if writeFile(state, "FROZEN") != nil {
			return
		}
		if b, err := os.ReadFile(state); err != nil || strings.TrimSpace(string(b)) == "FROZEN" {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *host) thaw(group string) {
	if h.mode == Unified {
		writeFile(filepath.Join(h.unified, group, "cgroup.freeze"), "0")
		return
	}
	dir := h.file("freezer", group, "")
	if dir == "" {
		return
	}
	walk(dir, func(dir string) error {
		writeFile(filepath.Join(dir, "freezer.state"), "THAWED")
		return nil
	})
}

// Remove deletes the group and those below it, in every hierarchy. A group
// that is not there is no error. It waits up to five seconds, or as long as
// ctx allows if that is shorter, for processes that are just ending.
func (g Group) Remove(ctx context.Context) error {
	h, err := g.host("remove")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	for pause := (backoff{}); ; {
		err := h.remove(g.Path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return g.wrap("remove", err)
		}
		if pause.wait(ctx) != nil {
			if pids, perr := h.procs(g.Path); perr == nil && len(pids) > 0 {
				err = fmt.Errorf("%d processes are in it, first %d: %w", len(pids), pids[0], unix.EBUSY)
			}
			return g.wrap("remove", err)
		}
	}
}

// remove tries once, everywhere, and returns the first error.
func (h *host) remove(group string) error {
	var first error
	for _, root := range h.roots() {
		err := walk(filepath.Join(root, group), func(dir string) error {
			err := unix.Rmdir(dir)
			if err != nil && !gone(err) {
				return &os.PathError{Op: "rmdir", Path: dir, Err: err}
			}
			return nil
		})
		if err != nil && (first == nil || !errors.Is(err, unix.EBUSY)) {
			first = err
		}
	}
	return first
}

// backoff waits ever longer, from half a millisecond to 50.
type backoff struct{ n int }

func (b *backoff) wait(ctx context.Context) error {
	d := min(500*time.Microsecond<<min(b.n, 10), 50*time.Millisecond)
	b.n++
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// writeFile writes to a file of the kernel's in one write, without creating it.
func writeFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}
