package plan

import (
	"slices"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// Hurry gives a run that is being stopped already less time, because the host
// goes down.
const Hurry Kind = "hurry"

const (
	// killTime is how long a run that was killed still holds up those after it: one that
	// not even that ends must not take their time as well.
	killTime = time.Second

	// leastShare is what a level is given at least: to end without a grace period takes a
	// moment too.
	leastShare = 100 * time.Millisecond
)

// Shutdown says that the host goes down: whatever is wanted, nothing starts, and everything
// stops in the reverse order of depends_on.
//
// A stop then has a time, Action.Until, at which the caller kills what still runs of the
// run. What is left until the end is divided between the levels that are still to stop, see
// Share: a level that ends soon leaves its time to those after it, and one that does not end
// takes no other's.
type Shutdown struct {
	Until time.Time // all of it is to be over by then
}

const hostGoesDown = "the host goes down"

// shutdown plans for a host that goes down. Ended runs stay to be looked at.
func (p *planner) shutdown() {
	for _, u := range p.units {
		p.leave(u)
	}
	for _, r := range p.orphans {
		if r.Phase.Live() {
			p.hasten(&slot{instance: r.Instance}, r, p.Shutdown.Until)
		}
	}
}

// leave stops a unit, after those that depend on it.
func (p *planner) leave(u *wanted) {
	user := p.user(u)
	until := p.Now.Add(max(p.share(u), 0))
	for _, s := range slices.Backward(u.slots) {
		for _, r := range s.live {
			switch {
			case user == "":
				p.hasten(s, r, until)
			case stoppable(r):
				p.wakes = append(p.wakes, p.Shutdown.Until) // then it waits for nobody
				p.wait(Waiting{Unit: u.name, Instance: s.instance, Reason: "stops after unit " + user + ", which depends on it"})
			}
		}
	}
}

// hasten stops a run, or gives one that is being stopped a time, if it has none yet.
func (p *planner) hasten(s *slot, r Run, until time.Time) {
	kind := Stop
	switch {
	case stoppable(r) && p.busyStop(s, r):
		return
	case stoppable(r):
	case r.Until.IsZero():
		kind = Hurry
	default:
		if gone := r.Until.Add(killTime); gone.After(p.Now) {
			p.wakes = append(p.wakes, gone)
		}
		return
	}
	p.out.Actions = append(p.out.Actions, Action{Kind: kind, Unit: r.Unit, Instance: r.Instance, Run: r.ID, Reason: hostGoesDown, Until: until})
}

// late tells whether a unit has used up its time, so that nobody waits for it any longer.
func (p *planner) late(u *wanted) bool {
	if !p.Now.Before(p.Shutdown.Until) {
		return true
	}
	for _, s := range u.slots {
		for _, r := range s.live {
			if stoppable(r) || r.Until.IsZero() || r.Until.Add(killTime).After(p.Now) {
				return false
			}
		}
	}
	return true
}

// share is how much of what is left the unit's stop may take.
func (p *planner) share(u *wanted) time.Duration {
	own := stopLevels(&u.Unit)
	return Share(p.Shutdown.Until.Sub(p.Now), slices.Concat(own, p.below(u)), len(own))
}

// below are the levels that stop after a unit: those of what it depends on, and so on down.
// Of what stops at the same time the longest counts.
func (p *planner) below(u *wanted) []time.Duration {
	if levels, ok := p.depths[u.name]; ok {
		return levels
	}
	p.depths[u.name] = nil // of a circle
	var levels []time.Duration
	for _, d := range u.Unit.DependsOn {
		dep := p.byName[d.Unit]
		if dep == nil || !dep.live() || p.graph.together(u.name, d.Unit) {
			continue
		}
		for i, need := range slices.Concat(stopLevels(&dep.Unit), p.below(dep)) {
			if i == len(levels) {
				levels = append(levels, 0)
			}
			levels[i] = max(levels[i], need)
		}
	}
	p.depths[u.name] = levels
	return levels
}

// stopLevels are the grace periods of a unit's containers, by the level at which they stop.
func stopLevels(u *unit.Unit) []time.Duration {
	if len(u.Containers) == 0 {
		return []time.Duration{0} // nobody parsed it
	}
	return StopLevels(unit.StartOrder(u.Containers))
}

// StopLevels are the grace periods of containers by the level at which they stop: those that
// no other one of them depends on come first. They stand in the order of their start.
func StopLevels(containers []*unit.Container) []time.Duration {
	level := map[string]int{}
	var levels []time.Duration
	for _, c := range slices.Backward(containers) {
		at := level[c.Name]
		for len(levels) <= at {
			levels = append(levels, 0)
		}
		levels[at] = max(levels[at], time.Duration(c.StopGracePeriod))
		for _, d := range c.DependsOn {
			level[d.Container] = max(level[d.Container], at+1)
		}
	}
	return levels
}

// Share divides time between levels that come one after the other, each of which would
// take as long as it says, and is what the first n of them get. Whoever wants less than an
// equal part gets all of it; what that leaves goes in equal parts to the others. If there is
// more than all of them want, the first have it too: the others are sure of theirs.
func Share(left time.Duration, levels []time.Duration, n int) time.Duration {
	sorted := make([]time.Duration, len(levels))
	for i, need := range levels {
		sorted[i] = max(need, leastShare)
	}
	slices.Sort(sorted)
	rest, most := left, time.Duration(0) // what a level gets at most
	for i, need := range sorted {
		most = rest / time.Duration(len(sorted)-i)
		if need <= most {
			rest -= need
		} else {
			rest = -1
			break
		}
	}
	var others, first time.Duration
	for i, need := range levels {
		switch need = max(need, leastShare); {
		case i < n && rest >= 0:
			first += need
		case i < n:
			first += min(need, most)
		case rest >= 0:
			others += need
		}
	}
	if rest >= 0 {
		return left - others
	}
	return first
}
