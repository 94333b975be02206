package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// watch hands the keeper's events to the loop until ctx ends.
func (s *Supervisor) watch(ctx context.Context) {
	for e := range s.rt.Events(ctx) {
		s.post(happened{e})
	}
}

// happened is an event of the keeper.
type happened struct{ runtime.Event }

func (m happened) handle(l *loop) {
	if m.Type == runtime.EventGap {
		l.list()
		return
	}
	r := l.runs[m.Status.Run]
	if r == nil {
		return
	}
	c := r.member(m.Status.Container)
	if c == nil {
		return
	}
	switch m.Type {
	case runtime.EventOOM:
		l.oomKilled(r, c, m.OOM)
	case runtime.EventExit:
		l.heardEnd(r, c, m.Status)
	}
}

// list asks the keeper for everything, without the loop waiting for it.
func (l *loop) list() {
	if l.listing {
		l.listMore = true
		return
	}
	l.listing = true
	// A run that is up now and not in the answer is gone; one that comes up
	// meanwhile may be missing for another reason.
	var up []runtime.Status
	for _, r := range l.runs {
		for _, c := range r.members {
			if c.phase == plan.ContainerUp {
				up = append(up, c.status)
			}
		}
	}
	l.wg.Go(func() {
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			all, err := l.rt.List(l.ctx)
			if err == nil {
				l.post(listed{all, up, l.rt.KeeperPid()})
				return
			}
			if !sleep(l.ctx, wait) {
				return
			}
		}
	})
}

// listed is the keeper's answer to a list; up are the containers that must be in it.
type listed struct {
	all    []runtime.Status
	up     []runtime.Status
	keeper int
}

func (m listed) handle(l *loop) {
	l.listing = false
	if l.listMore {
		l.listMore = false
		l.list()
	}
	if m.keeper != l.keeperSeen {
		if l.keeperSeen != 0 {
			l.event(api.Event{Type: event.Keeper, Message: "the keeper was away and is back",
				Fields: map[string]any{"pid": m.keeper}})
		}
		l.keeperSeen = m.keeper
	}
	known := map[string]bool{}
	for _, st := range m.all {
		known[st.ID] = true
		r := l.runs[st.Run]
		if r == nil {
			continue // its removal is on the way
		}
		switch c := r.member(st.Container); {
		case c == nil:
		case st.State == runtime.Exited && st.Exit != nil:
			l.heardEnd(r, c, st)
		case c.phase == plan.ContainerUp:
			c.status = st
			l.touch(r.Unit.Name)
		}
	}
	for _, st := range m.up {
		r := l.runs[st.Run]
		if r == nil || known[st.ID] {
			continue
		}
		// It may have been started again since.
		if c := r.member(st.Container); c != nil && c.phase == plan.ContainerUp && c.status.StartedAt.Equal(st.StartedAt) {
			l.memberEnded(r, c, lost(time.Now()))
		}
	}
}

// lost is the end of a run that nobody saw.
func lost(now time.Time) runtime.Exit {
	return runtime.Exit{Unknown: true, Cause: "the keeper does not know the container any more", At: now}
}

// ended counts the end of a run.
func (l *loop) ended(r *run, x runtime.Exit) {
	if err := r.move(plan.Exited); err != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", err)
		return
	}
	r.exit, r.endedAt = &x, x.At
	if r.endedAt.IsZero() {
		r.endedAt = time.Now()
	}
	e := apiExit(&x, r.endedAt)
	l.event(api.Event{Type: event.Exit, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Exit: e, Message: exitWords(e)})
	l.count(r)
	l.disconnect(r)
}

// count moves the instance's attempts on by an ended run.
func (l *loop) count(r *run) {
	w := l.units[r.Unit.Name]
	if w == nil {
		return
	}
	l.touch(r.Unit.Name)
	a := l.attempts[r.Instance]
	if a.Run == r.Run {
		return // by an earlier daemon
	}
	a.Unit, a.Instance = r.Unit.Name, r.Instance
	was := a.Done
	o := r.observed()
	o.Stopped = o.Stopped && !r.interrupted()
	if w.desired().Holds(o.Revision) {
		o.Revision = w.rec.Revision // whose run it has been, without being replaced
	}
	a.Attempts = plan.After(w.def().Restart, a.Attempts, o, time.Now())
	if r.exit != nil {
		a.Ended = &state.Ended{Run: r.Run, Revision: r.Revision.Number, Stopped: r.stopped, StartedAt: r.startedAt, EndedAt: r.endedAt,
			Code: r.exit.Code, Signal: r.exit.Signal, OOM: r.exit.OOM, Unknown: r.exit.Unknown, Cause: r.exit.Cause}
	}
	l.setAttempts(r.Instance, a)
	if a.Done && !was && a.Error != "" && !r.stopped {
		l.event(api.Event{Type: event.GiveUp, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run,
			Message: "left as it ended: " + a.Error})
	}
}

// disconnect frees the address and ports of an ended run at once; the rest of
// it stays to be looked at until the next start.
func (l *loop) disconnect(r *run) {
	if r.lease == nil {
		return
	}
	l.wg.Go(func() {
		ctx, cancel := detached(l.ctx)
		defer cancel()
		if err := l.net.Detach(ctx, r.Run); err != nil {
			l.log.Warn("network not freed, tried again with the run's removal", "unit", r.Unit.Name, "container", r.Instance, "err", err)
		}
	})
}

// exitWords says how something ended, for people.
func exitWords(e *api.Exit) string {
	var s string
	switch {
	case e.Unknown:
		s = "ended in an unknown way"
	case e.Signal != "":
		s = "was ended by " + e.Signal
	default:
		s = fmt.Sprintf("exited with code %d", e.Code)
	}
	if e.OOM {
		s += " (out of memory)"
	}
	if e.Cause != "" {
		s += ": " + e.Cause
	}
	return s
}
