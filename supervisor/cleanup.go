package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// cleanup removes everything of a run, whatever of it there is. It needs only
// the run's id: a failed start, a removal and the recovery after a crash are
// the same code, and to do it twice does no harm.
type cleanup struct {
	s   *Supervisor
	run string
}

// once tries every step, also after one failed. The run's folder goes last and
// only if all else is gone: as long as it is there, the next daemon tries again.
func (c cleanup) once(ctx context.Context) error {
	var errs []error
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{stepContainer, c.container},
		{stepDetach, func(ctx context.Context) error { return c.s.net.Detach(ctx, c.run) }},
		{stepLetGo, func(ctx context.Context) error { return c.s.rt.ReleaseNamespaces(ctx, c.run) }},
		{stepRelease, func(context.Context) error { return c.s.img.Release(c.run) }},
		{stepFolder, func(context.Context) error {
			if len(errs) > 0 {
				return nil
			}
			return c.discard()
		}},
	} {
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

// discard takes the folder away at once and deletes it in the background: a
// container may have written a million files, and nobody needs to wait for that.
func (c cleanup) discard() error {
	trash := filepath.Join(c.s.paths.runs(), trashPrefix+c.run)
	err := os.Rename(c.s.paths.run(c.run), trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return os.RemoveAll(c.s.paths.run(c.run))
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

// container ends and forgets the container, if the keeper knows one.
func (c cleanup) container(ctx context.Context) error {
	id := c.run + "." + container
	err := c.s.rt.Remove(ctx, id)
	if err == nil {
		return nil
	}
	// It runs, though nobody counts on it: a start whose answer was lost.
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
