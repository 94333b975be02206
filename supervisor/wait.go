package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// awaitSnapshot blocks until done says so of a snapshot.
func (s *Supervisor) awaitSnapshot(ctx context.Context, done func(*snapshot) (bool, error)) error {
	return s.awaitMoment(ctx, func(snap *snapshot) (bool, time.Time, error) {
		ok, err := done(snap)
		return ok, time.Time{}, err
	})
}

// awaitMoment is awaitSnapshot for what also depends on time: done says when
// it wants to look again, even if nothing changes; the zero time is never.
func (s *Supervisor) awaitMoment(ctx context.Context, done func(*snapshot) (bool, time.Time, error)) error {
	for {
		snap := s.snap.Load()
		ok, at, err := done(snap)
		if ok || err != nil {
			return err
		}
		var due <-chan time.Time
		if !at.IsZero() {
			due = time.After(time.Until(at))
		}
		select {
		case <-snap.changed:
		case <-due:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.over:
			return ErrUnavailable
		}
	}
}

// WaitExit blocks until the unit's first instance has ended for good (no
// restart will follow) and tells how. A unit that has been removed meanwhile,
// or shortly before, is still known.
func (s *Supervisor) WaitExit(ctx context.Context, name string) (api.Exit, error) {
	var exit *api.Exit
	var serial uint64
	err := s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
		e := snap.find(name)
		if e == nil || serial != 0 && e.serial != serial {
			if exit = s.last.get(name, serial); exit == nil {
				return false, noSuchUnit(name)
			}
			return true, nil
		}
		serial = e.serial
		if !e.final {
			return false, nil
		}
		exit = e.exit
		if exit == nil && len(e.instances) > 0 && e.instances[0].err != nil {
			return false, e.instances[0].err
		}
		if exit == nil {
			return false, fmt.Errorf("unit %s: %w", name, ErrNotRunning)
		}
		return true, nil
	})
	if err != nil {
		return api.Exit{}, err
	}
	return *exit, nil
}

// WaitState blocks until every named unit is in the state ("running",
// "stopped", ...) or cannot reach it any more.
func (s *Supervisor) WaitState(ctx context.Context, names []string, state string) error {
	if !slices.Contains(states, state) {
		return invalid("state %s: one of %s", state, strings.Join(states, ", "))
	}
	return s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
		all := true
		for _, name := range names {
			e := snap.find(name)
			if e == nil {
				return false, noSuchUnit(name)
			}
			ok, err := reached(e, state)
			if err != nil {
				return false, err
			}
			all = all && ok
		}
		return all, nil
	})
}

var states = []string{plan.StateRunning, plan.StateStopped, plan.StateCompleted, plan.StateFailed, plan.StateDegraded,
	plan.StateStarting, plan.StatePulling, plan.StateWaiting, plan.StateBackoff, plan.StateStopping, statePaused}

// atRest are the states that a unit leaves only when somebody asks for it.
var atRest = []string{plan.StateStopped, plan.StateCompleted, plan.StateFailed}

func reached(e *entry, state string) (bool, error) {
	is := e.unit.State
	switch {
	case is == state, is == statePaused && state == plan.StateRunning: // it runs; that it stands still is somebody's wish
		return true, nil
	case !slices.Contains(atRest, is):
		return false, nil
	case state == plan.StateStopped: // nothing of it runs
		return true, nil
	}
	why := ""
	if e.unit.Reason != "" {
		why = ": " + e.unit.Reason
	}
	return false, fmt.Errorf("unit %s: %w: it is %s and stays so%s", e.unit.Name, ErrNotRunning, is, why)
}

// autoGrace is how long a unit that somebody stands by to remove is left alone.
const autoGrace = 10 * time.Second

// autoRemove removes the units that asked for it once they have ended for
// good, also if the client that started them has died. Nobody's unread output
// is taken away: readers come first. It tells whether there is something new
// to plan.
func (l *loop) autoRemove(now time.Time) (again bool) {
	if l.ending {
		return false
	}
	l.lapse = time.Time{}
	if l.descent != nil {
		return false
	}
	for name := range l.auto {
		w := l.units[name]
		e := l.snap.Load().find(name)
		if w == nil || e == nil || e.serial != w.serial || w.rec.Intent == plan.Removed {
			continue
		}
		if !e.final || e.live > 0 {
			w.endedAt = time.Time{}
			continue
		}
		if w.endedAt.IsZero() {
			w.endedAt = now
		}
		due := w.endedAt
		if w.attached || w.readers.Load() > 0 {
			due = due.Add(autoGrace)
		}
		switch {
		case due.After(now) && (l.lapse.IsZero() || due.Before(l.lapse)):
			l.lapse = due
		case due.After(now):
		case w.readers.Load() > 0: // a reader that hangs on; look again
			w.endedAt = now
			l.lapse = now.Add(autoGrace)
		default:
			l.change(name, func(w *wanted) { w.rec.Intent = plan.Removed })
			l.undo = nil // lazy: nothing to take back
			again = true
		}
	}
	return again
}

// nudge makes the loop look again.
type nudge struct{}

func (nudge) handle(*loop) {}
