package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/copying"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// OpenRoot opens the root folder of the target's container: of one that runs, with its
// volumes, else of the last one that ran, as long as it is kept. The caller closes Dir. what, if
// not empty, is recorded as done to it.
func (s *Supervisor) OpenRoot(ctx context.Context, word, what, by string) (copying.Root, error) {
	t, err := s.snap.Load().target(word)
	if err != nil {
		return copying.Root{}, err
	}
	st, err := s.lastOf(ctx, t)
	if err != nil {
		return copying.Root{}, err
	}
	if what != "" {
		s.event(api.Event{Type: event.Copy, Unit: st.Unit, Instance: st.Instance, Run: st.Run, By: by, Message: what})
	}
	dir, err := s.rt.Root(ctx, st.ID)
	if errors.Is(err, runtime.ErrNotFound) || errors.Is(err, runtime.ErrNotRunning) {
		err = fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return copying.Root{}, fmt.Errorf("unit %s: container %s: %w", st.Unit, st.Instance, err)
	}
	root := copying.Root{Dir: dir}
	if st.IDMap != nil {
		root.IDs = &copying.IDs{Host: st.IDMap.HostID, Size: st.IDMap.Size}
	}
	return root, nil
}

// lastOf is the target's one container: one that runs, or else the one that began last.
func (s *Supervisor) lastOf(ctx context.Context, t target) (best runtime.Status, err error) {
	at, err := t.running()
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return best, err
	}
	if at.container == "" {
		if at.container = t.container; at.container == "" {
			at.container = t.entry.containers()[0]
		}
	}
	all, err := s.rt.List(ctx)
	if err != nil {
		return best, err
	}
	for _, st := range all {
		if st.Unit != t.entry.unit.Name || st.Container != at.container || t.instance != "" && st.Instance != t.instance ||
			st.State == runtime.Creating {
			continue
		}
		if at.run == st.Run || at.run == "" && (best.ID == "" || st.StartedAt.After(best.StartedAt)) {
			best = st
		}
	}
	if best.ID == "" {
		return best, fmt.Errorf("unit %s: %w: nothing is kept of it", t.entry.unit.Name, ErrNotRunning)
	}
	return best, nil
}
