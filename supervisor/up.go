package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// upFor is how long an instance must have been up before a start or an apply
// is called done: most programs that cannot work say so by ending at once.
const upFor = 300 * time.Millisecond

// CrashError says that an instance's process ended right after its start. It
// is an ErrNotRunning.
type CrashError struct {
	Unit     string
	Instance string
	Exit     api.Exit
	After    time.Duration // how long it ran
}

func (e *CrashError) Error() string {
	return fmt.Sprintf("unit %s: container %s: %s %s after its start", e.Unit, e.Instance, exitWords(&e.Exit), max(e.After.Round(time.Millisecond), time.Millisecond))
}

func (e *CrashError) Unwrap() error { return ErrNotRunning }

// WaitUp blocks until every instance of the units has been up for a short
// while, as its current revision says, or has ended with success and stays so.
// It ends with an error as soon as one does not come up: its start failed
// (*StartError), its process ended right after it (*CrashError), or it was given
// up. The supervisor goes on trying what its policy lets it try.
func (s *Supervisor) WaitUp(ctx context.Context, names []string) error {
	w := upWait{seen: map[string]time.Time{}, settled: map[string]bool{}}
	return s.awaitMoment(ctx, func(snap *snapshot) (bool, time.Time, error) {
		var next time.Time
		all := true
		for _, name := range names {
			e := snap.find(name)
			if e == nil {
				return false, next, noSuchUnit(name)
			}
			ok, at, err := w.look(e)
			if err != nil {
				return false, next, err
			}
			if all = all && ok; !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		if !all && snap.down {
			return false, next, errGoingDown
		}
		return all, next, nil
	})
}

// upWait is what one WaitUp has seen.
type upWait struct {
	seen    map[string]time.Time // runs, since when they are up
	settled map[string]bool      // instances that have been up for long enough
}

// look tells whether the unit's instances are up, and when to look again.
func (w *upWait) look(e *entry) (ok bool, next time.Time, err error) {
	if e.unit.Intent != string(plan.Running) {
		return false, next, fmt.Errorf("unit %s: %w: it is %s", e.unit.Name, ErrNotRunning, e.unit.State)
	}
	now := time.Now()
	ok = true
	for _, i := range e.instances[:min(e.unit.Replicas, len(e.instances))] {
		up := i.run != "" && i.current
		switch {
		case w.settled[i.name] || i.completed:
			continue
		case !up && i.down != nil:
			return false, next, i.down
		case !up:
			ok = false
			continue
		}
		// The clock may have been set back since the start.
		if w.seen[i.run].IsZero() {
			w.seen[i.run] = now
		}
		due := w.seen[i.run].Add(upFor)
		if d := i.since.Add(upFor); d.Before(due) {
			due = d
		}
		if !due.After(now) {
			w.settled[i.name] = true
			continue
		}
		if ok = false; next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return ok, next, nil
}

// outcome is how an instance of the current revision has failed, or that it has
// done its work. What an earlier revision did, or a run from before a restart
// was asked for, says nothing.
func (l *loop) outcome(w *wanted, instance string, a state.Attempts) (down error, completed bool) {
	if a.Revision != w.rec.Revision || a.Restart < w.rec.Restart || a.Failures == 0 {
		return nil, false
	}
	unit := w.rec.Name
	if err := l.failures[instance]; err != nil {
		return err, false
	}
	if e := a.Ended; e != nil && e.Run == a.Run {
		ran := e.EndedAt.Sub(e.StartedAt)
		switch {
		case a.Done && a.Error == "":
			return nil, true
		case ran < upFor:
			return &CrashError{unit, instance, *wireExit(e), ran}, false
		}
	}
	if a.Done {
		return fmt.Errorf("unit %s: container %s: %w: %s", unit, instance, ErrNotRunning, a.Error), false
	}
	return nil, false
}
