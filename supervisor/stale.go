package supervisor

import (
	"maps"
	"time"

	"github.com/wherry-run/wherry/supervisor/plan"
)

// fullEvery is how often all units are planned anew, whatever has been noted of them: what
// an oversight of ours costs a unit is then this much at most.
const fullEvery = time.Minute

// stale is what has changed since the last plan and the last snapshot, so that an event
// about one unit costs what one unit costs, however many there are. Whatever changes what a
// unit's plan or entry depends on must touch it: TestPlanOfFew and all tests on a world
// compare what is planned with a plan of everything.
type stale struct {
	plan  map[string]bool // units by name, also such that are gone
	shown map[string]bool // units whose entry of the snapshot is older than they are
	all   bool            // plan everything

	users map[string]map[string]bool // by unit: those that name it in depends_on
	runs  map[string]map[string]*run // by unit and id
	waits map[string]time.Time       // by unit: when its plan is another one by itself
	wakes map[string]*run            // runs with a back-off of a container
	full  time.Time                  // of the last plan of everything
	last  time.Time                  // of the last plan
}

func newStale() stale {
	return stale{plan: map[string]bool{}, shown: map[string]bool{}, all: true, users: map[string]map[string]bool{},
		runs: map[string]map[string]*run{}, waits: map[string]time.Time{}, wakes: map[string]*run{}}
}

// touch marks a unit as changed, for the plan and the snapshot.
func (l *loop) touch(unit string) { l.stale.plan[unit], l.stale.shown[unit] = true, true }

func (l *loop) touchAll() {
	l.stale.all = true
	for name := range l.units {
		l.stale.shown[name] = true
	}
}

// setUnit gives a unit's name to w; nil: to none.
func (l *loop) setUnit(name string, w *wanted) {
	if old := l.units[name]; old != nil {
		for _, d := range old.def().DependsOn {
			drop(l.stale.users, d.Unit, name)
			l.stale.plan[d.Unit] = true // may have waited for this one, of which nothing leads to it any more
		}
	}
	l.touch(name)
	if w == nil {
		delete(l.units, name)
		return
	}
	l.units[name] = w
	for _, d := range w.def().DependsOn {
		put(l.stale.users, d.Unit, name, true)
	}
}

// addRun and dropRun are the only ways of a run into the loop and out of it.
func (l *loop) addRun(r *run) {
	l.runs[r.Run] = r
	put(l.stale.runs, r.Unit.Name, r.Run, r)
	l.touch(r.Unit.Name)
}

func (l *loop) dropRun(r *run) {
	delete(l.runs, r.Run)
	delete(l.stale.wakes, r.Run)
	drop(l.stale.runs, r.Unit.Name, r.Run)
	l.touch(r.Unit.Name)
}

// setWake sets when a back-off within the run is over; the zero time is never.
func (l *loop) setWake(r *run, at time.Time) {
	if r.wake = at; at.IsZero() {
		delete(l.stale.wakes, r.Run)
		return
	}
	l.stale.wakes[r.Run] = r
}

func put[V any](m map[string]map[string]V, key, sub string, v V) {
	if m[key] == nil {
		m[key] = map[string]V{}
	}
	m[key][sub] = v
}

func drop[V any](m map[string]map[string]V, key, sub string) {
	if delete(m[key], sub); len(m[key]) == 0 {
		delete(m, key)
	}
}

// affected takes the units that are to be planned: those that have changed, whose wait is
// over, and all that hang together with them by depends_on, either way. A plan of them is
// the same as their part of a plan of everything.
func (l *loop) affected(now time.Time) map[string]bool {
	s := &l.stale
	// A plan for a host that goes down is one of all: they share the time that is left.
	if s.all || l.ending || l.descent != nil || now.Sub(s.full) >= fullEvery {
		all := l.everything()
		maps.Copy(all, s.plan)
		clear(s.plan)
		s.all, s.full, s.last = false, now, now
		return all
	}
	back := now.Round(0).Before(s.last.Round(0)) // somebody has set the clock: waits may be none any more
	s.last = now
	for name, until := range s.waits {
		if back || !now.Before(until) {
			s.plan[name] = true
		}
	}
	found := make(map[string]bool, len(s.plan))
	for name := range s.plan {
		l.reach(name, found)
	}
	clear(s.plan)
	return found
}

// everything names all units, and those that only runs are known of.
func (l *loop) everything() map[string]bool {
	all := make(map[string]bool, len(l.units))
	for name := range l.units {
		all[name] = true
	}
	for name := range l.stale.runs {
		all[name] = true
	}
	return all
}

// reach finds what hangs together with a unit.
func (l *loop) reach(name string, found map[string]bool) {
	if found[name] {
		return
	}
	found[name] = true
	if w := l.units[name]; w != nil {
		for _, d := range w.def().DependsOn {
			l.reach(d.Unit, found)
		}
	}
	for user := range l.stale.users[name] {
		l.reach(user, found)
	}
}

// input is what the plan of the units depends on.
func (l *loop) input(now time.Time, units map[string]bool) plan.Input {
	in := plan.Input{InFlight: make(map[string]string, len(l.work)), Memory: make(map[string]plan.Attempts, len(units)), Now: now}
	if l.descent != nil {
		in.Shutdown = &plan.Shutdown{Until: l.descent.until}
	}
	for name := range units {
		w := l.units[name]
		if w != nil {
			d := w.desired()
			if l.ending && d.Intent == plan.Running {
				d.Intent = plan.Stopped
			}
			in.Desired = append(in.Desired, d)
			for n := 1; n <= d.Unit.Replicas; n++ {
				l.remember(&in, plan.Instance(name, n))
			}
		}
		for _, r := range l.stale.runs[name] {
			in.Observed = append(in.Observed, r.observed())
		}
	}
	for key, w := range l.work {
		in.InFlight[key] = w.kind
	}
	return in
}

func (l *loop) remember(in *plan.Input, instance string) {
	if a, ok := l.attempts[instance]; ok {
		in.Memory[instance] = a.Attempts
	}
}

// carryOut plans what has changed and sets it going.
func (l *loop) carryOut(now time.Time) {
	waits := map[string][]plan.Waiting{} // by unit that was planned
	for l.again = true; l.again; {
		l.again = false
		units := l.affected(now)
		l.plan = plan.Compute(l.input(now, units))
		for name := range units {
			waits[name] = nil
		}
		for _, w := range l.plan.Waiting {
			waits[w.Unit] = append(waits[w.Unit], w)
		}
		for _, a := range l.plan.Actions {
			l.dispatch(a)
		}
		if l.ending {
			l.tidy()
		}
	}
	l.noteWaits(waits)
	if check := l.opts.Load().hooks.planned; check != nil {
		units := map[string]bool{}
		for name := range waits {
			units[name] = true
		}
		check(units, l.overlooked(now))
	}
}

// overlooked are the units that a plan of everything would treat otherwise: there are none.
func (l *loop) overlooked(now time.Time) []string {
	if l.ending || l.descent != nil {
		return nil
	}
	full := plan.Compute(l.input(now, l.everything()))
	found := map[string]bool{}
	for _, a := range full.Actions {
		found[a.Unit] = true
	}
	waits := map[string][]plan.Waiting{}
	for _, w := range full.Waiting {
		waits[w.Unit] = append(waits[w.Unit], w)
	}
	for name, w := range l.units {
		if !sameWaits(w.waits, waits[name]) {
			found[name] = true
		}
	}
	for name := range l.stale.plan { // has its turn in the next step
		near := map[string]bool{}
		l.reach(name, near)
		maps.DeleteFunc(found, func(unit string, _ bool) bool { return near[unit] })
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	return names
}
