package supervisor

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// snapshot is what everybody but the loop sees. It never changes; the next one
// takes its place.
type snapshot struct {
	entries  []*entry // by name
	warnings []string
	down     bool          // the host goes down
	changed  chan struct{} // closed when there is a newer one
}

// entry is one unit of a snapshot.
type entry struct {
	unit      api.Unit
	serial    uint64
	restart   int
	lazy      bool
	revs      []state.Revision
	rev       *state.Revision
	instances []instance
	live      int // runs that have not ended
	readers   *atomic.Int32
	// final says that nothing more will happen by itself to the first
	// instance; exit is how it ended, if it ever ran.
	final bool
	exit  *api.Exit
}

// instance is what waiters need besides the API's view.
type instance struct {
	name    string
	run     string // that runs
	current bool   // it is of the wanted revision and restart
	starts  int
	failed  int
	err     error // of the latest start, if it failed

	since     time.Time // run is up
	down      error     // why it is not up, if it has failed; see outcome
	completed bool      // it ended with success, and stays so

	limits    string // what run has, see unit.LimitsOf
	limitsErr error  // why it has not got those that it should

	containers []containerView
}

// containerView is a container of an instance for those who act on it.
type containerView struct {
	name string
	run  string // it belongs to
	up   bool
}

func newSnapshot() *snapshot { return &snapshot{changed: make(chan struct{})} }

func (s *snapshot) at(name string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, name, func(e *entry, n string) int { return strings.Compare(e.unit.Name, n) })
}

func (s *snapshot) find(name string) *entry {
	i, ok := s.at(name)
	if !ok {
		return nil
	}
	return s.entries[i]
}

// publish makes the next snapshot. Only units that changed are built anew.
func (l *loop) publish(now time.Time) {
	old := l.snap.Load()
	if len(l.stale.shown) == 0 && slices.Equal(old.warnings, l.warnings) {
		return
	}
	next := newSnapshot()
	next.warnings, next.down = l.warnings, l.descent != nil
	next.entries = make([]*entry, len(old.entries), len(old.entries)+1)
	copy(next.entries, old.entries)
	for name := range l.stale.shown {
		at, known := next.at(name)
		w := l.units[name]
		switch {
		case w == nil && known:
			next.entries = slices.Delete(next.entries, at, at+1)
		case w == nil:
		case known:
			next.entries[at] = l.entry(w, now)
		default:
			next.entries = slices.Insert(next.entries, at, l.entry(w, now))
		}
	}
	clear(l.stale.shown)
	l.snap.Store(next)
	close(old.changed)
}

// entry builds one unit.
func (l *loop) entry(w *wanted, now time.Time) *entry {
	runs := slices.Collect(maps.Values(l.stale.runs[w.rec.Name]))
	d, rev, def := w.desired(), w.revision(), w.def()
	if (l.ending || l.descent != nil) && d.Intent == plan.Running {
		d.Intent = plan.Stopped
	}
	memory := map[string]plan.Attempts{}
	names := make([]string, 0, def.Replicas)
	for n := 1; n <= def.Replicas; n++ {
		names = append(names, plan.Instance(def.Name, n))
	}
	observed := make([]plan.Run, 0, len(runs))
	for _, r := range runs {
		observed = append(observed, r.observed())
		if !slices.Contains(names, r.Instance) && !r.phase.Ended() {
			names = append(names, r.Instance)
		}
	}
	for _, name := range names {
		if a, ok := l.attempts[name]; ok {
			memory[name] = a.Attempts
		}
	}
	e := &entry{serial: w.serial, restart: w.rec.Restart, lazy: w.lazy(), revs: w.revs, rev: rev, readers: w.readers,
		unit: api.Unit{Name: def.Name, Kind: string(def.Kind), Intent: string(w.rec.Intent), Revision: rev.Number,
			Image: w.app().Image, Command: w.app().Command, Network: def.Network, Replicas: def.Replicas,
			CreatedAt: w.rec.CreatedAt, Labels: def.Labels, Ports: portsOf(def, w.rec.Ports, runs), Instances: []api.Instance{}}}
	e.unit.State = plan.State(d, observed, memory, w.waits)
	paused := 0
	for _, name := range names {
		i, v := l.instance(w, name, runs)
		i.State = plan.InstanceState(d, name, observed, memory, w.waits)
		running := i.State == plan.StateRunning
		if r := newest(name, runs); running && r != nil && r.paused() {
			i.State = statePaused
			paused++
		}
		if r := newest(name, runs); r != nil && r.stuckWords() != "" {
			i.State, i.Reason = stateStuck, r.stuckWords()
			e.unit.State = stateStuck
		}
		e.unit.Instances = append(e.unit.Instances, i)
		e.instances = append(e.instances, v)
		e.unit.Restarts += i.Restarts
		if running {
			e.unit.Running++
		}
		if e.unit.Reason == "" && !running {
			e.unit.Reason = i.Reason
		}
	}
	if paused > 0 && paused == e.unit.Running && e.unit.State == plan.StateRunning {
		e.unit.State = statePaused
	}
	for _, r := range runs {
		if !r.phase.Ended() {
			e.live++
		}
	}
	if p, ok := l.pending[def.Name]; ok {
		e.unit.Pending = &p
	}
	if w.word == "" { // after a daemon's start: the state is older than that
		now = lastChange(e.unit.Instances, now)
	}
	if w.word != e.unit.State {
		w.word, w.since = e.unit.State, now
	}
	e.unit.Since = w.since
	l.finality(e)
	return e
}

// lastChange is the latest start or end of an instance, else now.
func lastChange(instances []api.Instance, now time.Time) time.Time {
	var last time.Time
	for _, i := range instances {
		for _, t := range []time.Time{i.StartedAt, i.EndedAt} {
			if t.After(last) {
				last = t
			}
		}
	}
	if last.IsZero() {
		return now
	}
	return last
}

// finality tells whether the unit's first instance has ended for good.
func (l *loop) finality(e *entry) {
	if len(e.unit.Instances) == 0 {
		e.final = e.live == 0
		return
	}
	first := e.unit.Instances[0]
	e.exit = first.Exit
	switch first.State {
	case plan.StateCompleted, plan.StateFailed, plan.StateStopped:
		e.final = true
	}
}

// instance builds one slot: its live run if it has one, else its last.
func (l *loop) instance(w *wanted, name string, runs []*run) (api.Instance, instance) {
	a := l.attempts[name]
	i := api.Instance{Name: name, Restarts: a.Restarts, Attempt: a.Failures, LogPath: l.paths.log(w.rec.Name, name, w.app().Name)}
	v := instance{name: name, starts: l.starting[name], failed: l.failed[name], err: l.failures[name]}
	v.down, v.completed = l.outcome(w, name, a)
	if a.Ended != nil {
		i.Run, i.Revision, i.StartedAt, i.EndedAt, i.Exit = a.Ended.Run, a.Ended.Revision, a.Ended.StartedAt, a.Ended.EndedAt, wireExit(a.Ended)
	}
	if v.err != nil || a.Done {
		i.Error = a.Error
		i.Reason = a.Error
	}
	for _, wait := range w.waits {
		if wait.Instance == name {
			i.NextTry, i.Reason = wait.Until, wait.Reason
		}
	}
	i.Containers = l.containersOf(name, runs)
	r := newest(name, runs)
	if r == nil {
		return i, v
	}
	for _, m := range r.members {
		v.containers = append(v.containers, containerView{name: m.def.Name, run: r.Run, up: m.phase == plan.ContainerUp})
	}
	for n := range i.Containers { // a container that is not as it should be
		if c := &i.Containers[n]; r.several() && i.Reason == "" && r.phase != plan.Stopping {
			i.Reason = c.Reason
		}
	}
	i.Run, i.Revision, i.StartedAt, i.EndedAt = r.Run, r.Revision.Number, r.startedAt, time.Time{}
	if m := r.leading(); m.phase == plan.ContainerUp {
		i.Pid, i.Cgroup = m.status.Pid, m.status.Cgroup
	}
	i.Exit = nil
	i.UserNS = r.userNSWords()
	if r.lease != nil {
		i.Address = r.lease.Address.Addr().String()
	}
	v.current = w.desired().Holds(r.Revision.Number) && r.Restart >= w.rec.Restart
	if r.phase == plan.Up {
		v.run, v.since = r.Run, r.startedAt
		v.limits, v.limitsErr = unit.LimitsOf(r.Revision.Definition), r.adjusting.err
	}
	return i, v
}

// containersOf are the containers of the instance's live run, else of its last one.
func (l *loop) containersOf(instance string, runs []*run) []api.Container {
	r := newest(instance, runs)
	for _, ended := range runs {
		if ended.Instance == instance && ended.phase.Ended() && (r == nil || r.phase.Ended() && ended.At.After(r.At)) {
			r = ended
		}
	}
	if r == nil {
		return nil
	}
	list := make([]api.Container, 0, len(r.members))
	for _, m := range r.members {
		list = append(list, l.containerOf(r, m))
	}
	return list
}

func (l *loop) containerOf(r *run, m *member) api.Container {
	def := &r.Revision.Definition
	c := api.Container{Name: m.def.Name, Image: m.def.Image, Digest: r.Revision.ImageDigest(m.def.Name), Essential: def.Essential(m.def),
		State: plan.ContainerState(*def, m.observed()), StartedAt: m.startedAt, EndedAt: m.endedAt, Restarts: m.restarts,
		Attempt: m.attempts.Failures, Exit: apiExit(m.exit, m.endedAt), LogPath: l.paths.log(r.Unit.Name, r.Instance, m.def.Name)}
	if m.phase == plan.ContainerUp {
		c.Pid, c.Cgroup = m.status.Pid, m.status.Cgroup
		if m.status.Paused {
			c.State = statePaused
		}
		if r.phase == plan.Stopping {
			c.State = string(plan.Stopping)
		}
		if m.stuck != "" {
			c.State, c.Reason = stateStuck, m.stuck
		}
	}
	switch {
	case c.State == plan.StateFailed:
		c.Reason = m.attempts.Error
	case m.phase == plan.ContainerFailed:
		c.Reason = m.failure
	}
	for _, w := range r.waits {
		if w.Container == m.def.Name && !r.phase.Ended() {
			c.NextTry, c.Reason = w.Until, w.Reason
		}
	}
	return c
}

// newest is the live run of an instance; the younger of two.
func newest(instance string, runs []*run) *run {
	var found *run
	for _, r := range runs {
		if r.Instance == instance && !r.phase.Ended() && (found == nil || r.At.After(found.At)) {
			found = r
		}
	}
	return found
}

// portsOf are the unit's ports, random ones filled in from a run that has them. Between two
// runs it is the one that was drawn before: the next run gets it again.
func portsOf(def *unit.Unit, drawn map[string]uint16, runs []*run) []unit.Port {
	ports := slices.Clone(def.Ports)
	for i, p := range ports {
		if p.HostPort == 0 {
			ports[i].HostPort = int(drawn[portKey(uint16(p.Port), p.Protocol)])
		}
	}
	for _, r := range runs {
		if r.lease == nil || r.phase.Ended() {
			continue
		}
		for _, got := range r.lease.Ports {
			for i, p := range def.Ports {
				if p.HostPort == 0 && p.Port == int(got.Port) && p.Protocol == got.Protocol {
					ports[i].HostPort = int(got.HostPort)
				}
			}
		}
	}
	return ports
}

// ring remembers how the last units that were removed had ended, for waiters
// that come late.
type ring struct {
	mu   sync.Mutex
	next int
	list [256]gone
}

type gone struct {
	unit   string
	serial uint64
	exit   *api.Exit
}

// put remembers the first instance of a unit.
func (r *ring) put(w *wanted, instance string, a state.Attempts) {
	if instance != plan.Instance(w.rec.Name, 1) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[r.next%len(r.list)] = gone{w.rec.Name, w.serial, wireExit(a.Ended)}
	r.next++
}

// get finds a removed unit: by its serial, or the latest of its name if that is 0.
func (r *ring) get(unit string, serial uint64) *api.Exit {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.next - 1; n >= 0 && n >= r.next-len(r.list); n-- {
		g := r.list[n%len(r.list)]
		if g.unit == unit && (serial == 0 || g.serial == serial) {
			return g.exit
		}
	}
	return nil
}
