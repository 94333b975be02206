package plan

// Words for the state of a unit as a whole, see State.
const (
	StateRunning   = "running"   // every replica runs; one that completed does no harm
	StateDegraded  = "degraded"  // some replicas run, some do not
	StateStarting  = "starting"  // no replica runs; one is about to
	StatePulling   = "pulling"   // no replica runs; an image is fetched
	StateWaiting   = "waiting"   // no replica runs; a unit it depends on is missing or not up
	StateBackoff   = "backoff"   // no replica runs; the last try failed and the next comes later
	StateStopping  = "stopping"  // what is left of it is on its way out
	StateStopped   = "stopped"   // nothing of it runs and nothing should
	StateCompleted = "completed" // every replica ended with success and its policy leaves it so
	StateFailed    = "failed"    // a replica ended for good without success: an operator is needed
)

// gravity orders the words of single instances: with none running, the unit
// gets the first word that one of its instances has.
var gravity = []string{StateFailed, StateBackoff, StateWaiting, StatePulling, StateStarting, StateStopping, StateCompleted}

// State is one word for a unit. runs may hold those of other units too, and
// waits is a plan's Waiting.
func State(d Desired, runs []Run, mem map[string]Attempts, waits []Waiting) string {
	u := &wanted{Desired: d, name: d.Unit.Name}
	var own []Run
	for _, r := range runs {
		if r.Unit == u.name {
			own = append(own, r)
		}
	}
	u.slots = newSlots(u, own)
	if d.Intent != Running || d.Unit.Replicas <= 0 {
		if u.live() {
			return StateStopping
		}
		return StateStopped
	}
	words := map[string]int{}
	for _, s := range u.slots {
		if !s.surplus {
			words[s.state(d, mem[s.instance], waits)]++
		}
	}
	up := words[StateRunning]
	switch {
	case up > 0 && up+words[StateCompleted] == d.Unit.Replicas:
		return StateRunning
	case up > 0:
		return StateDegraded
	}
	for _, word := range gravity {
		if words[word] > 0 {
			return word
		}
	}
	return StateStopped
}

// InstanceState is State for one instance. One above the replica count is
// stopping or stopped.
func InstanceState(d Desired, instance string, runs []Run, mem map[string]Attempts, waits []Waiting) string {
	u := &wanted{Desired: d, name: d.Unit.Name}
	s := &slot{instance: instance, number: number(u.name, instance)}
	for _, r := range runs {
		if r.Unit == u.name && r.Instance == instance && !r.Phase.Ended() {
			s.live = append(s.live, r)
		}
	}
	newestFirst(s.live)
	if d.Intent == Running && 0 < s.number && s.number <= d.Unit.Replicas {
		return s.state(d, mem[instance], waits)
	}
	if len(s.live) > 0 {
		return StateStopping
	}
	return StateStopped
}

// state is one word for an instance that is wanted.
func (s *slot) state(d Desired, a Attempts, waits []Waiting) string {
	if s.up() {
		return StateRunning
	}
	if len(s.live) > 0 {
		switch s.live[0].Phase {
		case Pulling:
			return StatePulling
		case Stopping:
			return StateStopping
		}
		return StateStarting
	}
	if a = a.of(d); a.Done {
		if a.Error == "" {
			return StateCompleted
		}
		return StateFailed
	}
	for _, w := range waits {
		switch {
		case w.Instance != s.instance:
		case w.Until.IsZero():
			return StateWaiting
		default:
			return StateBackoff
		}
	}
	return StateStarting
}
