package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// dispatch sets one action of the plan going. Each has a goroutine of its own
// that owns the instance or run until it reports back, so that a container
// that hangs holds up nobody else.
func (l *loop) dispatch(a plan.Action) {
	switch a.Kind {
	case plan.Start:
		l.dispatchStart(a)
	case plan.Stop:
		l.dispatchStop(a)
	case plan.Remove:
		l.dispatchRemove(a)
	case plan.Forget:
		l.dispatchForget(a)
	case plan.Update:
		l.dispatchUpdate(a)
	case plan.Hurry:
		l.hurry(l.runs[a.Run], a.Until)
	}
	l.touch(a.Unit)
}

// begin notes an action under way and gives it its context.
func (l *loop) begin(unit, key, kind string) (context.Context, *work) {
	ctx, cancel := context.WithCancel(l.ctx)
	w := &work{unit: unit, kind: kind, cancel: cancel, haste: newHaste()}
	l.work[key] = w
	l.touch(unit)
	return ctx, w
}

func (l *loop) finish(key string) {
	if w := l.work[key]; w != nil {
		w.cancel()
		delete(l.work, key)
		l.touch(w.unit)
	}
}

func (l *loop) dispatchStart(a plan.Action) {
	w := l.units[a.Unit]
	rev := w.revision()
	id := newName(a.Instance, func(id string) bool { return l.runs[id] != nil || exists(l.paths.run(id)) })
	r := &run{phase: plan.Pulling, reason: a.Reason, record: record{Run: id, Instance: a.Instance, Restart: w.rec.Restart,
		At: time.Now(), Boot: l.boot, Unit: w.rec, Revision: *rev}}
	r.members = newMembers(&r.record)
	l.addRun(r)
	ctx, _ := l.begin(a.Unit, a.Instance, plan.Abortable)
	st := &start{s: l.Supervisor, rec: r.record, starts: l.starts, pulls: l.pulls}
	l.wg.Go(func() { l.post(st.run(ctx)) })
}

// pulled says that a start has its images and cannot be aborted any more.
type pulled struct {
	run     string
	digests map[string]string // by container
	stale   bool
}

func (m pulled) handle(l *loop) {
	r := l.runs[m.run]
	if r == nil {
		return
	}
	if w := l.units[r.Unit.Name]; w != nil {
		if rev := w.setDigests(r.Revision.Number, m.digests, m.stale); rev != nil {
			l.lazy.PutRevision(*rev)
			for _, c := range rev.Definition.Containers {
				message := c.Image + " is " + m.digests[c.Name]
				if m.stale {
					message += ": what is here, for its registry does not answer"
				}
				l.event(api.Event{Type: event.Pull, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: r.shown(r.member(c.Name)),
					Step: stepPull, Message: message})
			}
		}
	}
	r.Revision = r.Revision.WithDigests(m.digests, m.stale)
	if r.phase != plan.Pulling {
		return // being aborted
	}
	_ = r.move(plan.Starting)
	l.work[r.Instance].kind = string(plan.Start)
	l.touch(r.Unit.Name)
}

// handle takes the result of a start: that of the run as a whole, and of its
// container if it has only one.
func (m startResult) handle(l *loop) {
	if errors.Is(m.err, errDied) {
		l.died = errDied
		return
	}
	r := l.runs[m.run]
	l.finish(r.Instance)
	l.touch(r.Unit.Name)
	if m.err != nil {
		l.startFailed(r, m)
		return
	}
	r.ready, r.lease, r.Shared, r.IDMap, r.NoUserNS, r.images = true, m.lease, m.shared, m.idmap, m.noUserNS, m.images
	if m.only != nil {
		_ = r.members[0].move(plan.ContainerStarting)
		l.memberUp(r, r.members[0], *m.only)
	}
	l.conduct(r)
}

// because is a plan's reason for a start, unless it says nothing new.
func because(reason, instance string) string {
	if reason == instance+" is not running" {
		return ""
	}
	return ": " + reason
}

// started keeps what a start that worked tells about its unit.
func (l *loop) started(r *run) {
	w := l.units[r.Unit.Name]
	if w == nil {
		return
	}
	w.tell(nil)
	a := l.attempts[r.Instance]
	// Only healing counts: what somebody asked for is no sign of trouble.
	if a.Ended != nil && !a.Ended.Stopped {
		a.Restarts++
	}
	a.Unit, a.Instance = r.Unit.Name, r.Instance
	l.setAttempts(r.Instance, a)
	l.starting[r.Instance]++
	delete(l.failures, r.Instance)
	if r.lease == nil {
		return
	}
	for _, p := range r.lease.Ports {
		key := portKey(p.Port, p.Protocol)
		if w.rec.Ports[key] == p.HostPort || !randomPort(w.def(), p.Port, p.Protocol) {
			continue
		}
		ports := map[string]uint16{key: p.HostPort}
		for k, v := range w.rec.Ports {
			if k != key {
				ports[k] = v
			}
		}
		w.rec.Ports = ports
		l.lazy.PutUnit(w.rec)
	}
}

// startFailed counts a failed start like a crash; one that was aborted counts
// as a stop.
func (l *loop) startFailed(r *run, m startResult) {
	r.stopped = r.stopped || l.aborted(r, m.err)
	r.endedAt, r.gone = time.Now(), m.clean
	var step, container string
	r.failure, step, container = failureOf(m.err)
	if err := r.move(plan.Failed); err != nil {
		l.log.Error("phase", "unit", r.Unit.Name, "err", err)
	}
	if !r.stopped {
		l.event(api.Event{Type: event.StartFailed, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: container,
			Step: step, Message: r.failure})
		l.keepFailure(r, container, step, r.failure)
		l.failures[r.Instance] = m.err
		l.failed[r.Instance]++
	}
	l.count(r)
	w := l.units[r.Unit.Name]
	if w == nil || w.started == nil {
		return
	}
	// A `run` whose first start failed leaves nothing behind.
	if l.aborted(r, m.err) && (l.descent != nil || r.calledOff) {
		m.err = errGoingDown
	}
	w.tell(m.err)
	if !w.ofRun() {
		return
	}
	l.change(w.rec.Name, func(w *wanted) { w.rec.Intent = plan.Removed })
}

// failureOf takes apart why a start failed.
func failureOf(err error) (detail, step, container string) {
	var at *StartError
	if !errors.As(err, &at) {
		return err.Error(), "", ""
	}
	if at.Container != "" {
		return "container " + at.Container + ": " + at.detail(), at.Step, at.Container
	}
	return at.detail(), at.Step, ""
}

// dispatchStop asks a run to end, or aborts its pull.
func (l *loop) dispatchStop(a plan.Action) {
	r := l.runs[a.Run]
	r.stopped, r.until = true, a.Until
	if err := r.move(plan.Stopping); err != nil {
		l.log.Error("phase", "unit", a.Unit, "err", err)
		return
	}
	if w := l.work[r.Instance]; w != nil && w.kind == plan.Abortable {
		w.cancel()
		return
	}
	if l.work[r.Instance] == nil && r.any(plan.ContainerUp) {
		l.event(api.Event{Type: event.Stop, Unit: a.Unit, Instance: r.Instance, Run: r.Run, Message: "asked to end: " + a.Reason})
	}
	l.abortHooks(r)
	if l.work[r.Instance] == nil {
		l.conduct(r)
	}
}

// dispatchRemove cleans up an ended run.
func (l *loop) dispatchRemove(a plan.Action) {
	r := l.runs[a.Run]
	if r.gone {
		l.dropRun(r)
		l.again = true
		return
	}
	w := l.units[a.Unit]
	// If the daemon died now, the next one would not find the run to count it.
	flush := w != nil && !w.lazy()
	ctx, job := l.begin(a.Unit, a.Run, string(plan.Remove))
	c := cleanup{s: l.Supervisor, run: a.Run}
	if w != nil && w.lazy() && w.rec.Intent == plan.Removed {
		c.unit, job.forgets = a.Unit, true
	}
	l.wg.Go(func() {
		if flush {
			_ = l.store.Flush()
		}
		l.post(removed{a.Run, c.untilDone(ctx)})
	})
}

type removed struct {
	run string
	err error
}

func (m removed) handle(l *loop) {
	if errors.Is(m.err, errDied) {
		l.died = errDied
		return
	}
	l.finish(m.run)
	if r := l.runs[m.run]; r != nil && m.err == nil {
		l.dropRun(r)
	}
}

// forgetting tells whether a unit's logs and exits are being deleted: those of a later one of its
// name must not be among them.
func (l *loop) forgetting(unit string) bool {
	for id := range l.stale.runs[unit] {
		if w := l.work[id]; w != nil && w.forgets {
			return true
		}
	}
	return l.work[unit] != nil
}

// dispatchForget deletes a removed unit's logs and exits, then its records.
func (l *loop) dispatchForget(a plan.Action) {
	_, _ = l.begin(a.Unit, a.Unit, string(plan.Forget))
	l.wg.Go(func() { l.post(forgotten{a.Unit, l.forget(a.Unit)}) })
}

type forgotten struct {
	unit string
	err  error
}

func (m forgotten) handle(l *loop) {
	l.finish(m.unit)
	w := l.units[m.unit]
	if w == nil || w.rec.Intent != plan.Removed {
		return
	}
	if m.err != nil {
		l.log.Warn("logs not removed", "unit", m.unit, "err", m.err)
	}
	l.event(api.Event{Type: event.Remove, Unit: m.unit, Message: "removed"})
	b := &l.durable
	if w.lazy() {
		b = &l.lazy
	}
	b.DeleteUnit(m.unit)
	for _, r := range w.revs {
		b.DeleteRevision(m.unit, r.Number)
	}
	for instance, a := range l.attempts {
		if a.Unit == m.unit {
			b.DeleteAttempts(m.unit, instance)
			l.last.put(w, instance, a)
			delete(l.attempts, instance)
		}
	}
	for n := 1; n <= w.def().Replicas; n++ {
		instance := plan.Instance(m.unit, n)
		delete(l.starting, instance)
		delete(l.failed, instance)
		delete(l.failures, instance)
	}
	l.setUnit(m.unit, nil)
	if !w.lazy() { // of `run --rm` there are too many, and their images are wanted again
		l.tidying.ask(whyRemoved, 0)
	}
	delete(l.auto, m.unit)
	delete(l.pending, m.unit)
}

// sleep waits; it is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// detached is a context for cleaning up after ctx has ended, with a limit.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}
