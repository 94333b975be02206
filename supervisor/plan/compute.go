package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// Compute says what is to be done now.
func Compute(in Input) Plan {
	p := &planner{world: newWorld(in), will: map[string]bool{}, depths: map[string][]time.Duration{}}
	if in.Shutdown != nil {
		p.shutdown()
		p.out.Wake = first(p.wakes)
		return p.out
	}
	for _, u := range p.units {
		switch u.Intent {
		case Running:
			p.keep(u)
		case Stopped, Removed:
			p.end(u)
		default: // an intent of a newer version: touch nothing
		}
	}
	for _, r := range p.orphans {
		if r.Phase.Live() {
			p.wait(Waiting{Unit: r.Unit, Instance: r.Instance,
				Reason: fmt.Sprintf("run %s is of no known unit: it is left alone", r.ID)})
		}
	}
	p.out.Wake = earliest(p.out.Waiting)
	return p.out
}

// planner collects a plan.
type planner struct {
	*world
	will map[string]bool // what coming found out
	out  Plan

	// Of a shutdown.
	depths map[string][]time.Duration // what below found out
	wakes  []time.Time
}

func (p *planner) act(k Kind, u *wanted, s *slot, run, reason string) {
	a := Action{Kind: k, Unit: u.name, Run: run, Reason: reason}
	if s != nil {
		a.Instance = s.instance
	}
	if k == Start {
		a.Revision = u.Revision
	}
	p.out.Actions = append(p.out.Actions, a)
}

func (p *planner) wait(w Waiting) { p.out.Waiting = append(p.out.Waiting, w) }

// keep plans for a unit that is to run: what is too much stops, what is old is
// replaced in turn, what is missing starts.
func (p *planner) keep(u *wanted) {
	for _, s := range u.slots {
		if s.surplus {
			p.retire(u, s, fmt.Sprintf("%s is above the replica count %d", s.instance, max(u.Unit.Replicas, 0)))
		}
	}
	blocked := p.blocked(u)
	turn := p.turn(u)
	for _, s := range u.slots {
		switch {
		case s.surplus:
		case len(s.live) > 0:
			p.tend(u, s, blocked, turn)
		default:
			p.fill(u, s, blocked)
		}
	}
}

// end plans for a unit that is to stop, after the units that depend on it.
func (p *planner) end(u *wanted) {
	reason := "the unit is stopped"
	if u.Intent == Removed {
		reason = "the unit is removed"
	}
	user := p.user(u)
	left := 0
	// Highest first, like a start read backwards.
	for _, s := range slices.Backward(u.slots) {
		left += len(s.live) + len(s.ended)
		if user != "" && slices.ContainsFunc(s.live, stoppable) {
			p.wait(Waiting{Unit: u.name, Instance: s.instance, Reason: "stops after unit " + user + ", which depends on it"})
		}
		if user == "" {
			p.stopAll(u, s, reason)
		}
		p.tidy(u, s, s.surplus || u.Intent == Removed)
	}
	if u.Intent == Removed && left == 0 && !p.busyUnit(u) {
		p.act(Forget, u, nil, "", "the unit is removed and no run of it is left")
	}
}

// user names a live unit that depends on u and is to stop as well; empty if u
// may stop now. Units of one circle do not wait for each other.
func (p *planner) user(u *wanted) string {
	for _, name := range p.graph.users[u.name] {
		other := p.byName[name]
		if p.stops(other) && other.live() && !p.graph.together(u.name, name) {
			return name
		}
	}
	return ""
}

// stops tells whether a unit is not to run, and can be waited for.
func (p *planner) stops(u *wanted) bool {
	if p.Shutdown != nil {
		return !p.late(u)
	}
	return u.Intent != Running
}

// retire stops and clears an instance that is not wanted any more.
func (p *planner) retire(u *wanted, s *slot, reason string) {
	p.stopAll(u, s, reason)
	p.tidy(u, s, true)
}

func (p *planner) stopAll(u *wanted, s *slot, reason string) {
	for _, r := range s.live {
		p.stop(u, s, r, reason)
	}
}

func (p *planner) stop(u *wanted, s *slot, r Run, reason string) {
	if stoppable(r) && !p.busyStop(s, r) {
		p.act(Stop, u, s, r.ID, reason)
	}
}

func stoppable(r Run) bool { return r.Phase != Stopping }

// tend plans for an instance with a live run.
func (p *planner) tend(u *wanted, s *slot, blocked string, turn *slot) {
	keep := slices.IndexFunc(s.live, u.current)
	for i, r := range s.live {
		switch {
		case i == keep:
			p.adjust(u, s, r)
		case keep >= 0:
			p.stop(u, s, r, "run "+s.live[keep].ID+" took its place")
		case r.Phase == Stopping:
		case blocked != "":
			// To stop what runs for something that cannot start would be an outage.
			p.wait(Waiting{Unit: u.name, Instance: s.instance, Reason: replaces(u, r) + ", but " + blocked})
		case r.Phase != Up || turn == nil || turn == s:
			p.stop(u, s, r, replaces(u, r))
		default:
			p.wait(Waiting{Unit: u.name, Instance: s.instance, Reason: replaces(u, r) + ", after " + turn.instance})
		}
	}
	p.tidy(u, s, true)
}

// turn is the instance that is in replacement or comes next; nil if none is.
// An instance that is current but does not run, for whatever reason, holds up
// the others: a bad revision takes down one replica, not all. One that did its
// work does not.
func (p *planner) turn(u *wanted) *slot {
	var next *slot
	for _, s := range u.slots {
		if s.surplus || p.settled(u, s) {
			continue
		}
		if !s.up() || !slices.ContainsFunc(s.live, func(r Run) bool { return r.Phase == Up && !u.current(r) }) {
			return s
		}
		if next == nil {
			next = s
		}
	}
	return next
}

// settled tells whether the instance is as wanted.
func (p *planner) settled(u *wanted, s *slot) bool {
	if len(s.live) == 0 {
		a := p.Memory[s.instance].of(u.Desired)
		return a.Done && a.Error == ""
	}
	return len(s.live) == 1 && u.current(s.live[0]) && s.live[0].Phase == Up
}

// fill plans for an instance without a live run.
func (p *planner) fill(u *wanted, s *slot, blocked string) {
	a := p.Memory[s.instance].of(u.Desired)
	switch until, held := next(u.Unit.Restart, a, s.instance, p.Now); {
	case p.busyStart(s) || a.Done:
		p.tidy(u, s, false)
	case blocked != "":
		p.wait(Waiting{Unit: u.name, Instance: s.instance, Reason: blocked})
		p.tidy(u, s, false)
	case held:
		p.wait(Waiting{Unit: u.name, Instance: s.instance, Until: until, Reason: backoff(u, s, a)})
		p.tidy(u, s, false)
	default:
		p.tidy(u, s, true)
		p.act(Start, u, s, "", cause(u, s, a))
	}
}

// tidy removes ended runs: all, or all but the newest, which is kept to be
// looked at until the next start.
func (p *planner) tidy(u *wanted, s *slot, all bool) {
	for i, r := range s.ended {
		if i == 0 && !all || p.busyRun(s, r) {
			continue
		}
		reason := "a newer run took its place"
		switch {
		case u.Intent == Removed:
			reason = "the unit is removed"
		case s.surplus:
			reason = fmt.Sprintf("%s is above the replica count %d", s.instance, max(u.Unit.Replicas, 0))
		}
		p.act(Remove, u, s, r.ID, reason)
	}
}

// blocked says why no instance of the unit may start; empty if they may.
func (p *planner) blocked(u *wanted) string {
	if round := p.graph.round(u.name); round != "" {
		return round
	}
	for _, d := range u.Unit.DependsOn {
		if why := p.unmet(d.Unit); why != "" && (d.Required || p.coming(d.Unit)) {
			return why
		}
	}
	return ""
}

// unmet says what is missing in a unit that others depend on.
func (p *planner) unmet(name string) string {
	dep := p.byName[name]
	switch {
	case dep == nil:
		return "unit " + name + " does not exist"
	case dep.Intent != Running:
		return "unit " + name + " is " + string(cmp.Or(dep.Intent, Stopped))
	}
	for _, s := range dep.slots {
		switch {
		case s.surplus || s.up():
		case p.Memory[s.instance].of(dep.Desired).Done && len(s.live) == 0:
			return "waits for unit " + name + ": " + s.instance + " has ended for good"
		default:
			return "waits for unit " + name + ": " + s.instance + " is not running"
		}
	}
	return ""
}

// coming tells whether a unit may still come up by itself: one that is not
// required is waited for only then.
func (p *planner) coming(name string) bool {
	if known, ok := p.will[name]; ok {
		return known
	}
	dep := p.byName[name]
	// Circles are excluded first, so that what follows comes to an end.
	will := dep != nil && dep.Intent == Running && p.graph.round(name) == "" && !p.over(dep)
	if will {
		for _, d := range dep.Unit.DependsOn {
			if d.Required && p.unmet(d.Unit) != "" && !p.coming(d.Unit) {
				will = false
			}
		}
	}
	p.will[name] = will
	return will
}

// over tells whether an instance of the unit has ended for good.
func (p *planner) over(u *wanted) bool {
	return slices.ContainsFunc(u.slots, func(s *slot) bool {
		return !s.surplus && len(s.live) == 0 && p.Memory[s.instance].of(u.Desired).Done
	})
}

// earliest is the first moment at which some wait is over.
func earliest(waits []Waiting) time.Time {
	moments := make([]time.Time, len(waits))
	for i, w := range waits {
		moments[i] = w.Until
	}
	return first(moments)
}

// first is the earliest of moments; the zero time is none.
func first(moments []time.Time) time.Time {
	var first time.Time
	for _, t := range moments {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// replaces says why a live run makes way.
func replaces(u *wanted, r Run) string {
	if !u.Holds(r.Revision) {
		return fmt.Sprintf("revision %d replaces %d", u.Revision, r.Revision)
	}
	return "a restart was asked for"
}

// cause says why an instance starts.
func cause(u *wanted, s *slot, a Attempts) string {
	if len(s.ended) == 0 {
		return s.instance + " is not running"
	}
	last := s.ended[0]
	switch {
	case !u.current(last):
		return replaces(u, last)
	case a.Failures == 0:
		return s.instance + " is not running"
	}
	return ending(last) + ": " + attempt(u, a)
}

// backoff says what an instance waits for, with nothing in it that changes
// while it waits.
func backoff(u *wanted, s *slot, a Attempts) string {
	how := "the last run ended"
	if len(s.ended) > 0 {
		how = ending(s.ended[0])
	} else if a.Error != "" {
		how = a.Error
	}
	wait := unit.Duration(Delay(u.Unit.Restart, a, s.instance).Round(time.Millisecond))
	return fmt.Sprintf("%s; next try %s later, %s", how, wait, attempt(u, a))
}

// attempt counts for people.
func attempt(u *wanted, a Attempts) string { return attemptOf(u.Unit.Restart, a) }

func attemptOf(p unit.RestartPolicy, a Attempts) string {
	if most := p.MaxAttempts; most > 0 {
		return fmt.Sprintf("attempt %d of %d", len(a.Starts), most)
	}
	return "attempt " + strconv.Itoa(a.Failures)
}
