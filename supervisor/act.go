package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
)

func noSuchUnit(name string) error { return fmt.Errorf("%w: %s", ErrNoSuchUnit, name) }

func ambiguous(prefix string, names []string) error {
	return fmt.Errorf("%w: %s could be %s", ErrAmbiguous, prefix, strings.Join(names, ", "))
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// The verbs that change an intent.
const (
	verbStart   = "start"
	verbStop    = "stop"
	verbRestart = "restart"
	verbRemove  = "rm"
)

// Start, Stop, Restart and Remove change the intent and, unless NoWait, wait
// for the effect. The result is the units acted on.
//
// Start of a unit that has given up, or waits for its next try, tries at once.
// If a start fails, or a process ends right after it, that error is returned;
// the unit goes on trying. See WaitUp.
func (s *Supervisor) Start(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return s.act(ctx, verbStart, r, by)
}

// Stop waits until nothing of the units runs. Timeout replaces their grace
// period, also that of a stop which is already under way.
func (s *Supervisor) Stop(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return s.act(ctx, verbStop, r, by)
}

// Restart replaces the runs of the units, one replica after the other. It
// starts a unit that was stopped.
func (s *Supervisor) Restart(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return s.act(ctx, verbRestart, r, by)
}

// Remove stops the units and deletes them with their logs and anonymous
// volumes; named volumes stay. With Force their processes are killed at once.
func (s *Supervisor) Remove(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return s.act(ctx, verbRemove, r, by)
}

func (s *Supervisor) act(ctx context.Context, verb string, r api.ActRequest, by string) ([]string, error) {
	before := s.snap.Load()
	names, err := before.selected(verb, r)
	if err != nil || len(names) == 0 {
		return names, err
	}
	reply := make(chan error, 1)
	if err := s.send(ctx, intend{verb: verb, units: names, request: r, by: by, reply: reply}, reply); err != nil {
		return nil, err
	}
	if r.NoWait {
		return names, nil
	}
	if r.Timeout > 0 && verb != verbStop {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(r.Timeout), ErrTimeout)
		defer cancel()
	}
	for _, name := range names {
		if err := s.awaitEffect(ctx, verb, name, before.find(name)); err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("unit %s: %s: %w", name, verb, context.Cause(ctx))
			}
			return names, err
		}
	}
	return names, nil
}

// selected finds the units meant. Removal wants exact names, unless Glob.
func (s *snapshot) selected(verb string, r api.ActRequest) ([]string, error) {
	if r.All {
		var names []string
		for _, e := range s.entries {
			names = append(names, e.unit.Name)
		}
		return names, nil
	}
	if len(r.Units) == 0 {
		return nil, invalid("no unit named")
	}
	if verb == verbRemove && !r.Glob {
		for _, name := range r.Units {
			if s.find(name) == nil {
				return nil, noSuchUnit(name)
			}
		}
	}
	return s.matches(r.Units)
}

// awaitEffect waits until the verb has done to the unit what it should; was is
// the unit before.
func (s *Supervisor) awaitEffect(ctx context.Context, verb, name string, was *entry) error {
	err := s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
		e := snap.find(name)
		if e == nil || e.serial != was.serial {
			if verb == verbRemove || verb == verbStop {
				return true, nil
			}
			return false, noSuchUnit(name)
		}
		switch verb {
		case verbRemove:
			return false, nil
		case verbStop:
			return e.live == 0, nil
		}
		if ok, err := startedAll(e, was); ok || err != nil || !snap.down {
			return ok, err
		}
		return false, errGoingDown
	})
	if err != nil || verb == verbRemove || verb == verbStop {
		return err
	}
	return s.WaitUp(ctx, []string{name})
}

// startedAll tells whether every replica is up, or has been since was.
func startedAll(e, was *entry) (bool, error) {
	all := true
	for i, now := range e.instances[:min(e.unit.Replicas, len(e.instances))] {
		old := instance{}
		if i < len(was.instances) {
			old = was.instances[i]
		}
		up := now.run != "" && now.current
		switch {
		case up && (now.starts > old.starts || e.restart == was.restart):
		case now.starts > old.starts && e.restart == was.restart:
		case now.failed > old.failed && now.err != nil:
			return false, now.err
		default:
			all = false
		}
	}
	if !all && e.unit.Intent != string(plan.Running) {
		return false, fmt.Errorf("unit %s: %w: somebody stopped it meanwhile", e.unit.Name, ErrNotRunning)
	}
	return all, nil
}

// intend is a change of intents.
type intend struct {
	verb    string
	units   []string
	request api.ActRequest
	by      string
	made    uint64 // only the unit with this serial that `run` has made; 0: any
	reply   chan error
}

func (m intend) handle(l *loop) {
	if l.descent != nil && m.verb != verbStop {
		m.reply <- errGoingDown
		return
	}
	for _, name := range m.units {
		if w := l.units[name]; w == nil || m.made != 0 && (w.serial != m.made || !w.ofRun()) {
			m.reply <- noSuchUnit(name)
			return
		}
	}
	for _, name := range m.units {
		m.one(l, name)
	}
	l.replies = append(l.replies, func(err error) { m.reply <- err })
}

func (m intend) one(l *loop, name string) {
	if l.units[name].rec.Intent == plan.Removed && m.verb != verbRemove {
		return // on its way out
	}
	var hurry *time.Duration
	w := l.change(name, func(w *wanted) {
		w.grace = nil
		switch m.verb {
		case verbStart:
			w.rec.Intent = plan.Running
		case verbRestart:
			w.rec.Intent = plan.Running
			w.rec.Restart++
		case verbStop:
			w.rec.Intent = plan.Stopped
			if m.request.Timeout > 0 || m.request.Force {
				grace := time.Duration(m.request.Timeout)
				hurry = &grace
			}
		case verbRemove:
			w.rec.Intent = plan.Removed
			if m.request.Force {
				now := time.Duration(-1)
				hurry = &now
			}
		}
		w.grace = hurry
	})
	if m.verb == verbStart || m.verb == verbRestart {
		l.reset(w)
	}
	l.event(api.Event{Type: event.Intent, Unit: name, By: m.by, Message: m.verb})
	if w.rec.Intent != plan.Running && len(l.stale.runs[name]) == 0 { // its first start will never be
		w.tell(fmt.Errorf("unit %s: %w: somebody stopped it meanwhile", name, ErrNotRunning))
	}
	if hurry == nil {
		return
	}
	for _, r := range l.stale.runs[name] {
		if a := l.work[r.Run]; a != nil && a.kind == string(plan.Stop) {
			a.haste.limit(*hurry)
		}
	}
}
