package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

const (
	// updateLimit is how long the keeper may take for one container: the
	// kernel may have memory to take back.
	updateLimit = 10 * time.Second
	// updateWait is how long somebody who asked for other limits waits for them.
	updateWait = 30 * time.Second
	// mostUpdateDelay is the longest wait between two tries.
	mostUpdateDelay = time.Minute

	updateSource = "ctl update"
)

// errSlow: the kernel takes its time, or the keeper is about to be replaced.
var errSlow = errors.New("the keeper is still at it")

// adjusting is what a run knows of changes of its limits.
type adjusting struct {
	tries int
	at    time.Time // the next try, if the last has failed
	err   error     // of the last try
}

// failed counts a failed try.
func (a *adjusting) failed(err error, now time.Time) {
	a.err = err
	a.at = now.Add(min(time.Second<<min(a.tries, 6), mostUpdateDelay))
	a.tries++
}

// dispatchUpdate gives the containers of a run that run the limits of the
// current revision. Those that do not run yet are started with them.
func (l *loop) dispatchUpdate(a plan.Action) {
	r := l.runs[a.Run]
	was := r.Revision.Definition
	rec := r.record
	rec.Revision.Definition = withLimits(was, *l.units[a.Unit].def())
	var running []*unit.Container
	for _, m := range r.members {
		if m.phase == plan.ContainerUp || m.phase == plan.ContainerStarting {
			running = append(running, rec.Revision.Definition.Container(m.def.Name))
		}
	}
	ctx, _ := l.begin(a.Unit, a.Run, string(plan.Update))
	l.wg.Go(func() {
		done := adjusted{run: a.Run, definition: rec.Revision.Definition}
		if done.err = l.adjust(ctx, a.Run, running); done.err == nil {
			done.err = writeRecord(l.paths, rec)
		}
		l.post(done)
	})
}

// withLimits is the definition with the limits of another one.
func withLimits(def, limits unit.Unit) unit.Unit {
	def.Containers = slices.Clone(def.Containers)
	for i := range def.Containers {
		if c := limits.Container(def.Containers[i].Name); c != nil {
			def.Containers[i].Limits = c.Limits
		}
	}
	return def
}

func (s *Supervisor) adjust(ctx context.Context, run string, containers []*unit.Container) error {
	ctx, cancel := context.WithTimeout(ctx, updateLimit)
	defer cancel()
	for _, c := range containers {
		err := s.rt.Update(ctx, containerID(run, c.Name), c.Limits)
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("container %s: %w after %v", c.Name, errSlow, updateLimit)
		}
		// One that has ended is started with the new limits if it is started again.
		if err != nil && !errors.Is(err, runtime.ErrNotRunning) && !errors.Is(err, runtime.ErrNotFound) {
			return err
		}
	}
	return nil
}

// adjusted is the result of an update.
type adjusted struct {
	run        string
	definition unit.Unit // the run's, with the new limits
	err        error
}

func (m adjusted) handle(l *loop) {
	l.finish(m.run)
	r := l.runs[m.run]
	if r == nil || r.phase.Ended() {
		return
	}
	l.touch(r.Unit.Name)
	defer l.conduct(r) // a container may have ended meanwhile
	e := api.Event{Type: event.Update, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run}
	if m.err != nil {
		if l.ctx.Err() != nil {
			return
		}
		r.adjusting.failed(m.err, time.Now())
		e.Message = "limits not changed: " + m.err.Error()
		l.event(e)
		return
	}
	changes := unit.Diff(r.Revision.Definition, m.definition)
	r.adjusting = adjusting{}
	r.Revision.Definition = m.definition
	for _, c := range r.members {
		if def := r.Revision.Definition.Container(c.def.Name); def != nil {
			c.def = def
		}
	}
	e.Message = "limits changed: " + changeWords(changes)
	e.Fields = map[string]any{"changes": changes}
	l.event(e)
}

// changeWords are changes in one line, "limits.memory 64MiB to 128MiB".
func changeWords(changes []unit.Change) string {
	words := make([]string, len(changes))
	for i, c := range changes {
		name := c.Path
		if _, rest, ok := strings.Cut(strings.TrimPrefix(c.Path, "containers."), "."); ok {
			name = rest
		}
		words[i] = fmt.Sprintf("%s %s to %s", name, cmp.Or(c.Old, "none"), cmp.Or(c.New, "none"))
	}
	return strings.Join(words, ", ")
}

// forgetTries has limits that could not be set tried at once: they are others now.
func (l *loop) forgetTries(name string) {
	for _, r := range l.stale.runs[name] {
		r.adjusting = adjusting{}
	}
	l.touch(name)
}

// limiter is a runtime that knows what its host can limit.
type limiter interface {
	CheckLimits(l cgroup.Limits) error
}

// checkLimits refuses what this host cannot give.
func (s *Supervisor) checkLimits(u *unit.Unit) error {
	rt, ok := s.rt.(limiter)
	if !ok {
		return nil
	}
	for _, c := range u.Containers {
		if err := rt.CheckLimits(c.Limits); err != nil {
			return invalid("unit %s: container %s: %w", u.Name, c.Name, err)
		}
	}
	return nil
}

// Update changes limits of units and of what runs of them, without a restart.
// It makes a revision; applying the same file again does not take it back, but a file
// that has changed does. Unless NoWait, it waits until all that runs has the
// new limits. An error then says why something has not: the daemon goes on trying.
func (s *Supervisor) Update(ctx context.Context, r api.UpdateRequest, by string) (api.UpdateResult, error) {
	if r.Change.Empty() {
		return api.UpdateResult{}, invalid("update: no limit named")
	}
	if len(r.Units) == 0 {
		return api.UpdateResult{}, invalid("no unit named")
	}
	names, err := s.Match(r.Units)
	if err != nil {
		return api.UpdateResult{}, err
	}
	reply := make(chan error, 1)
	m := &updateLimits{names: names, request: r, by: by, reply: reply}
	if err := s.send(ctx, m, reply); err != nil {
		return api.UpdateResult{}, err
	}
	if r.NoWait {
		return m.result, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, updateWait, ErrTimeout)
	defer cancel()
	for _, name := range names {
		if err := s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) { return limitsReached(snap.find(name), errSlow) }); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
				if _, why := limitsReached(s.snap.Load().find(name), nil); why != nil {
					err = fmt.Errorf("%w: %w", err, why)
				}
			}
			return m.result, fmt.Errorf("unit %s: %w", name, err)
		}
	}
	return m.result, nil
}

// limitsReached tells whether all that runs of a unit has its limits, and why something has not. For what
// is still tried because of patient somebody may wait.
func limitsReached(e *entry, patient error) (bool, error) {
	if e == nil {
		return true, nil
	}
	want := unit.LimitsOf(e.rev.Definition)
	for _, i := range e.instances {
		if i.run == "" || i.limits == want || !i.current {
			continue // it is none of ours to wait for
		}
		if i.limitsErr != nil && (patient == nil || !errors.Is(i.limitsErr, patient)) {
			return false, fmt.Errorf("%s: %w", i.name, i.limitsErr)
		}
		return false, nil
	}
	return true, nil
}

// updateLimits makes revisions with other limits. The loop owns it until it replies.
type updateLimits struct {
	names   []string
	request api.UpdateRequest
	by      string
	reply   chan error
	result  api.UpdateResult
}

func (m *updateLimits) handle(l *loop) {
	var next []unit.Unit
	for _, name := range m.names {
		def, err := m.definition(l, name)
		if err == nil {
			err = l.checkLimits(&def)
		}
		if err != nil {
			m.reply <- err
			return
		}
		next = append(next, def)
	}
	for _, def := range next {
		m.result.Units = append(m.result.Units, m.one(l, def))
	}
	l.replies = append(l.replies, func(err error) { m.reply <- err })
}

// definition is what the unit is to become.
func (m *updateLimits) definition(l *loop, name string) (unit.Unit, error) {
	w := l.units[name]
	if w == nil || w.rec.Intent == plan.Removed {
		return unit.Unit{}, noSuchUnit(name)
	}
	def := *w.def()
	def.Containers = slices.Clone(def.Containers)
	container := m.request.Container
	if container == "" && len(def.Containers) > 1 {
		return def, invalid("unit %s has several containers: name one of them", name)
	}
	for i := range def.Containers {
		c := &def.Containers[i]
		if container != "" && c.Name != container {
			continue
		}
		limits, err := m.request.Change.Apply(c.Limits)
		if err != nil {
			return def, invalid("unit %s: container %s: %w", name, c.Name, err)
		}
		c.Limits = limits
		return def, nil
	}
	return def, fmt.Errorf("%w: unit %s has no container %s", ErrNoSuchUnit, name, container)
}

func (m *updateLimits) one(l *loop, def unit.Unit) api.UnitChange {
	old := l.units[def.Name]
	was := old.revision()
	l.forgetTries(def.Name)
	if sameUnit(&was.Definition, &def) {
		l.touch(def.Name)
		return api.UnitChange{Unit: def.Name, Change: "unchanged", Revision: was.Number}
	}
	rev := *was
	rev.Number, rev.Definition, rev.By, rev.AppliedAt = old.revs[len(old.revs)-1].Number+1, def, m.by, time.Now()
	rev.Same, rev.Source = cmp.Or(was.Same, was.Number), updateSource
	rev.Proposed = cmp.Or(was.Proposed, was.Definition.Digest())
	w := old.clone()
	l.revise(old, w, rev)
	changes := unit.Diff(was.Definition, def)
	l.event(api.Event{Type: event.Update, Unit: def.Name, By: m.by, Message: fmt.Sprintf("revision %d: %s", rev.Number, changeWords(changes)),
		Fields: map[string]any{"revision": rev.Number, "changes": changes}})
	return api.UnitChange{Unit: def.Name, Change: "update", Revision: rev.Number, Fields: changes}
}

// revise makes rev the current revision of w, which takes the place of old.
func (l *loop) revise(old, w *wanted, rev state.Revision) {
	name := rev.Unit
	w.rec.Revision = rev.Number
	w.revs = append(slices.Clone(w.revs), rev)
	for len(w.revs) > max(keptRevisions, l.opts.Load().GC.KeepRevisions) {
		l.durable.DeleteRevision(name, w.revs[0].Number)
		w.revs = w.revs[1:]
	}
	l.setUnit(name, w)
	l.saveUnit(w, rev)
	l.undo = append(l.undo, func() { l.setUnit(name, old) })
	l.forgetTries(name)
}
