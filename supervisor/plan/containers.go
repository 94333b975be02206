package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// ContainerPhase is where a container is within its run. Unlike a run, one
// that is not essential may begin again.
type ContainerPhase string

// The phases of a container.
const (
	ContainerWaiting  ContainerPhase = "waiting" // not started yet, every one begins here
	ContainerStarting ContainerPhase = "starting"
	ContainerUp       ContainerPhase = "running"
	ContainerExited   ContainerPhase = "exited"
	ContainerFailed   ContainerPhase = "failed" // its start failed
)

// containerMoves is the table of legal moves.
var containerMoves = map[ContainerPhase][]ContainerPhase{
	ContainerWaiting: {ContainerStarting},
	// A process may end before its start was confirmed: starting to exited. A
	// daemon that finds a start half done begins it anew: starting to waiting.
	ContainerStarting: {ContainerUp, ContainerExited, ContainerFailed, ContainerWaiting},
	ContainerUp:       {ContainerExited},
	ContainerExited:   {ContainerStarting},
	ContainerFailed:   {ContainerStarting},
}

// To is the phase after the move, or an error and the old phase if the table
// does not know the move.
func (p ContainerPhase) To(next ContainerPhase) (ContainerPhase, error) {
	if slices.Contains(containerMoves[p], next) {
		return next, nil
	}
	return p, fmt.Errorf("container phase %s: no move to %s", p, next)
}

// Over tells whether there is no process, and none is being made.
func (p ContainerPhase) Over() bool { return p == ContainerExited || p == ContainerFailed }

// Container is one container of a run as observed.
type Container struct {
	Name  string
	Phase ContainerPhase
	// Began says that it has been started at least once in this run, whatever
	// became of it.
	Began     bool
	StartedAt time.Time
	EndedAt   time.Time
	Clean     bool // exited with code 0
	Code      int  // -1: a signal, or unknown
	Error     string
	Spoilt    bool     // its start failed for what all of the run share: none can be started any more
	Attempts  Attempts // of its starts in this run, this end counted in; see AfterContainer
}

// Containers is one live run: what its containers should be, and are.
type Containers struct {
	Unit unit.Unit // as the run was started
	Now  time.Time
	List []Container // in any order
}

// ContainersPlan is what to do within a run now.
type ContainersPlan struct {
	Start   []ContainerStart
	End     *RunEnd // the run is over: what still runs of it is to be stopped
	Up      bool    // every essential container has been started
	Waiting []ContainerWait
	Wake    time.Time // zero: only when something changes
}

// ContainerStart is one container to start. Reason is empty for the first time.
type ContainerStart struct{ Container, Reason string }

// RunEnd says which container ended the run. Failed: the run as a whole is a
// start that failed.
type RunEnd struct {
	Container string
	Reason    string
	Failed    bool
}

// ContainerWait says why a container is not started yet.
type ContainerWait struct {
	Container string
	Until     time.Time // zero: until something changes
	Reason    string
}

// Within plans for one run whose containers are not being stopped. It is as
// pure as Compute.
//
// The end of an essential container is the end of the run, and so is what keeps
// an essential one from ever starting. Any other container that ends, or whose
// start fails, is started again by the unit's restart policy, with attempts of its
// own; one that others wait for to complete stays ended once it has.
func Within(in Containers) ContainersPlan {
	w := &runPlanner{Containers: in, of: map[string]*Container{}}
	for i := range in.List {
		w.of[in.List[i].Name] = &in.List[i]
	}
	w.out.Up = true
	for _, c := range unit.StartOrder(in.Unit.Containers) {
		if got := w.of[c.Name]; got != nil {
			w.out.Up = w.out.Up && (got.Began || !in.Unit.Essential(c))
		}
	}
	if w.out.End = w.over(); w.out.End != nil {
		return w.out
	}
	for _, c := range unit.StartOrder(in.Unit.Containers) {
		if got := w.of[c.Name]; got != nil && got.Phase != ContainerUp && got.Phase != ContainerStarting {
			w.fill(c, got)
		}
	}
	for _, wait := range w.out.Waiting {
		if !wait.Until.IsZero() && (w.out.Wake.IsZero() || wait.Until.Before(w.out.Wake)) {
			w.out.Wake = wait.Until
		}
	}
	return w.out
}

type runPlanner struct {
	Containers
	of  map[string]*Container
	out ContainersPlan
}

// over finds what ends the run: the essential container that ended first, or one that found
// the run spoilt, else one that can never start.
func (w *runPlanner) over() *RunEnd {
	var first *Container
	for _, c := range w.Unit.Containers {
		got := w.of[c.Name]
		if got == nil || !w.Unit.Essential(&c) && !got.Spoilt || !got.Phase.Over() {
			continue
		}
		if first == nil || cmp.Or(got.EndedAt.Compare(first.EndedAt), cmp.Compare(got.Name, first.Name)) < 0 {
			first = got
		}
	}
	if first != nil {
		return &RunEnd{Container: first.Name, Reason: containerEnding(first), Failed: first.Phase == ContainerFailed}
	}
	for _, c := range unit.StartOrder(w.Unit.Containers) {
		if got := w.of[c.Name]; got == nil || got.Phase != ContainerWaiting || !w.Unit.Essential(c) {
			continue
		}
		if why := w.never(c, map[string]bool{}); why != "" {
			return &RunEnd{Container: c.Name, Reason: why, Failed: true}
		}
	}
	return nil
}

// never says what keeps a container that has not been started from ever starting.
func (w *runPlanner) never(c *unit.Container, seen map[string]bool) string {
	if seen[c.Name] {
		return "" // a circle, which the parser refuses
	}
	seen[c.Name] = true
	for _, d := range c.DependsOn {
		dep, def := w.of[d.Container], w.Unit.Container(d.Container)
		if dep == nil || def == nil || met(d, dep) {
			continue
		}
		if dep.Phase.Over() && dep.Attempts.Done {
			return fmt.Sprintf("waits for container %s, which has ended for good: %s", dep.Name, cmp.Or(dep.Attempts.Error, containerEnding(dep)))
		}
		if dep.Phase == ContainerWaiting {
			if why := w.never(def, seen); why != "" {
				return why
			}
		}
	}
	return ""
}

// met tells whether what the other container must have reached is reached.
func met(d unit.ContainerDependency, dep *Container) bool {
	if d.Condition == unit.CompletedSuccessfully {
		return completed(dep)
	}
	return dep.Began
}

func completed(c *Container) bool { return c.Phase == ContainerExited && c.Clean }

// fill plans for a container that does not run.
func (w *runPlanner) fill(c *unit.Container, got *Container) {
	if got.Phase.Over() && (got.Attempts.Done || w.Unit.Awaited(c.Name) && completed(got)) {
		return
	}
	if why := w.unmet(c); why != "" && got.Phase == ContainerWaiting {
		w.out.Waiting = append(w.out.Waiting, ContainerWait{Container: c.Name, Reason: why})
		return
	}
	if got.Phase == ContainerWaiting {
		w.out.Start = append(w.out.Start, ContainerStart{Container: c.Name})
		return
	}
	p := w.Unit.Restart
	tries := attemptOf(p, got.Attempts)
	if until, held := next(p, got.Attempts, got.Attempts.Run, w.Now); held {
		wait := unit.Duration(Delay(p, got.Attempts, got.Attempts.Run).Round(time.Millisecond))
		w.out.Waiting = append(w.out.Waiting, ContainerWait{Container: c.Name, Until: until,
			Reason: fmt.Sprintf("%s; next try %s later, %s", containerEnding(got), wait, tries)})
		return
	}
	w.out.Start = append(w.out.Start, ContainerStart{Container: c.Name, Reason: containerEnding(got) + ": " + tries})
}

// unmet says what a container waits for.
func (w *runPlanner) unmet(c *unit.Container) string {
	for _, d := range c.DependsOn {
		switch dep := w.of[d.Container]; {
		case dep == nil:
			return "waits for container " + d.Container
		case met(d, dep):
		case d.Condition == unit.CompletedSuccessfully:
			return "waits for container " + d.Container + " to complete"
		default:
			return "waits for container " + d.Container + " to be started"
		}
	}
	return ""
}

// AfterContainer counts the end or the failed start of a container that is not
// essential, as After does for a run. key tells this start from any other: to
// count it twice changes nothing.
func AfterContainer(u unit.Unit, a Attempts, c Container, key string, now time.Time) Attempts {
	p := u.Restart
	if u.Awaited(c.Name) && p.Condition == unit.Any {
		p.Condition = unit.OnFailure // what others wait for to complete is done once it has
	}
	return After(p, a, c.asRun(key), now)
}

// asRun shows a start of a container as one of a run, which is judged the same.
func (c *Container) asRun(key string) Run {
	r := Run{ID: key, Phase: Exited, StartedAt: c.StartedAt, EndedAt: c.EndedAt, Clean: c.Clean, Code: c.Code, Error: c.Error}
	if c.Phase == ContainerFailed {
		r.Phase = Failed
	}
	return r
}

func containerEnding(c *Container) string {
	return "container " + c.Name + ": " + ending(c.asRun(""))
}

// States of a container besides its phases.
const (
	containerCompleted = "completed"
	containerBackoff   = "backoff"
)

// ContainerState is one word for a container: its phase, or what an end means.
func ContainerState(u unit.Unit, c Container) string {
	if !c.Phase.Over() {
		return string(c.Phase)
	}
	def := u.Container(c.Name)
	if def == nil || u.Essential(def) {
		return string(c.Phase)
	}
	switch {
	case completed(&c) && (u.Awaited(c.Name) || c.Attempts.Done):
		return containerCompleted
	case c.Attempts.Done:
		return StateFailed
	}
	return containerBackoff
}
