package plan

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// world is an Input put in order: everything in it is sorted, so that no map's
// order reaches a plan.
type world struct {
	Input
	units  []*wanted // by name
	byName map[string]*wanted
	graph  graph
	// orphans are runs of units that nobody declared.
	orphans []Run
}

// wanted is a unit with its instances.
type wanted struct {
	Desired
	name  string
	slots []*slot // the wanted instances 1 to replicas, then surplus ones, highest first
}

// slot is an instance with its runs.
type slot struct {
	instance string
	number   int // 0: not an instance of this unit by its name
	surplus  bool
	live     []Run // newest first
	ended    []Run // newest first
}

func newWorld(in Input) *world {
	w := &world{Input: in, byName: make(map[string]*wanted, len(in.Desired))}
	for _, d := range in.Desired {
		if w.byName[d.Unit.Name] != nil {
			continue // a name is wanted once; the first counts
		}
		u := &wanted{Desired: d, name: d.Unit.Name}
		w.byName[u.name] = u
		w.units = append(w.units, u)
	}
	slices.SortFunc(w.units, func(a, b *wanted) int { return cmp.Compare(a.name, b.name) })
	runs := make(map[string][]Run, len(w.units))
	for _, r := range in.Observed {
		if w.byName[r.Unit] == nil {
			w.orphans = append(w.orphans, r)
			continue
		}
		runs[r.Unit] = append(runs[r.Unit], r)
	}
	for _, u := range w.units {
		u.slots = newSlots(u, runs[u.name])
	}
	newestFirst(w.orphans)
	w.graph = newGraph(w.units)
	return w
}

// newestFirst sorts runs. An ended run is as old as its end, for one that never
// ran has no start.
func newestFirst(runs []Run) {
	slices.SortFunc(runs, func(a, b Run) int {
		return cmp.Or(
			b.EndedAt.Compare(a.EndedAt),
			b.StartedAt.Compare(a.StartedAt),
			cmp.Compare(b.Revision, a.Revision),
			cmp.Compare(b.Restart, a.Restart),
			cmp.Compare(b.ID, a.ID),
		)
	})
}

func newSlots(u *wanted, runs []Run) []*slot {
	var slots, surplus []*slot
	byName := map[string]*slot{}
	for n := 1; n <= u.Unit.Replicas; n++ {
		s := &slot{instance: Instance(u.name, n), number: n}
		slots = append(slots, s)
		byName[s.instance] = s
	}
	for _, r := range runs {
		s := byName[r.Instance]
		if s == nil {
			s = &slot{instance: r.Instance, number: number(u.name, r.Instance), surplus: true}
			byName[r.Instance] = s
			surplus = append(surplus, s)
		}
		if r.Phase.Ended() {
			s.ended = append(s.ended, r)
		} else {
			// A phase that is not in the table is taken for live: to leave a
			// slot empty too long is the smaller harm.
			s.live = append(s.live, r)
		}
	}
	for _, s := range byName { // each on its own: their order does not matter
		newestFirst(s.live)
		newestFirst(s.ended)
	}
	slices.SortFunc(surplus, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(b.number, a.number), cmp.Compare(b.instance, a.instance))
	})
	return append(slots, surplus...)
}

// Instance names the n-th instance of a unit; the first is 1.
func Instance(unit string, n int) string { return unit + "." + strconv.Itoa(n) }

// number is the inverse of Instance; 0 if the name is none of the unit's.
func number(unit, instance string) int {
	digits, ok := strings.CutPrefix(instance, unit+".")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || Instance(unit, n) != instance {
		return 0
	}
	return n
}

// live tells whether the unit has a run that has not ended.
func (u *wanted) live() bool {
	return slices.ContainsFunc(u.slots, func(s *slot) bool { return len(s.live) > 0 })
}

// up tells whether the slot has a run that runs.
func (s *slot) up() bool {
	return slices.ContainsFunc(s.live, func(r Run) bool { return r.Phase == Up })
}

// current tells whether a run is what is wanted now. A lower restart number
// asks for a replacement; a higher one is left over from a lost database and
// no reason to disturb anything.
func (u *wanted) current(r Run) bool {
	return u.Holds(r.Revision) && r.Restart >= u.Restart
}

// busyInstance tells whether an action for the whole instance is under way.
func (w *world) busyInstance(s *slot) bool { return w.InFlight[s.instance] != "" }

// busyRun tells whether an action of another kind must wait for this run.
func (w *world) busyRun(s *slot, r Run) bool {
	return w.InFlight[r.ID] != "" || w.busyInstance(s)
}

// busyStop tells whether a Stop must wait: not for a start that is abortable.
func (w *world) busyStop(s *slot, r Run) bool {
	blocks := func(action string) bool { return action != "" && action != Abortable }
	return blocks(w.InFlight[r.ID]) || blocks(w.InFlight[s.instance])
}

// busyStart tells whether the next start must wait for an action under way. A
// removal of an old run is no obstacle.
func (w *world) busyStart(s *slot) bool {
	if w.busyInstance(s) {
		return true
	}
	for _, r := range slices.Concat(s.live, s.ended) {
		if action := w.InFlight[r.ID]; action != "" && action != string(Remove) {
			return true
		}
	}
	return false
}

// busyUnit tells whether anything is under way for a unit or what is named
// after it: an action may concern a run that is not observed yet.
func (w *world) busyUnit(u *wanted) bool {
	busy := false
	for key, action := range w.InFlight { // any order: only whether one exists
		if action == "" {
			continue
		}
		instance, _, _ := strings.Cut(key, "-")
		if at := strings.LastIndexByte(key, '-'); at > 0 {
			instance = key[:at]
		}
		if key == u.name || number(u.name, key) > 0 || number(u.name, instance) > 0 {
			busy = true
		}
	}
	return busy
}
