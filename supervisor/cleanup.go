package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// cleanup removes everything of a run, whatever of it there is. It needs only
// the run's id: a failed start, a removal and the recovery after a crash are
// the same code, and to do it twice does no harm.
type cleanup struct {
	s    *Supervisor
	run  string
	unit string // goes with its run, of which alone the disk knows it; empty: it stays
}

// once tries every step, also after one failed. The run's folder goes last and
// only if all else is gone: as long as it is there, the next daemon tries again.
func (c cleanup) once(ctx context.Context) error {
	names, err := c.containers(ctx)
	if err != nil {
		return err
	}
	if len(names) > 1 {
		// Half removed, it would look like one that is half started.
		if err := c.mark(); err != nil {
			return err
		}
	}
	steps := make([]step, 0, 4+2*len(names))
	for _, name := range slices.Backward(names) {
		steps = append(steps, step{stepContainer, func(ctx context.Context) error { return c.container(ctx, name, c.mark) }})
	}
	steps = append(steps,
		step{stepDetach, func(ctx context.Context) error { return c.s.net.Detach(ctx, c.run) }},
		step{stepLetGo, func(ctx context.Context) error { return c.s.rt.ReleaseNamespaces(ctx, c.run) }},
		step{stepIDs, func(context.Context) error { return c.s.users.Release(c.run) }})
	for _, name := range names {
		steps = append(steps, step{stepRelease, func(context.Context) error { return c.s.img.Release(containerID(c.run, name)) }})
	}
	// Before runs could have several containers, the lease had the run's name.
	steps = append(steps, step{stepRelease, func(context.Context) error { return c.s.img.Release(c.run) }})
	if c.unit != "" {
		steps = append(steps, step{stepForget, func(context.Context) error { return c.s.forget(c.unit) }})
	}
	return c.all(ctx, steps, step{stepFolder, func(context.Context) error { return c.discard(c.s.paths.run(c.run), c.run) }})
}

// mark has the next daemon go on with the removal of the run, whatever is found of it.
func (c cleanup) mark() error {
	if err := os.WriteFile(c.s.paths.removing(c.run), nil, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// forget deletes a unit's logs and exits.
func (s *Supervisor) forget(unit string) error {
	return errors.Join(os.RemoveAll(s.paths.unitLogs(unit)), s.exits.Forget(unit))
}

// member removes what belongs to one of the run's containers, so that it can be
// started again. Its anonymous volumes stay: they live as long as the run.
func (c cleanup) member(ctx context.Context, name string) error {
	dir := c.s.paths.container(c.run, name)
	return c.all(ctx, []step{
		{stepContainer, func(ctx context.Context) error { return c.container(ctx, name, func() error { return nil }) }},
		{stepRelease, func(context.Context) error { return c.s.img.Release(containerID(c.run, name)) }},
	}, step{stepFolder, func(context.Context) error {
		return errors.Join(c.discard(filepath.Join(dir, "upper"), containerID(c.run, name)), os.RemoveAll(filepath.Join(dir, "work")))
	}})
}

// all does the steps, and the last one if none of them failed.
func (c cleanup) all(ctx context.Context, steps []step, last step) error {
	var errs []error
	for i, step := range append(steps, last) {
		if i == len(steps) && len(errs) > 0 {
			break
		}
		if c.s.fault(step.name) {
			return errDied
		}
		began := time.Now()
		err := step.do(ctx)
		c.s.log.Debug("clean up", "run", c.run, "step", step.name, "took", time.Since(began))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
		}
	}
	return errors.Join(errs...)
}

// containers are the names of the run's containers in the order of their start. If nobody
// can read them any more, they are those that the keeper knows.
func (c cleanup) containers(ctx context.Context) (names []string, err error) {
	rec, err := readRecord(c.s.paths, c.run)
	if err == nil {
		for _, con := range unit.StartOrder(rec.Revision.Definition.Containers) {
			names = append(names, con.Name)
		}
		return names, nil
	}
	all, err := c.s.rt.List(ctx)
	for _, st := range all {
		if st.Run == c.run {
			names = append(names, st.Container)
		}
	}
	return names, err
}

// discard takes a folder away at once and deletes it in the background: a
// container may have written a million files, and nobody needs to wait for that.
func (c cleanup) discard(dir, name string) error {
	trash := filepath.Join(c.s.paths.runs(), trashPrefix+name)
	err := os.Rename(dir, trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return os.RemoveAll(dir)
	}
	c.s.background.Go(func() { c.s.empty(trash) })
	return nil
}

// trashPrefix is that of folders under runs/ that are being deleted.
const trashPrefix = ".trash-"

// emptyTrash deletes what an earlier daemon did not come to.
func (s *Supervisor) emptyTrash() {
	found, _ := filepath.Glob(filepath.Join(s.paths.runs(), trashPrefix+"*"))
	for _, trash := range found {
		s.background.Go(func() { s.empty(trash) })
	}
}

func (s *Supervisor) empty(trash string) {
	if err := os.RemoveAll(trash); err != nil {
		s.log.Warn("trash not deleted, the next start of the daemon tries again", "err", err)
	}
}

// container ends and forgets a container, if the keeper knows it; before it ends one, it calls mark.
func (c cleanup) container(ctx context.Context, name string, mark func() error) error {
	id := containerID(c.run, name)
	err := c.s.rt.Remove(ctx, id)
	if err == nil {
		return nil
	}
	// It runs, though nobody counts on it: a start whose answer was lost. Killed, it would look like one that has crashed.
	if err := mark(); err != nil { // on a full disk, perhaps: that it goes is worth more
		c.s.log.Warn("removal not noted", "run", c.run, "err", err)
	}
	if err := c.s.rt.Kill(ctx, id); err != nil && !errors.Is(err, runtime.ErrNotFound) && !errors.Is(err, runtime.ErrNotRunning) {
		return err
	}
	if _, err := c.s.rt.Wait(ctx, id); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	return c.s.rt.Remove(ctx, id)
}

// untilDone tries until it works or ctx ends.
func (c cleanup) untilDone(ctx context.Context) error {
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, time.Minute) {
		limited, cancel := detached(ctx)
		err := c.once(limited)
		cancel()
		if err == nil || errors.Is(err, errDied) {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		c.s.event(api.Event{Type: event.Cleanup, Run: c.run, Message: "not removed, tried again: " + err.Error()})
		if !sleep(ctx, wait) {
			return err
		}
	}
}
