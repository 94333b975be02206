package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// list returns all containers, by id.
func (k *Keeper) list() []runtime.Status {
	k.mu.Lock()
	all := make([]*container, 0, len(k.containers))
	for _, c := range k.containers {
		all = append(all, c)
	}
	k.mu.Unlock()
	out := make([]runtime.Status, 0, len(all))
	for _, c := range all {
		out = append(out, c.snapshot().Status)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// signal sends a signal, by default the stop signal, to the main process. With an init that is the init,
// which passes it on, but for the one signal that nobody can catch and hand on:
// a stopped init would help no one.
func (k *Keeper) signal(id, name string) error {
	c, err := k.running(id)
	if err != nil {
		return err
	}
	if name == "" {
		name = cmp.Or(c.snapshot().StopSignal, "SIGTERM")
	}
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	if st := c.snapshot(); st.Init && sig == unix.SIGSTOP {
		if child := holdChild(st.Pid); child != nil {
			defer child.close()
			return child.signal(sig)
		}
	}
	if sig == unix.SIGKILL {
		k.noteKill(c)
	}
	if err := k.reach(atSignal, c); err != nil {
		return err
	}
	if err := c.proc.signal(sig); errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	} else if err != nil {
		return fmt.Errorf("container %s: signal %s: %w", id, name, err)
	}
	if err := k.reach(atSignaled, c); err != nil {
		return err
	}
	if c.snapshot().Paused {
		return k.thaw(c) // the signal is the first that it sees
	}
	return nil
}

// parseSignal knows "SIGHUP", "HUP", "hup" and "1".
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("signal %d: there is none", n)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("signal %q: there is none", s)
}

// running returns a container that runs.
func (k *Keeper) running(id string) (*container, error) {
	c, err := k.find(id)
	if err != nil {
		return nil, err
	}
	// Without a process: it ended while no keeper was there, and how is just being worked out.
	if c.snapshot().State != runtime.Running || c.proc == nil {
		return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	}
	return c, nil
}

// kill ends every process of the container. A start that is under way is called off, and leaves nothing; or, if it is
// too late for that, what it has started is killed.
func (k *Keeper) kill(ctx context.Context, id string) error {
	if c, err := k.find(id); err == nil {
		if c.callOff != nil {
			c.callOff()
		}
		if err := c.awaitBegun(ctx); err != nil {
			return fmt.Errorf("container %s: %w", id, err)
		}
	}
	c, err := k.running(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, groupDeadline)
	defer cancel()
	st := c.snapshot()
	k.noteKill(c)
	if err := k.reach(atKillNoted, c); err != nil {
		return err
	}
	c.proc.signal(unix.SIGKILL) // with a PID namespace that is already all
	if err := (cgroup.Group{Path: st.Cgroup}).Kill(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return k.reach(atKilled, c)
}

// noteKill keeps that what comes next is our doing: a killed init leaves no
// record, and a keeper that is not its parent would not know.
func (k *Keeper) noteKill(c *container) {
	if err := k.update(c, func(st *state) { st.Killed = true }); err != nil {
		k.logger.Warn("cannot keep that a container is killed", "container", c.snapshot().ID, "err", err)
	}
}

// wait blocks until the container has ended and its output is in the log.
func (k *Keeper) wait(ctx context.Context, id string) (runtime.Status, error) {
	c, err := k.find(id)
	if err != nil {
		return runtime.Status{}, err
	}
	select {
	case <-c.settled:
		return c.snapshot().Status, nil
	case <-c.failed:
		return runtime.Status{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	case <-ctx.Done():
		return runtime.Status{}, ctx.Err()
	}
}

// remove forgets an ended container. One that is not there is no error.
func (k *Keeper) remove(ctx context.Context, id string) error {
	c, err := k.find(id)
	if err != nil {
		return nil
	}
	if s := c.snapshot().State; s != runtime.Exited && !c.hasFailed() {
		return fmt.Errorf("container %s: is still %s", id, s)
	}
	select {
	case <-c.settled:
	case <-c.failed: // and what could not be undone then is to be tried again
	case <-ctx.Done(): // its last output is on its way to the log
		return fmt.Errorf("container %s: %w", id, ctx.Err())
	}
	c.removing.Lock()
	defer c.removing.Unlock()
	if now, err := k.find(id); err != nil || now != c {
		return nil // another caller's removal was faster: what has that id now is a new container
	}
	st := c.snapshot()
	if err := os.RemoveAll(k.layout.Container(st.Run, st.Container)); err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	err = k.reach(atRemove, c)
	if err == nil {
		err = k.sweep(&st)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

// newNetNS makes a network namespace that nothing but the returned file holds.
func newNetNS() (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends, and with it its stay in the namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- result{f, err}
	}()
	r := <-done
	return r.f, r.err
}
