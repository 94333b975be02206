package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// conduct takes the next step within a run: it starts the containers whose turn
// it is, or ends the run. It is called whenever something has happened to one of its
// containers, and when a back-off is over.
func (l *loop) conduct(r *run) {
	if !r.ready || r.phase.Ended() || l.work[r.Instance] != nil {
		return
	}
	l.touch(r.Unit.Name)
	if r.phase != plan.Stopping && !l.goOn(r) {
		return
	}
	// The run is to end.
	switch {
	case r.any(plan.ContainerStarting) || l.work[r.Run] != nil: // their results come first
	case r.any(plan.ContainerUp):
		l.beginStop(r)
	default:
		l.over(r)
	}
}

// goOn does what the plan says of a run that is to go on; it tells whether the
// run is to end instead.
func (l *loop) goOn(r *run) (end bool) {
	p := plan.Within(r.within(time.Now()))
	l.setWake(r, p.Wake)
	l.noteContainerWaits(r, p.Waiting)
	if p.End != nil {
		r.end, r.waits = p.End, nil
		l.setWake(r, time.Time{})
		if !r.any(plan.ContainerUp) && !r.any(plan.ContainerStarting) {
			return true
		}
		if err := r.move(plan.Stopping); err != nil {
			l.log.Error("phase", "unit", r.Unit.Name, "err", err)
		}
		l.event(api.Event{Type: event.Stop, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run,
			Message: "the other containers are asked to end: " + p.End.Reason})
		return true
	}
	if p.Up && r.phase == plan.Starting {
		l.up(r)
	}
	if l.ending || l.descent != nil {
		return false
	}
	if w := l.work[r.Run]; w != nil && w.kind == string(plan.Update) {
		return false // they are to start with the limits that are being set
	}
	for _, next := range p.Start {
		l.startMember(r, r.member(next.Container), next.Reason)
	}
	return false
}

// startMember starts one of several containers.
func (l *loop) startMember(r *run, m *member, reason string) {
	if err := m.move(plan.ContainerStarting); err != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", err)
		return
	}
	m.early, m.reason = nil, reason
	ctx, _ := l.begin(r.Unit.Name, containerID(r.Run, m.def.Name), string(plan.Start))
	st := &start{s: l.Supervisor, rec: r.record, starts: l.starts, pulls: l.pulls, con: m.def, again: m.again,
		img: r.images[m.def.Name], lease: r.lease, shared: r.Shared, idmap: r.IDMap}
	delete(r.images, m.def.Name)
	m.again = true
	l.wg.Go(func() { l.post(st.container(ctx)) })
}

// handle takes the result of the start of one of several containers.
func (res containerStarted) handle(l *loop) {
	if errors.Is(res.err, errDied) {
		l.died = errDied
		return
	}
	l.finish(containerID(res.run, res.name))
	r := l.runs[res.run]
	if r == nil {
		return
	}
	m := r.member(res.name)
	if res.err != nil {
		l.memberFailed(r, m, res.err)
		return
	}
	message := "runs"
	if m.reason != "" {
		message += ": " + m.reason
		m.restarts++
		l.keepAttempts(r, m)
	}
	l.event(api.Event{Type: event.Start, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: m.def.Name,
		Message: message, Fields: map[string]any{"pid": res.status.Pid}})
	l.memberUp(r, m, res.status)
	l.conduct(r)
}

// memberUp notes that a container runs; the caller goes on with the run.
func (l *loop) memberUp(r *run, m *member, st runtime.Status) {
	if err := m.move(plan.ContainerUp); err != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", err)
	}
	m.started(st)
	early := m.early
	// What an earlier start has left is ended before the next process is made, and its
	// end is heard while this one is not confirmed yet.
	if m.early = nil; early == nil || !early.StartedAt.Equal(st.StartedAt) {
		return
	}
	if r.phase == plan.Starting && !r.several() {
		l.up(r)
	}
	l.memberEnded(r, m, *early.Exit)
}

// memberFailed counts the failed start of one of several containers.
func (l *loop) memberFailed(r *run, m *member, err error) {
	if e := m.move(plan.ContainerFailed); e != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", e)
	}
	detail, step, _ := failureOf(err)
	m.failure, m.exit, m.endedAt = detail, nil, time.Now()
	// A keeper that is killed in the midst of a run's first starts undoes them, and with the last
	// container the namespaces that the run's containers share go.
	m.spoilt = errors.Is(err, runtime.ErrNotFound) && !r.any(plan.ContainerUp)
	if m.spoilt || r.Revision.Definition.Essential(m.def) {
		r.failed = err // the event comes with the run's end
	} else if !l.aborted(r, err) {
		l.event(api.Event{Type: event.StartFailed, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: m.def.Name, Step: step,
			Message: detail})
		l.keepFailure(r, m.def.Name, step, detail)
		l.countMember(r, m)
	}
	l.conduct(r)
}

// heardEnd takes an end of which the keeper tells. That of a start which is not
// confirmed yet is kept until it is.
func (l *loop) heardEnd(r *run, m *member, st runtime.Status) {
	switch {
	case st.Exit == nil || !m.means(st):
	case m.phase == plan.ContainerStarting, m.phase == plan.ContainerWaiting && !r.ready:
		m.early = &st
	default:
		l.memberEnded(r, m, *st.Exit)
	}
}

// memberEnded counts the end of a container. It comes from an event, a list or
// a stop, whichever is first.
func (l *loop) memberEnded(r *run, m *member, x runtime.Exit) {
	if m.phase != plan.ContainerUp {
		return
	}
	if err := m.move(plan.ContainerExited); err != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", err)
		return
	}
	m.ended(l.mark(r, m, x))
	l.keepExit(r, m)
	if r.several() {
		e := apiExit(m.exit, m.endedAt)
		l.event(api.Event{Type: event.Exit, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: m.def.Name, Exit: e,
			Message: exitWords(e)})
	}
	if r.phase != plan.Stopping && !r.Revision.Definition.Essential(m.def) {
		l.countMember(r, m)
	}
	l.conduct(r)
}

// countMember moves on the attempts of a container that is restarted singly.
func (l *loop) countMember(r *run, m *member) {
	was := m.attempts.Done
	key := containerID(r.Run, m.def.Name) + "@" + m.endedAt.UTC().Format(time.RFC3339Nano)
	if m.exit != nil {
		key = startKey(r.Run, m)
	}
	m.attempts = plan.AfterContainer(r.Revision.Definition, m.attempts, m.observed(), key, time.Now())
	l.keepAttempts(r, m)
	if m.attempts.Done && !was && m.attempts.Error != "" {
		l.event(api.Event{Type: event.GiveUp, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: m.def.Name,
			Message: "left as it ended: " + m.attempts.Error})
	}
}

// startKey tells one start of a container from another, also across daemons.
func startKey(run string, m *member) string {
	return containerID(run, m.def.Name) + "@" + m.startedAt.UTC().Format(time.RFC3339Nano)
}

// keepAttempts writes a container's attempts, so that its back-off and its count of
// restarts survive the daemon.
func (l *loop) keepAttempts(r *run, m *member) {
	a := state.Attempts{Attempts: m.attempts, Unit: r.Unit.Name, Instance: r.attemptsKey(m), Restarts: m.restarts, Within: r.Run}
	l.setAttempts(a.Instance, a)
}

// noteContainerWaits tells of new back-offs.
func (l *loop) noteContainerWaits(r *run, now []plan.ContainerWait) {
	for _, w := range now {
		known := false
		for _, old := range r.waits {
			known = known || old.Container == w.Container && old.Until.Equal(w.Until)
		}
		if !known && !w.Until.IsZero() {
			l.event(api.Event{Type: event.Backoff, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: w.Container,
				Message: w.Reason, Fields: map[string]any{"until": w.Until}})
		}
	}
	r.waits = now
}

// restartDue starts the containers whose back-off is over.
func (l *loop) restartDue(now time.Time) {
	for _, r := range l.stale.wakes {
		if !now.Before(r.wake) {
			l.setWake(r, time.Time{})
			l.conduct(r)
		}
	}
}

// up notes that every essential container of a run has been started.
func (l *loop) up(r *run) {
	if err := r.move(plan.Up); err != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", err)
		return
	}
	l.noteStarted(r)
	l.event(api.Event{Type: event.Start, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Message: "runs" + because(r.reason, r.Instance),
		Fields: map[string]any{"pid": r.leading().status.Pid, "revision": r.Revision.Number}})
	l.started(r)
}

// noteStarted sets since when the run is up: since the last of its essential
// containers is.
func (l *loop) noteStarted(r *run) {
	for _, m := range r.members {
		if r.Revision.Definition.Essential(m.def) && m.startedAt.After(r.startedAt) {
			r.startedAt = m.startedAt
		}
	}
}

// beginStop ends the containers of a run that still run.
func (l *loop) beginStop(r *run) {
	ctx, w := l.begin(r.Unit.Name, r.Run, string(plan.Stop))
	if u := l.units[r.Unit.Name]; u != nil && u.grace != nil {
		w.haste.limit(*u.grace)
	}
	if !r.until.IsZero() {
		w.haste.cap(r.until)
	}
	var list []*unit.Container
	for _, m := range r.members {
		if m.phase == plan.ContainerUp {
			list = append(list, m.def)
		}
	}
	id := r.Run
	l.wg.Go(func() {
		exits, gaveUp := l.stopRun(ctx, id, list, w.haste)
		l.post(stopped{id, exits, gaveUp})
	})
}

type stopped struct {
	run    string
	exits  []containerExit
	gaveUp bool // Run is ending
}

func (m stopped) handle(l *loop) {
	r := l.runs[m.run]
	if r != nil && !m.gaveUp {
		for _, x := range m.exits {
			l.memberEnded(r, r.member(x.name), x.exit)
		}
	}
	l.finish(m.run)
	if r != nil && !m.gaveUp {
		l.conduct(r)
	}
}

// over ends a run of which nothing runs any more.
func (l *loop) over(r *run) {
	switch {
	case r.end != nil && r.end.Failed:
		err := r.failed
		if err == nil {
			err = &StartError{Unit: r.Unit.Name, Instance: r.Instance, Container: r.end.Container, Step: stepOrder, Err: errors.New(r.end.Reason)}
		}
		l.undone(r, err)
	case !r.begun():
		l.undone(r, fmt.Errorf("unit %s: container %s: %w", r.Unit.Name, r.Instance, context.Canceled))
	default:
		m := r.ender()
		if r.startedAt.IsZero() { // it ended before all had been started
			r.startedAt = m.startedAt
			if !r.stopped {
				l.started(r)
			} else if w := l.units[r.Unit.Name]; w != nil {
				w.tell(nil) // it was, for a moment
			}
		}
		x := *m.exit
		if r.several() {
			x.Cause = "container " + m.def.Name + suffix(": ", x.Cause)
		}
		l.ended(r, x)
	}
}

// ender is the container whose end is the run's: the one that ended it, else
// the first essential one that ended, else the last of all.
func (r *run) ender() *member {
	var found *member
	better := func(m *member) bool {
		e, f := r.Revision.Definition.Essential(m.def), r.Revision.Definition.Essential(found.def)
		if e != f {
			return e
		}
		return m.endedAt.Before(found.endedAt) == e && !m.endedAt.Equal(found.endedAt)
	}
	for _, m := range r.members {
		switch {
		case m.exit == nil:
		case r.end != nil && r.end.Container == m.def.Name:
			return m
		case found == nil || better(m):
			found = m
		}
	}
	return found
}

// undone removes all of a run whose start has failed.
func (l *loop) undone(r *run, err error) {
	ctx, _ := l.begin(r.Unit.Name, r.Instance, string(plan.Start))
	rec := r.record
	l.wg.Go(func() { l.post(l.Supervisor.undo(ctx, rec, err)) })
}

func suffix(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
