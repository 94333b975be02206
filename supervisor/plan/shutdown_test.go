package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// graced is a unit of one container with a grace period.
func graced(d Desired, grace ...time.Duration) Desired {
	for i, g := range grace {
		c := unit.Container{Name: fmt.Sprint("c", i), StopGracePeriod: unit.Duration(g)}
		if i > 0 {
			c.DependsOn = []unit.ContainerDependency{{Container: fmt.Sprint("c", i-1)}}
		}
		d.Unit.Containers = append(d.Unit.Containers, c)
	}
	return d
}

// shutdownText is a plan's actions with their times.
func shutdownText(p Plan) string {
	var b strings.Builder
	for _, a := range p.Actions {
		fmt.Fprintf(&b, "%s %s +%s\n", a.Kind, a.Run, a.Until.Sub(t0))
	}
	for _, w := range p.Waiting {
		fmt.Fprintf(&b, "wait %s: %s\n", w.Instance, w.Reason)
	}
	if !p.Wake.IsZero() {
		fmt.Fprintf(&b, "wake +%s\n", p.Wake.Sub(t0))
	}
	return b.String()
}

func TestShutdown(t *testing.T) {
	const s = time.Second
	until := func(r Run, d time.Duration) Run {
		r.Until = t0.Add(d)
		return r
	}
	for _, c := range []struct {
		what     string
		desired  []Desired
		runs     []Run
		inFlight map[string]string
		left     time.Duration
		want     string
	}{
		{"nothing runs: nothing starts", []Desired{want("a", 2)}, nil, nil, time.Minute, ""},
		{"old revisions are not replaced, ended runs not removed", []Desired{want("a", 2)}, runs("a.1-x running 1", "a.2-x exited 1"), nil, time.Minute,
			"stop a.1-x +1m0s\n"},
		{"the users of a unit first", []Desired{graced(want("a", 1), 10*s), graced(want("b", 1, "a"), 10*s), graced(want("c", 1, "b"), 10*s)},
			runs("a.1-x running 2", "b.1-x running 2", "c.1-x running 2"), nil, time.Minute,
			"stop c.1-x +40s\nwait a.1: stops after unit b, which depends on it\nwait b.1: stops after unit c, which depends on it\nwake +1m0s\n"},
		{"a level that wants too much leaves the others theirs", []Desired{graced(want("a", 1), 10*s), graced(want("b", 1, "a"), time.Hour)},
			runs("a.1-x running 2", "b.1-x running 2"), nil, time.Minute,
			"stop b.1-x +50s\nwait a.1: stops after unit b, which depends on it\nwake +1m0s\n"},
		{"levels that all want too much share", []Desired{graced(want("a", 1), time.Hour), graced(want("b", 1, "a"), time.Hour)},
			runs("a.1-x running 2", "b.1-x running 2"), nil, time.Minute,
			"stop b.1-x +30s\nwait a.1: stops after unit b, which depends on it\nwake +1m0s\n"},
		{"the containers of a run are levels too", []Desired{graced(want("a", 1), time.Hour, time.Hour), graced(want("b", 1, "a"), time.Hour, time.Hour)},
			runs("a.1-x running 2", "b.1-x running 2"), nil, time.Minute,
			"stop b.1-x +30s\nwait a.1: stops after unit b, which depends on it\nwake +1m0s\n"},
		{"what does not run takes nothing", []Desired{graced(want("a", 1), time.Hour), graced(want("b", 1, "a"), time.Hour)},
			runs("b.1-x running 2"), nil, time.Minute, "stop b.1-x +1m0s\n"},
		{"a unit that is stopped anyway", []Desired{want("a", 1).with(stopped)}, runs("a.1-x running 2"), nil, time.Minute, "stop a.1-x +1m0s\n"},
		{"one that is on its way out gets a time, once", []Desired{want("a", 2)}, []Run{run("a.1-x stopping 2"), until(run("a.2-x stopping 2"), 20*s)}, nil, time.Minute,
			"hurry a.1-x +1m0s\nwake +21s\n"},
		{"a start under way is waited for", []Desired{want("a", 1)}, runs("a.1-x starting 2"), map[string]string{"a.1": "start"}, time.Minute, ""},
		{"a pull is not", []Desired{want("a", 1)}, runs("a.1-x pulling 2"), map[string]string{"a.1": Abortable}, time.Minute, "stop a.1-x +1m0s\n"},
		{"one that nothing ends holds up nobody", []Desired{want("a", 1), want("b", 1, "a")}, []Run{run("a.1-x running 2"), until(run("b.1-x stopping 2"), -killTime)}, nil,
			time.Minute, "stop a.1-x +1m0s\n"},
		{"but a moment, until its kill is done", []Desired{want("a", 1), want("b", 1, "a")}, []Run{run("a.1-x running 2"), until(run("b.1-x stopping 2"), 0)}, nil,
			time.Minute, "wait a.1: stops after unit b, which depends on it\nwake +1s\n"},
		{"no time is left: all at once", []Desired{want("a", 1), want("b", 1, "a")}, runs("a.1-x running 2", "b.1-x running 2"), nil, 0,
			"stop a.1-x +0s\nstop b.1-x +0s\n"},
		{"a circle is stopped too", []Desired{want("a", 1, "b"), want("b", 1, "a")}, runs("a.1-x running 2", "b.1-x running 2"), nil, time.Minute,
			"stop a.1-x +1m0s\nstop b.1-x +1m0s\n"},
		{"and what nobody declares", nil, runs("a.1-x running 2"), nil, time.Minute, "stop a.1-x +1m0s\n"},
	} {
		p := Compute(Input{Desired: c.desired, Observed: c.runs, InFlight: c.inFlight, Now: t0, Shutdown: &Shutdown{Until: t0.Add(c.left)}})
		if got := shutdownText(p); got != c.want {
			t.Errorf("%s:\n%swant:\n%s", c.what, got, c.want)
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		left   time.Duration
		levels []time.Duration
		want   []time.Duration // of the first level, of the first two, ...
	}{
		{60, []time.Duration{10}, []time.Duration{60}},
		{60, []time.Duration{10, 10, 10}, []time.Duration{40, 50, 60}},
		{60, []time.Duration{90, 90, 90}, []time.Duration{20, 40, 60}},
		{60, []time.Duration{90, 10, 90}, []time.Duration{25, 35, 60}},
		{60, []time.Duration{10, 90}, []time.Duration{10, 60}},
		{60, []time.Duration{50, 15}, []time.Duration{45, 60}},
	} {
		for i := range c.levels {
			scaled := make([]time.Duration, len(c.levels))
			for j, l := range c.levels {
				scaled[j] = l * time.Second
			}
			if got := Share(c.left*time.Second, scaled, i+1); got != c.want[i]*time.Second {
				t.Errorf("%d of %v: the first %d get %s, want %ds", c.left, c.levels, i+1, got, c.want[i])
			}
		}
	}
	if got := Share(-time.Second, []time.Duration{time.Second}, 1); got > 0 {
		t.Errorf("of nothing: %s", got)
	}
}

func TestStopLevels(t *testing.T) {
	u := graced(want("a", 1), 1, 2, 3)
	u.Unit.Containers = append(u.Unit.Containers, unit.Container{Name: "x", StopGracePeriod: 9})
	if got := stopLevels(&u.Unit); !slices.Equal(got, []time.Duration{9, 2, 1}) {
		t.Errorf("got %v", got)
	}
}

// TestShutdownProperties: whatever state a host is in when it goes down, everything that can be
// ended is over in time, in order, and nothing begins.
func TestShutdownProperties(t *testing.T) {
	rounds := uint64(400)
	if testing.Short() {
		rounds = 100
	}
	for seed := range rounds {
		h := newHost(t, seed)
		for range 60 {
			switch h.rnd.IntN(5) {
			case 0:
				h.operate()
			case 1:
				h.act()
			default:
				h.progress()
			}
		}
		for _, d := range h.desired {
			for i := range h.rnd.IntN(3) {
				d.Unit.Containers = append(d.Unit.Containers, unit.Container{Name: fmt.Sprint(i), StopGracePeriod: unit.Duration(h.rnd.IntN(90)) * unit.Duration(time.Second)})
			}
		}
		h.goDown(time.Duration(h.rnd.IntN(120)) * time.Second)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// goDown lets the host go down; a third of the runs heeds only the kill, and some nothing.
func (h *host) goDown(budget time.Duration) {
	h.down = &Shutdown{Until: h.now.Add(budget)}
	kind := map[string]int{}
	for id := range h.runs {
		kind[id] = h.rnd.IntN(10)
	}
	for range 1000 {
		p := h.act()
		for _, id := range h.sortedRuns() {
			r := h.runs[id]
			switch {
			case r.Phase == Pulling || r.Phase == Starting:
				h.finish(r, Failed) // aborted
				delete(h.inFlight, r.ID)
				delete(h.inFlight, r.Instance)
			case r.Phase != Stopping || kind[id] == 0: // stuck
			case kind[id] < 4 && !r.Until.IsZero() && h.now.Before(r.Until):
			default:
				r.Stopped = true
				h.finish(r, Exited)
				delete(h.inFlight, r.ID)
			}
		}
		if !slices.ContainsFunc(h.sortedRuns(), func(id string) bool { return h.runs[id].Phase.Live() && kind[id] != 0 }) {
			return
		}
		if h.now.After(h.down.Until.Add(killTime)) {
			h.t.Fatalf("not over in time:\n%s%s", shutdownText(p), encode(h.input()))
		}
		h.now = h.now.Add(500 * time.Millisecond)
	}
}
