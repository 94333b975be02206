package supervisor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// message is a value sent to the loop.
type message interface{ handle(l *loop) }

// loop owns the state: its fields are touched by the goroutine of run alone.
type loop struct {
	*Supervisor

	units    map[string]*wanted
	runs     map[string]*run
	attempts map[string]state.Attempts // by instance
	work     map[string]*work          // by instance, run or unit: what is under way
	files    map[string]state.File
	pending  map[string]api.Pending // by unit
	warnings []string               // of the units folder

	starting map[string]int   // starts that worked, by instance
	failed   map[string]int   // and that did not
	failures map[string]error // the error of the latest start, if it failed

	boot       string // the host's boot
	keeperSeen int    // the keeper's pid at the last list
	ending     bool
	descent    *descent // a shutdown of the host that is under way

	stale  stale
	plan   plan.Plan // the last one
	again  bool      // an action was done on the spot: there may be a next one
	serial uint64
	// auto are the units that are removed when they have ended.
	auto map[string]bool
	// lapse is the next moment at which autoRemove has something to do.
	lapse time.Time

	durable state.Batch // of this step, committed before anybody is answered
	lazy    state.Batch
	undo    []func()      // takes back this step's durable changes, last first
	replies []func(error) // told how the commit went

	died     error
	ctx      context.Context // of the actions; ends when Run ends
	wg       sync.WaitGroup  // of the actions
	pulls    chan struct{}
	listing  bool // a List is under way
	listMore bool // and another is wanted
}

// work is an action under way.
type work struct {
	unit    string
	kind    string // as plan.Input.InFlight wants it
	cancel  context.CancelFunc
	haste   *haste // of a stop
	forgets bool   // the removal of a run that deletes its unit's logs and exits too
}

// drainMax bounds how many messages share a step.
const drainMax = 256

// run is the loop. It returns when ctx ends or a fault point killed the daemon.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.step()
		l.arm(timer)
		done := ctx.Done()
		if l.ending {
			if !l.live() || !time.Now().Before(l.lapse) {
				return
			}
			done = nil
		}
		select {
		case <-done:
			if !l.opts.Load().StopAtExit {
				return
			}
			l.end()
		case <-timer.C:
		case m := <-l.inbox:
			m.handle(l)
			l.drain()
		}
		if l.died != nil {
			return
		}
	}
}

// end begins to stop everything, in the right order and without any intent of
// the operator's changing.
func (l *loop) end() {
	l.ending = true
	limit := shutdownLimit
	for _, r := range l.runs {
		limit = max(limit, stopLimit(&r.Revision.Definition)+shutdownLimit)
	}
	l.lapse = time.Now().Add(limit)
	l.touchAll()
}

// live tells whether there is a run to stop or remove, or an action under way.
func (l *loop) live() bool { return len(l.runs) > 0 || len(l.work) > 0 }

func (l *loop) drain() {
	for range drainMax {
		select {
		case m := <-l.inbox:
			m.handle(l)
		default:
			return
		}
	}
}

// step makes what the messages changed durable, computes the next plan, sets
// it going, and shows the result. Only then are callers answered, so that they
// find in the snapshot what they asked for.
func (l *loop) step() {
	err := l.commit()
	l.restartDue(time.Now())
	l.carryOut(time.Now())
	l.descend(time.Now())
	if !l.lazy.Empty() {
		l.store.Later(&l.lazy)
		l.lazy = state.Batch{}
	}
	l.publish(time.Now())
	for _, reply := range l.replies {
		reply(err)
	}
	l.replies = nil
	if l.autoRemove(time.Now()) {
		l.step()
	}
}

func (l *loop) commit() error {
	defer func() { l.durable, l.undo = state.Batch{}, nil }()
	if l.durable.Empty() {
		return nil
	}
	err := l.store.Commit(&l.durable)
	if err == nil {
		return nil
	}
	for i := len(l.undo) - 1; i >= 0; i-- {
		l.undo[i]()
	}
	l.log.Error("state not written", "err", err)
	return err
}

// tidy removes ended runs that the plan would keep to be looked at.
func (l *loop) tidy() {
	for id, r := range l.runs {
		if r.phase.Ended() && l.work[id] == nil && l.work[r.Instance] == nil {
			l.dispatch(plan.Action{Kind: plan.Remove, Unit: r.Unit.Name, Instance: r.Instance, Run: id, Reason: "the daemon ends"})
		}
	}
}

// arm sets the one timer: the plan's next moment, or that of a lapse.
func (l *loop) arm(t *time.Timer) {
	wake := l.stale.full.Add(fullEvery)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(wake) {
			wake = t
		}
	}
	for _, r := range l.stale.wakes {
		sooner(r.wake)
	}
	for _, t := range l.stale.waits {
		sooner(t)
	}
	sooner(l.lapse)
	if l.descent != nil {
		sooner(l.plan.Wake)
		sooner(l.wakeDescent())
	}
	t.Reset(max(time.Until(wake), 0))
}

// noteWaits hands each unit that was planned its part of the plan's waits, and
// tells of new back-offs.
func (l *loop) noteWaits(waits map[string][]plan.Waiting) {
	for name, now := range waits {
		w := l.units[name]
		if w == nil {
			delete(l.stale.waits, name)
			continue
		}
		if until := earliest(now); until.IsZero() {
			delete(l.stale.waits, name)
		} else {
			l.stale.waits[name] = until
		}
		if sameWaits(w.waits, now) {
			continue
		}
		for _, n := range now {
			if !n.Until.IsZero() && !containsWait(w.waits, n) {
				l.event(api.Event{Type: event.Backoff, Unit: name, Instance: n.Instance, Message: n.Reason,
					Fields: map[string]any{"until": n.Until}})
			}
		}
		w.waits = now
		l.stale.shown[name] = true
	}
}

// earliest is when the first of the waits is over; zero: none is by itself.
func earliest(waits []plan.Waiting) (first time.Time) {
	for _, w := range waits {
		if !w.Until.IsZero() && (first.IsZero() || w.Until.Before(first)) {
			first = w.Until
		}
	}
	return first
}

func sameWaits(a, b []plan.Waiting) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !containsWait(b[i:i+1], a[i]) {
			return false
		}
	}
	return true
}

func containsWait(list []plan.Waiting, w plan.Waiting) bool {
	for _, x := range list {
		if x.Instance == w.Instance && x.Reason == w.Reason && x.Until.Equal(w.Until) {
			return true
		}
	}
	return false
}

// saveUnit writes a unit's record, and with it the given revisions.
func (l *loop) saveUnit(w *wanted, revs ...state.Revision) {
	b := &l.durable
	if w.lazy() {
		b = &l.lazy
	}
	b.PutUnit(w.rec)
	for _, r := range revs {
		b.PutRevision(r)
	}
	l.touch(w.rec.Name)
}

// change replaces a unit by a changed copy, which is taken back if it cannot be
// made durable.
func (l *loop) change(name string, f func(w *wanted)) *wanted {
	old := l.units[name]
	w := old.clone()
	f(w)
	l.setUnit(name, w)
	l.saveUnit(w)
	l.undo = append(l.undo, func() { l.setUnit(name, old) })
	return w
}

// reset takes back what an instance's failures hold up.
func (l *loop) reset(w *wanted) {
	for instance, a := range l.attempts {
		if a.Unit == w.rec.Name {
			a.Attempts = a.Attempts.Reset()
			l.setAttempts(instance, a)
		}
	}
	for _, r := range l.stale.runs[w.rec.Name] {
		for _, m := range r.members {
			m.attempts = m.attempts.Reset()
		}
		l.conduct(r)
	}
}

func (l *loop) setAttempts(instance string, a state.Attempts) {
	l.attempts[instance] = a
	l.lazy.PutAttempts(a)
	l.touch(a.Unit)
}

// event stores e. Info lines in the log are one per change of phase, and made
// from the same words.
func (s *Supervisor) event(e api.Event) {
	e = s.events.Append(e)
	attrs := []any{"event", e.Type}
	for _, a := range [][2]string{{"unit", e.Unit}, {"container", api.JoinTarget(e.Instance, e.Container)}, {"step", e.Step}, {"by", e.By}} {
		if a[1] != "" {
			attrs = append(attrs, slog.String(a[0], a[1]))
		}
	}
	s.log.Log(context.Background(), levelOf(e), e.Message, attrs...)
}
