package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

const (
	// defaultBudget is how long everything may take to stop when the host goes down.
	defaultBudget = time.Minute

	// killedBy is how long after the end of the budget what was killed is waited for.
	killedBy = 2 * time.Second

	// causeShutdown is the cause of the ends that a shutdown of the host brings.
	causeShutdown = "host shutdown"

	causeKilled = causeShutdown + ": it did not end in its time, and was killed"

	aboutShutdown = "shutdown"
)

// errGoingDown answers whoever wants something started while the host goes down.
var errGoingDown = &api.Error{Code: api.CodeShuttingDown, Message: api.ErrShuttingDown.Error() + ", nothing is started any more",
	Hint: "`wherry ctl shutdown --cancel` calls it off"}

// Shutdown stops everything because the host goes down, and waits for it: at most
// the budget and a moment. What units should be does not change: they start again with the
// next daemon. Until then nothing starts any more, unless CancelShutdown is called; that the
// caller goes away, or ctx ends, calls nothing off. If a shutdown is under way, it is joined,
// and ends at the earlier of both times.
func (s *Supervisor) Shutdown(ctx context.Context, r api.ShutdownRequest, by string) (api.ShutdownResult, error) {
	budget := cmp.Or(time.Duration(r.Budget), s.shutdownBudget())
	if budget < 0 {
		return api.ShutdownResult{}, invalid("shutdown: a budget of %s", budget)
	}
	m := goDown{budget: budget, by: by, reply: make(chan error, 1), result: new(api.ShutdownResult)}
	if err := s.send(ctx, m, m.reply); err != nil {
		return api.ShutdownResult{}, err
	}
	// The attempts say what has ended how; the next boot explains it by them.
	if err := s.store.Flush(); err != nil {
		s.log.Warn("state not written", "err", err)
	}
	return *m.result, nil
}

func (s *Supervisor) shutdownBudget() time.Duration {
	return cmp.Or(s.opts.Load().ShutdownBudget, defaultBudget)
}

// CancelShutdown calls a shutdown off: what has been stopped starts again.
func (s *Supervisor) CancelShutdown(ctx context.Context, by string) error {
	m := stayUp{by: by, reply: make(chan error, 1)}
	return s.send(ctx, m, m.reply)
}

// descent is a shutdown of the host that is under way.
type descent struct {
	until   time.Time
	live    map[string]bool // units that have not ended yet
	result  api.ShutdownResult
	over    bool // everything has ended, or the time is up
	waiters []goDown
}

// goDown asks for a shutdown.
type goDown struct {
	budget time.Duration
	by     string
	reply  chan error
	result *api.ShutdownResult // set before the reply
}

func (m goDown) handle(l *loop) {
	until := time.Now().Add(m.budget)
	if d := l.descent; d != nil {
		d.waiters = append(d.waiters, m)
		if until.Before(d.until) && !d.over {
			l.event(api.Event{Type: event.Shutdown, By: m.by, Message: "the host goes down sooner, in " + m.budget.String()})
			d.until = until
			l.shorten(until)
		}
		return
	}
	l.descent = &descent{until: until, live: map[string]bool{}, result: api.ShutdownResult{Stopped: []string{}}, waiters: []goDown{m}}
	l.event(api.Event{Type: event.Shutdown, By: m.by, Message: "the host goes down: everything stops within " + m.budget.String()})
	l.notices.set(aboutShutdown, "the host goes down, nothing is started any more: `wherry ctl shutdown --cancel` calls it off")
	for _, r := range l.runs {
		if !r.phase.Ended() {
			l.descent.live[r.Unit.Name] = true
		}
	}
	for _, r := range l.runs {
		l.callOff(r)
	}
	l.touchAll()
}

// callOff cancels the starts that are under way for a run, which undoes them.
func (l *loop) callOff(r *run) {
	keys := []string{r.Instance}
	for _, m := range r.members {
		keys = append(keys, containerID(r.Run, m.def.Name))
	}
	for _, key := range keys {
		if w := l.work[key]; w != nil && (w.kind == plan.Abortable || w.kind == string(plan.Start)) {
			w.cancel()
			r.calledOff = true
		}
	}
}

// shorten gives the stops that are under way less time.
func (l *loop) shorten(until time.Time) {
	for _, r := range l.runs {
		if r.until.After(until) {
			l.hurry(r, until)
		}
	}
}

// hurry gives the stop of a run a time by which it is to be over.
func (l *loop) hurry(r *run, until time.Time) {
	r.until = until
	if w := l.work[r.Run]; w != nil && w.kind == string(plan.Stop) {
		w.haste.cap(until)
	}
}

// stayUp calls a shutdown off.
type stayUp struct {
	by    string
	reply chan error
}

func (m stayUp) handle(l *loop) {
	d := l.descent
	if d == nil {
		m.reply <- invalid("no shutdown of the host is under way")
		return
	}
	l.descent = nil
	l.notices.set(aboutShutdown)
	l.event(api.Event{Type: event.Shutdown, By: m.by, Message: "the shutdown of the host was called off"})
	for _, w := range d.waiters {
		w.reply <- fmt.Errorf("%w: %s called the shutdown off", api.ErrAborted, m.by)
	}
	l.touchAll()
	for _, r := range l.runs {
		if r.several() && r.phase != plan.Stopping && !r.phase.Ended() {
			l.setWake(r, time.Now()) // a container may have been due meanwhile
		}
	}
	select {
	case l.refolder <- struct{}{}: // files that were left alone meanwhile
	default:
	}
	l.replies = append(l.replies, func(err error) { m.reply <- err })
}

// descend notes what a shutdown has come to, and answers who waits for it.
func (l *loop) descend(now time.Time) {
	d := l.descent
	if d == nil {
		return
	}
	live := map[string][]string{} // instances by unit
	for _, r := range l.runs {
		if !r.phase.Ended() {
			live[r.Unit.Name] = append(live[r.Unit.Name], r.Instance)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.live)) {
		if live[name] == nil {
			delete(d.live, name)
			d.result.Stopped = append(d.result.Stopped, name)
			l.event(api.Event{Type: event.Shutdown, Unit: name, Message: "stopped: " + causeShutdown})
		}
	}
	if !d.over && (len(live) == 0 || !now.Before(d.until.Add(killedBy))) {
		d.over = true
		for _, name := range slices.Sorted(maps.Keys(live)) {
			slices.Sort(live[name])
			d.result.Left = append(d.result.Left, live[name]...)
		}
		l.event(api.Event{Type: event.Shutdown, Message: d.result.String()})
	}
	if !d.over {
		return
	}
	for _, w := range d.waiters {
		*w.result = d.result
		w.result.Stopped, w.result.Killed = slices.Clone(d.result.Stopped), slices.Clone(d.result.Killed)
		w.reply <- nil
	}
	d.waiters = nil
}

// wakeDescent is when a shutdown has something to do at the latest; zero: nothing.
func (l *loop) wakeDescent() time.Time {
	if l.descent == nil || l.descent.over {
		return time.Time{}
	}
	return l.descent.until.Add(killedBy)
}

// mark says why a container of a run that a shutdown stops has ended.
func (l *loop) mark(r *run, m *member, x runtime.Exit) runtime.Exit {
	if r.until.IsZero() || r.phase != plan.Stopping || x.Cause != "" {
		return x
	}
	x.Cause = causeShutdown
	if x.Signal != "SIGKILL" || x.OOM {
		return x
	}
	x.Cause = causeKilled
	l.event(api.Event{Type: event.Shutdown, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: r.shown(m),
		Message: strings.TrimPrefix(causeKilled, causeShutdown+": ")})
	if l.descent != nil {
		l.descent.result.Killed = append(l.descent.result.Killed, api.JoinTarget(r.Instance, r.shown(m)))
	}
	return x
}

// interrupted tells whether the shutdown is the end of what runs only once: then it does not
// start again after the boot, as after a reboot that nobody announced.
func (r *run) interrupted() bool {
	return !r.until.IsZero() && r.exit != nil && r.Revision.Definition.Restart.Condition == unit.Never
}

// aborted tells whether a start of the run has failed because it is not wanted any more. The shutdown that
// has cancelled it may have been called off before we hear of it.
func (l *loop) aborted(r *run, err error) bool {
	return errors.Is(err, context.Canceled) && (l.ctx.Err() != nil || l.descent != nil || r.calledOff)
}
