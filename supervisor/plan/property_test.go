package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// host is a model of everything a plan acts on: runs that pull, start, crash
// and stop in any order, and an operator who changes his mind.
type host struct {
	t        *testing.T
	rnd      *rand.Rand
	now      time.Time
	desired  map[string]*Desired
	runs     map[string]*Run
	mem      map[string]Attempts
	inFlight map[string]string
	ids      int
	calm     bool // nothing fails any more
	down     *Shutdown
}

func newHost(t *testing.T, seed uint64) *host {
	return &host{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: t0, desired: map[string]*Desired{},
		runs: map[string]*Run{}, mem: map[string]Attempts{}, inFlight: map[string]string{}}
}

// input gives the world in a random order, which must not matter.
func (h *host) input() Input {
	in := Input{Now: h.now, InFlight: maps.Clone(h.inFlight), Memory: maps.Clone(h.mem), Shutdown: h.down}
	for _, d := range h.desired {
		in.Desired = append(in.Desired, *d)
	}
	for _, r := range h.runs {
		in.Observed = append(in.Observed, *r)
	}
	h.rnd.Shuffle(len(in.Desired), func(i, j int) { in.Desired[i], in.Desired[j] = in.Desired[j], in.Desired[i] })
	h.rnd.Shuffle(len(in.Observed), func(i, j int) { in.Observed[i], in.Observed[j] = in.Observed[j], in.Observed[i] })
	return in
}

func (h *host) sortedRuns() []string { return slices.Sorted(maps.Keys(h.runs)) }

func (h *host) names() []string { return slices.Sorted(maps.Keys(h.desired)) }

// operate is one act of an operator.
func (h *host) operate() {
	name := string(rune('a' + h.rnd.IntN(5)))
	d := h.desired[name]
	if d == nil {
		d = &Desired{Revision: 1, Intent: Running}
		d.Unit = h.unit(name)
		h.desired[name] = d
		return
	}
	switch h.rnd.IntN(9) {
	case 8: // stop --all
		for _, d := range h.desired {
			if d.Intent == Running {
				d.Intent = Stopped
			}
		}
	case 0, 1, 2:
		d.Unit = h.unit(name)
		d.Revision++
		d.Intent = Running
	case 3:
		d.Restart++
	case 4:
		d.Intent = Stopped
	case 5:
		d.Intent = Removed
	default:
		h.start(d)
	}
}

// start is what `ctl start` does.
func (h *host) start(d *Desired) {
	d.Intent = Running
	for n := 1; n <= d.Unit.Replicas; n++ {
		i := Instance(d.Unit.Name, n)
		h.mem[i] = h.mem[i].Reset()
	}
}

func (h *host) unit(name string) unit.Unit {
	u := unit.Unit{Name: name, Replicas: h.rnd.IntN(4), Restart: policy()}
	u.Restart.Jitter = 0.5
	u.Restart.Condition = []unit.Condition{unit.Any, unit.Any, unit.OnFailure, unit.Never}[h.rnd.IntN(4)]
	u.Restart.MaxAttempts = h.rnd.IntN(3) * 5
	for range h.rnd.IntN(3) {
		// Mostly down the alphabet; at times anywhere, so that circles come up.
		dep := rune('a' + h.rnd.IntN(int(name[0]-'a')+1))
		if h.rnd.IntN(5) == 0 {
			dep = rune('a' + h.rnd.IntN(6))
		}
		u.DependsOn = append(u.DependsOn, unit.Dependency{Unit: string(dep), Condition: "started", Required: h.rnd.IntN(4) > 0})
	}
	return u
}

// live lists the live runs of an instance.
func (h *host) live(instance string) (out []*Run) {
	for _, id := range slices.Sorted(maps.Keys(h.runs)) {
		if r := h.runs[id]; r.Instance == instance && r.Phase.Live() {
			out = append(out, r)
		}
	}
	return out
}

func (h *host) anyLive(name string) bool {
	for _, r := range h.runs {
		if r.Unit == name && r.Phase.Live() {
			return true
		}
	}
	return false
}

func (h *host) allUp(name string) bool {
	d := h.desired[name]
	if d == nil || d.Intent != Running {
		return false
	}
	for n := 1; n <= d.Unit.Replicas; n++ {
		if !slices.ContainsFunc(h.live(Instance(name, n)), func(r *Run) bool { return r.Phase == Up }) {
			return false
		}
	}
	return true
}

// reaches tells whether from depends on to, over any number of units.
func (h *host) reaches(from, to string, seen map[string]bool) bool {
	if seen[from] || h.desired[from] == nil {
		return false
	}
	seen[from] = true
	return slices.ContainsFunc(h.desired[from].Unit.DependsOn, func(d unit.Dependency) bool {
		return h.desired[d.Unit] != nil && (d.Unit == to || h.reaches(d.Unit, to, seen))
	})
}

// act plans, checks the plan and puts it in flight.
func (h *host) act() Plan {
	p := Compute(h.input())
	if again := Compute(h.input()); encode(p) != encode(again) {
		h.t.Fatalf("the same input gave two plans:\n%s\n%s", encode(p), encode(again))
	}
	for _, a := range p.Actions {
		h.check(a)
	}
	for _, a := range p.Actions {
		h.begin(a)
	}
	if next := Compute(h.input()); len(next.Actions) > 0 {
		h.t.Fatalf("with the plan under way, more is planned:\n%s\n%s", text(p), text(next))
	}
	for _, w := range p.Waiting {
		if w.Reason == "" || !w.Until.IsZero() && !w.Until.After(h.now) {
			h.t.Fatalf("waits for nothing: %+v", w)
		}
	}
	return p
}

// check holds an action against the safety rules.
func (h *host) check(a Action) {
	d := h.desired[a.Unit]
	fail := func(rule string) {
		h.t.Helper()
		h.t.Fatalf("%s: %+v\nin %s", rule, a, encode(h.input()))
	}
	if a.Reason == "" {
		fail("no reason")
	}
	if h.down != nil {
		h.checkDown(a, fail)
	}
	switch a.Kind {
	case Start:
		n := number(a.Unit, a.Instance)
		switch {
		case len(h.live(a.Instance)) > 0:
			fail("a second live run")
		case slices.ContainsFunc(slices.Collect(maps.Values(h.runs)), func(r *Run) bool {
			return r.Instance == a.Instance && h.inFlight[r.ID] == "stop"
		}):
			fail("started before the old run was cleaned up after")
		case d.Intent != Running:
			fail("started without being wanted")
		case n < 1 || n > d.Unit.Replicas:
			fail("above the replica count")
		}
		for _, dep := range d.Unit.DependsOn {
			if dep.Required && !h.allUp(dep.Unit) {
				fail("started before " + dep.Unit)
			}
		}
	case Stop:
		r := h.runs[a.Run]
		if !r.Phase.Live() || r.Phase == Stopping {
			fail("stopped what is not there to stop")
		}
		if h.down != nil {
			return
		}
		if d.Intent != Running {
			h.checkOrder(a, fail)
		} else if r.Phase == Up && number(a.Unit, a.Instance) <= d.Unit.Replicas {
			h.checkTurn(a, fail)
		}
	case Remove:
		if !h.runs[a.Run].Phase.Ended() {
			fail("removed a live run")
		}
	case Forget:
		for _, r := range h.runs {
			if r.Unit == a.Unit {
				fail("forgotten with a run left")
			}
		}
	}
}

// checkOrder: what depends on a unit and stops too is gone first.
func (h *host) checkOrder(a Action, fail func(string)) {
	for _, name := range h.names() {
		uses := slices.ContainsFunc(h.desired[name].Unit.DependsOn, func(d unit.Dependency) bool { return d.Unit == a.Unit })
		if uses && h.desired[name].Intent != Running && h.anyLive(name) && !h.reaches(a.Unit, name, map[string]bool{}) {
			fail("stopped before " + name)
		}
	}
}

// checkDown: a host that goes down begins nothing, and gives every stop a time that leaves
// the levels after it theirs.
func (h *host) checkDown(a Action, fail func(string)) {
	if a.Kind != Stop && a.Kind != Hurry {
		fail("begun by a host that goes down")
	}
	if a.Until.Before(h.now) || a.Until.After(later(h.now, h.down.Until)) {
		fail("out of time")
	}
	if left := h.down.Until.Sub(h.now); left > 0 && a.Until.Sub(h.now) < min(left, 100*time.Millisecond)/20 {
		fail("starved")
	}
	for _, name := range h.names() {
		uses := slices.ContainsFunc(h.desired[name].Unit.DependsOn, func(d unit.Dependency) bool { return d.Unit == a.Unit })
		if !uses || h.reaches(a.Unit, name, map[string]bool{}) || !h.now.Before(h.down.Until) {
			continue
		}
		for _, r := range h.runs {
			if r.Unit == name && r.Phase.Live() && (r.Until.IsZero() || r.Until.Add(killTime).After(h.now)) {
				fail("stopped before " + name)
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// checkTurn: a replica is replaced only when every other one is as wanted or
// untouched.
func (h *host) checkTurn(a Action, fail func(string)) {
	d := h.desired[a.Unit]
	for n := 1; n <= d.Unit.Replicas; n++ {
		i := Instance(a.Unit, n)
		if i == a.Instance {
			continue
		}
		live := h.live(i)
		mem := h.mem[i].of(*d)
		if len(live) == 0 && !(mem.Done && mem.Error == "") || len(live) > 0 && live[0].Phase != Up {
			fail("replaced while " + i + " is not running")
		}
	}
}

// begin puts an action under way.
func (h *host) begin(a Action) {
	switch a.Kind {
	case Start:
		h.ids++
		r := &Run{ID: fmt.Sprintf("%s-%04d", a.Instance, h.ids), Unit: a.Unit, Instance: a.Instance, Revision: a.Revision,
			Restart: h.desired[a.Unit].Restart, Phase: Pulling, StartedAt: h.now}
		h.runs[r.ID] = r
		h.inFlight[a.Instance] = []string{"start", Abortable}[h.rnd.IntN(2)]
	case Stop:
		h.move(h.runs[a.Run], Stopping)
		h.inFlight[a.Run] = "stop"
		h.runs[a.Run].Until = a.Until
	case Hurry:
		h.runs[a.Run].Until = a.Until
	case Remove:
		h.inFlight[a.Run] = "remove"
	case Forget:
		h.inFlight[a.Unit] = "forget"
	}
}

func (h *host) move(r *Run, to Phase) {
	phase, err := r.Phase.To(to)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Phase = phase
}

// progress lets each action and run go on, or not.
func (h *host) progress() {
	lazy := func() bool { return !h.calm && h.rnd.IntN(2) == 0 }
	for _, key := range slices.Sorted(maps.Keys(h.inFlight)) {
		switch action := h.inFlight[key]; {
		case lazy():
		case action == "stop" && h.runs[key].Phase.Ended():
			delete(h.inFlight, key)
		case action == "remove":
			delete(h.inFlight, key)
			delete(h.runs, key)
		case action == "forget":
			delete(h.inFlight, key)
			if h.desired[key] != nil && h.desired[key].Intent == Removed {
				delete(h.desired, key)
				maps.DeleteFunc(h.mem, func(i string, _ Attempts) bool { return number(key, i) > 0 })
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.runs)) {
		r := h.runs[id]
		breaks := !h.calm && h.rnd.IntN(8) == 0
		switch {
		case lazy():
		case r.Phase == Pulling && breaks, r.Phase == Starting && breaks:
			r.Error = "broken"
			h.finish(r, Failed)
		case r.Phase == Pulling:
			h.move(r, Starting)
		case r.Phase == Starting:
			h.move(r, Up)
			r.StartedAt = h.now
			delete(h.inFlight, r.Instance)
		case r.Phase == Up && breaks:
			r.Code = h.rnd.IntN(2)
			r.Clean = r.Code == 0
			h.finish(r, Exited)
		case r.Phase == Stopping:
			r.Stopped = true
			h.finish(r, Exited)
		}
	}
}

func (h *host) finish(r *Run, as Phase) {
	h.move(r, as)
	r.EndedAt = h.now
	delete(h.inFlight, r.Instance)
	if h.rnd.IntN(2) == 0 { // else it is still cleaned up after
		delete(h.inFlight, r.ID)
	}
	if d := h.desired[r.Unit]; d != nil {
		before := h.mem[r.Instance]
		h.mem[r.Instance] = After(d.Unit.Restart, before, *r, h.now)
		limit := time.Duration(float64(d.Unit.Restart.MaxDelay) * (1 + d.Unit.Restart.Jitter))
		if wait := Delay(d.Unit.Restart, h.mem[r.Instance], r.Instance); wait > limit {
			h.t.Fatalf("back-off of %s after %+v", wait, before)
		}
	}
}

// invariants hold at every moment.
func (h *host) invariants() {
	for _, r := range h.runs {
		if live := h.live(r.Instance); len(live) > 1 {
			h.t.Fatalf("%s has %d live runs", r.Instance, len(live))
		}
	}
}

// settle lets everything succeed and time pass until nothing is left to do.
func (h *host) settle() {
	h.calm = true
	for _, d := range h.desired {
		if d.Intent == Running {
			h.start(d)
		}
	}
	for range 300 {
		p := h.act()
		before, busy := encode(h.input().Observed), len(h.inFlight) > 0
		h.progress()
		idle := len(p.Actions) == 0 && !busy && before == encode(h.input().Observed)
		if idle && p.Wake.IsZero() {
			h.converged(p)
			return
		}
		h.now = h.now.Add(time.Second)
		if p.Wake.After(h.now) {
			h.now = p.Wake
		}
	}
	h.t.Fatalf("no rest after 300 rounds: %s", text(Compute(h.input())))
}

// converged checks that what can run runs, in its current revision, and that
// nothing else is left.
func (h *host) converged(p Plan) {
	for _, name := range h.names() {
		d := h.desired[name]
		live := 0
		for _, r := range h.runs {
			if r.Unit == name && r.Phase.Live() {
				live++
			}
		}
		switch {
		case d.Intent == Removed:
			h.t.Fatalf("%s is not forgotten", name)
		case d.Intent == Stopped && live > 0:
			h.t.Fatalf("%s is stopped and has %d live runs", name, live)
		case d.Intent == Running && h.canRun(name):
			for n := 1; n <= d.Unit.Replicas; n++ {
				i := h.live(Instance(name, n))
				if len(i) != 1 || i[0].Phase != Up || i[0].Revision != d.Revision || i[0].Restart != d.Restart {
					h.t.Fatalf("%s.%d is not up in revision %d, plan:\n%s\n%s", name, n, d.Revision, text(p), encode(h.input()))
				}
			}
			if live != d.Unit.Replicas {
				h.t.Fatalf("%s has %d live runs of %d", name, live, d.Unit.Replicas)
			}
		case d.Intent == Running && d.Unit.Replicas > 0:
			if !slices.ContainsFunc(p.Waiting, func(w Waiting) bool { return w.Unit == name }) && live < d.Unit.Replicas {
				h.t.Fatalf("%s does not run and does not say why", name)
			}
		}
	}
}

func (h *host) canRun(name string) bool {
	d := h.desired[name]
	if d == nil || d.Intent != Running || h.reaches(name, name, map[string]bool{}) {
		return false
	}
	return !slices.ContainsFunc(d.Unit.DependsOn, func(dep unit.Dependency) bool {
		return dep.Required && !h.canRun(dep.Unit)
	})
}

func encode(v any) string {
	if in, ok := v.([]Run); ok {
		in = slices.Clone(in)
		newestFirst(in)
		v = in
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestProperties(t *testing.T) {
	rounds := uint64(600)
	if testing.Short() {
		rounds = 200
	}
	for seed := range rounds {
		h := newHost(t, seed)
		for range 80 {
			switch h.rnd.IntN(7) {
			case 0:
				h.operate()
			case 1:
				h.now = h.now.Add(time.Duration(h.rnd.Int64N(int64(30 * time.Second))))
			case 2:
				h.act()
			default:
				h.progress()
			}
			h.invariants()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		h.settle()
	}
}

// Actions done at once, instead of put under way, come to an end as well.
func TestImmediateEffects(t *testing.T) {
	for seed := range uint64(500) {
		h := newHost(t, seed)
		for range 20 {
			h.operate()
		}
		for range 12 {
			p := Compute(h.input())
			if len(p.Actions) == 0 {
				break
			}
			for _, a := range p.Actions {
				h.begin(a)
			}
			clear(h.inFlight)
			for _, a := range p.Actions {
				switch a.Kind {
				case Remove:
					delete(h.runs, a.Run)
				case Forget:
					delete(h.desired, a.Unit)
				}
			}
		}
		if p := Compute(h.input()); len(p.Actions) > 0 {
			t.Fatalf("seed %d: still planned\n%s", seed, text(p))
		}
	}
}

// Any input at all: no panic, the same plan twice, no two actions of a kind for
// the same thing.
func FuzzCompute(f *testing.F) {
	f.Add([]byte("wherry"), uint64(1))
	f.Fuzz(func(t *testing.T, noise []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, uint64(len(noise))))
		in := Input{Now: t0, InFlight: map[string]string{}, Memory: map[string]Attempts{}}
		pick := func() int {
			if len(noise) == 0 {
				return rnd.IntN(256)
			}
			b := noise[0]
			noise = noise[1:]
			return int(b)
		}
		word := func() string {
			return []string{"", "a", "b", "a.1", "a.2", "b.1", "a.1-x", "b.01", ".", "-"}[pick()%10]
		}
		moment := func() time.Time {
			return []time.Time{{}, t0, t0.Add(time.Hour), t0.Add(-time.Hour), time.Unix(1<<60, 0)}[pick()%5]
		}
		for range pick() % 5 {
			d := Desired{Revision: pick() % 3, Restart: pick() % 3, Intent: []Intent{Running, Running, Stopped, Removed, ""}[pick()%5]}
			d.Unit.Name, d.Unit.Replicas = word(), pick()%4-1
			d.Unit.Restart = unit.RestartPolicy{Delay: unit.Duration(pick()-9) << 40, Multiplier: float64(pick() - 3), MaxAttempts: pick() % 3}
			for range pick() % 3 {
				d.Unit.DependsOn = append(d.Unit.DependsOn, unit.Dependency{Unit: word(), Required: pick()%2 == 0})
			}
			in.Desired = append(in.Desired, d)
		}
		for range pick() % 6 {
			r := Run{ID: word() + fmt.Sprint(len(in.Observed)), Unit: word(), Instance: word(), Revision: pick() % 3, Restart: pick() % 3, StartedAt: moment(), EndedAt: moment(), Code: pick()}
			r.Phase = append(Phases(), "", "odd")[pick()%8]
			in.Observed = append(in.Observed, r)
			in.Memory[word()] = After(unit.RestartPolicy{MaxAttempts: 1}, in.Memory[word()], r, moment())
			in.InFlight[word()] = word()
		}
		if pick()%4 == 0 {
			in.Shutdown = &Shutdown{Until: moment()}
		}
		p := Compute(in)
		if encode(p) != encode(Compute(in)) {
			t.Error("the same input gave two plans")
		}
		seen := map[Action]bool{}
		for _, a := range p.Actions {
			a.Reason = ""
			if seen[a] {
				t.Errorf("twice: %+v", a)
			}
			seen[a] = true
		}
	})
}
