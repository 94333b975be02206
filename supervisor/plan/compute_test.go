package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func policy() unit.RestartPolicy {
	return unit.RestartPolicy{Condition: unit.Any,
		Delay: unit.Duration(100 * time.Millisecond), Multiplier: 2, MaxDelay: unit.Duration(time.Minute),
		Interval: unit.Duration(10 * time.Minute), ResetAfter: unit.Duration(time.Minute)}
}

// want is a unit at revision 2 that is to run and needs the units of deps.
func want(name string, replicas int, deps ...string) Desired {
	d := Desired{Unit: unit.Unit{Kind: unit.Service, Name: name, Replicas: replicas, Restart: policy()}, Revision: 2, Intent: Running}
	for _, dep := range deps {
		d.Unit.DependsOn = append(d.Unit.DependsOn, unit.Dependency{Unit: dep, Condition: "started", Required: true})
	}
	return d
}

func (d Desired) with(change func(*Desired)) Desired {
	change(&d)
	return d
}

func stopped(d *Desired)  { d.Intent = Stopped }
func removed(d *Desired)  { d.Intent = Removed }
func optional(d *Desired) { d.Unit.DependsOn[0].Required = false }

// run reads "web.1-a running 2": id, phase, revision.
func run(text string) Run {
	var r Run
	if _, err := fmt.Sscan(text, &r.ID, &r.Phase, &r.Revision); err != nil {
		panic(text)
	}
	r.Instance = r.ID[:strings.LastIndexByte(r.ID, '-')]
	r.Unit = r.Instance[:strings.LastIndexByte(r.Instance, '.')]
	r.StartedAt = t0.Add(-time.Hour)
	if r.Phase.Ended() {
		r.Code = 1
		r.EndedAt = t0.Add(-time.Minute - time.Duration(r.ID[len(r.ID)-1]))
	}
	return r
}

func runs(texts ...string) []Run {
	out := make([]Run, len(texts))
	for i, text := range texts {
		out[i] = run(text)
	}
	return out
}

// text is a plan as lines.
func text(p Plan) string {
	var b strings.Builder
	for _, a := range p.Actions {
		on := a.Run
		if on == "" {
			on = a.Instance
		}
		if on == "" {
			on = a.Unit
		}
		fmt.Fprintf(&b, "%s %s: %s\n", a.Kind, on, a.Reason)
	}
	for _, w := range p.Waiting {
		until := ""
		if !w.Until.IsZero() {
			until = " until +" + w.Until.Sub(t0).String()
		}
		fmt.Fprintf(&b, "wait %s%s: %s\n", w.Instance, until, w.Reason)
	}
	if !p.Wake.IsZero() {
		fmt.Fprintf(&b, "wake +%s\n", p.Wake.Sub(t0))
	}
	return b.String()
}

func TestCompute(t *testing.T) {
	failing := Attempts{Failures: 3, Last: t0.Add(-100 * time.Millisecond), Revision: 2, Run: "web.1-a"}
	for _, c := range []struct {
		name string
		in   Input
		want string
	}{
		{"first start", Input{Desired: []Desired{want("web", 2)}},
			"start web.1: web.1 is not running\nstart web.2: web.2 is not running\n"},
		{"all well", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a running 2")}, ""},
		{"pulling is not started twice", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a pulling 2")}, ""},
		{"in flight is not started twice", Input{Desired: []Desired{want("web", 1)}, InFlight: map[string]string{"web.1": "start"}}, ""},
		{"crash", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a exited 2"),
			Memory: map[string]Attempts{"web.1": {Failures: 1, Last: t0.Add(-time.Second), Revision: 2}}},
			"remove web.1-a: a newer run took its place\nstart web.1: exited with code 1: attempt 1\n"},
		{"back-off", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a exited 2", "web.1-b exited 2"),
			Memory: map[string]Attempts{"web.1": failing}},
			"remove web.1-b: a newer run took its place\nwait web.1 until +300ms: exited with code 1; next try 400ms later, attempt 3\nwake +300ms\n"},
		{"attempts of an older revision do not hold back", Input{Desired: []Desired{want("web", 1).with(func(d *Desired) { d.Revision = 3 })},
			Observed: runs("web.1-a exited 2"), Memory: map[string]Attempts{"web.1": failing}},
			"remove web.1-a: a newer run took its place\nstart web.1: revision 3 replaces 2\n"},
		{"attempts from before a restart do not hold back", Input{Desired: []Desired{want("web", 1).with(func(d *Desired) { d.Restart = 1 })},
			Observed: runs("web.1-a exited 2"), Memory: map[string]Attempts{"web.1": {Failures: 9, Done: true, Last: t0, Revision: 2}}},
			"remove web.1-a: a newer run took its place\nstart web.1: a restart was asked for\n"},
		{"done", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a exited 2"),
			Memory: map[string]Attempts{"web.1": {Done: true, Revision: 2}}}, ""},
		{"an end from before the clock was set back", Input{Desired: []Desired{want("web", 1)},
			Memory: map[string]Attempts{"web.1": {Failures: 20, Last: t0.Add(48 * time.Hour), Revision: 2}}},
			"start web.1: web.1 is not running\n"},

		{"new revision", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a running 1")},
			"stop web.1-a: revision 2 replaces 1\n"},
		{"a new revision that asks the same of a run", Input{Desired: []Desired{want("web", 2).with(func(d *Desired) { d.Revision, d.Same = 4, 2 })},
			Observed: runs("web.1-a running 2")}, "start web.2: web.2 is not running\n"},
		{"but not of an older one", Input{Desired: []Desired{want("web", 1).with(func(d *Desired) { d.Revision, d.Same = 4, 2 })},
			Observed: runs("web.1-a running 1")}, "stop web.1-a: revision 4 replaces 1\n"},
		{"what ended under an earlier one is tried at once", Input{Desired: []Desired{want("web", 1).with(func(d *Desired) { d.Revision, d.Same = 4, 2 })},
			Memory: map[string]Attempts{"web.1": {Failures: 9, Done: true, Last: t0, Revision: 2}}},
			"start web.1: web.1 is not running\n"},
		{"restart", Input{Desired: []Desired{want("web", 1).with(func(d *Desired) { d.Restart = 4 })}, Observed: runs("web.1-a running 2")},
			"stop web.1-a: a restart was asked for\n"},
		{"a higher restart number disturbs nothing", Input{Desired: []Desired{want("web", 1)},
			Observed: []Run{func() Run { r := run("web.1-a running 2"); r.Restart = 4; return r }()}}, ""},
		{"one replica after the other", Input{Desired: []Desired{want("web", 3)}, Observed: runs("web.1-a running 1", "web.2-a running 1", "web.3-a running 1")},
			"stop web.1-a: revision 2 replaces 1\nwait web.2: revision 2 replaces 1, after web.1\nwait web.3: revision 2 replaces 1, after web.1\n"},
		{"the next when the one before runs", Input{Desired: []Desired{want("web", 3)}, Observed: runs("web.1-b running 2", "web.2-a running 1", "web.3-a running 1")},
			"stop web.2-a: revision 2 replaces 1\nwait web.3: revision 2 replaces 1, after web.2\n"},
		{"not before", Input{Desired: []Desired{want("web", 2)}, Observed: runs("web.1-b starting 2", "web.2-a running 1")},
			"wait web.2: revision 2 replaces 1, after web.1\n"},
		{"a bad revision takes one replica only", Input{Desired: []Desired{want("web", 2)}, Observed: runs("web.1-a exited 2", "web.2-a running 1"),
			Memory: map[string]Attempts{"web.1": {Done: true, Error: "gave up", Revision: 2}}},
			"wait web.2: revision 2 replaces 1, after web.1\n"},
		{"an old run that does not run yet makes way at once", Input{Desired: []Desired{want("web", 2)}, Observed: runs("web.1-a running 1", "web.2-a pulling 1")},
			"stop web.2-a: revision 2 replaces 1\nwait web.1: revision 2 replaces 1, after web.2\n"},
		{"no replacement while the new revision cannot start", Input{Desired: []Desired{want("web", 1, "db")}, Observed: runs("web.1-a running 1")},
			"wait web.1: revision 2 replaces 1, but unit db does not exist\n"},
		{"stop in flight", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a running 1"), InFlight: map[string]string{"web.1-a": "stop"}}, ""},
		{"stopping", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a stopping 1")}, ""},
		{"ended but still cleaned up after", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a exited 1"), InFlight: map[string]string{"web.1-a": "stop"}}, ""},
		{"two live runs of an instance", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a running 2", "web.1-b running 1")},
			"stop web.1-b: run web.1-a took its place\n"},

		{"above the count", Input{Desired: []Desired{want("web", 1)}, Observed: runs("web.1-a running 2", "web.2-a running 2", "web.10-a running 2", "web.9-a exited 2")},
			"stop web.10-a: web.10 is above the replica count 1\nremove web.9-a: web.9 is above the replica count 1\nstop web.2-a: web.2 is above the replica count 1\n"},
		{"no replicas", Input{Desired: []Desired{want("web", -3)}, Observed: runs("web.1-a running 2")},
			"stop web.1-a: web.1 is above the replica count 0\n"},

		{"dependency does not exist", Input{Desired: []Desired{want("web", 1, "db")}}, "wait web.1: unit db does not exist\n"},
		{"dependency is not up", Input{Desired: []Desired{want("web", 1, "db"), want("db", 2)}, Observed: runs("db.1-a running 2", "db.2-a starting 2")},
			"wait web.1: waits for unit db: db.2 is not running\n"},
		{"dependency is up", Input{Desired: []Desired{want("web", 1, "db"), want("db", 2)}, Observed: runs("db.1-a running 2", "db.2-a running 1")},
			"stop db.2-a: revision 2 replaces 1\nstart web.1: web.1 is not running\n"},
		{"dependency is stopped", Input{Desired: []Desired{want("web", 1, "db"), want("db", 1).with(stopped)}}, "wait web.1: unit db is stopped\n"},
		{"dependency has ended for good", Input{Desired: []Desired{want("web", 1, "db"), want("db", 1)}, Memory: map[string]Attempts{"db.1": {Done: true, Revision: 2}}},
			"wait web.1: waits for unit db: db.1 has ended for good\n"},
		{"optional dependency is missing", Input{Desired: []Desired{want("web", 1, "db").with(optional)}}, "start web.1: web.1 is not running\n"},
		{"optional dependency comes", Input{Desired: []Desired{want("web", 1, "db").with(optional), want("db", 1)}},
			"start db.1: db.1 is not running\nwait web.1: waits for unit db: db.1 is not running\n"},
		{"optional dependency will not come", Input{Desired: []Desired{want("web", 1, "db").with(optional), want("db", 1)}, Memory: map[string]Attempts{"db.1": {Done: true, Revision: 2}}},
			"start web.1: web.1 is not running\n"},
		{"circle", Input{Desired: []Desired{want("a", 1, "b"), want("b", 1, "c"), want("c", 1, "a"), want("d", 1, "a")}},
			"wait a.1: depends_on goes in a circle: a, b, c\nwait b.1: depends_on goes in a circle: a, b, c\nwait c.1: depends_on goes in a circle: a, b, c\nwait d.1: waits for unit a: a.1 is not running\n"},
		{"on itself", Input{Desired: []Desired{want("a", 1, "a")}}, "wait a.1: depends on itself\n"},

		{"stop", Input{Desired: []Desired{want("web", 2).with(stopped)}, Observed: runs("web.1-a running 2", "web.2-a running 1", "web.2-b exited 1")},
			"stop web.2-a: the unit is stopped\nstop web.1-a: the unit is stopped\n"},
		{"no second stop", Input{Desired: []Desired{want("web", 1).with(stopped)}, Observed: runs("web.1-a stopping 2", "web.2-a stopping 2")}, ""},
		{"stop in reverse order", Input{Desired: []Desired{want("web", 1, "db").with(stopped), want("db", 1).with(stopped)}, Observed: runs("web.1-a running 2", "db.1-a running 2")},
			"stop web.1-a: the unit is stopped\nwait db.1: stops after unit web, which depends on it\n"},
		{"the base stops when its users are gone", Input{Desired: []Desired{want("web", 1, "db").with(stopped), want("db", 1).with(stopped)}, Observed: runs("web.1-a exited 2", "db.1-a running 2")},
			"stop db.1-a: the unit is stopped\n"},
		{"a running user does not hold back", Input{Desired: []Desired{want("web", 1, "db"), want("db", 1).with(stopped)}, Observed: runs("web.1-a running 2", "db.1-a running 2")},
			"stop db.1-a: the unit is stopped\n"},
		{"a circle stops at once", Input{Desired: []Desired{want("a", 1, "b").with(stopped), want("b", 1, "a").with(stopped)}, Observed: runs("a.1-a running 2", "b.1-a running 2")},
			"stop a.1-a: the unit is stopped\nstop b.1-a: the unit is stopped\n"},
		{"a pull is aborted", Input{Desired: []Desired{want("web", 1).with(stopped)}, Observed: runs("web.1-a pulling 2"), InFlight: map[string]string{"web.1": Abortable}},
			"stop web.1-a: the unit is stopped\n"},
		{"a start is not", Input{Desired: []Desired{want("web", 1).with(stopped)}, Observed: runs("web.1-a starting 2"), InFlight: map[string]string{"web.1": "start"}}, ""},
		{"remove", Input{Desired: []Desired{want("web", 1).with(removed)}, Observed: runs("web.1-a running 2", "web.1-b exited 2")},
			"stop web.1-a: the unit is removed\nremove web.1-b: the unit is removed\n"},
		{"forget", Input{Desired: []Desired{want("web", 1).with(removed)}}, "forget web: the unit is removed and no run of it is left\n"},
		{"not while a removal is under way", Input{Desired: []Desired{want("web", 1).with(removed)}, InFlight: map[string]string{"web.1-a": "remove"}}, ""},
		{"not while a start is under way", Input{Desired: []Desired{want("web", 1).with(removed)}, InFlight: map[string]string{"web.7": "start"}}, ""},
		{"a unit of the same beginning does not matter", Input{Desired: []Desired{want("web", 1).with(removed)}, InFlight: map[string]string{"web-2.1-a": "start", "web.x.1": "start"}},
			"forget web: the unit is removed and no run of it is left\n"},
		{"runs of no unit", Input{Observed: runs("web.1-a running 2", "web.1-b exited 2")},
			"wait web.1: run web.1-a is of no known unit: it is left alone\n"},
		{"an unknown intent", Input{Desired: []Desired{want("web", 1).with(func(d *Desired) { d.Intent = "held" })}, Observed: runs("web.1-a running 1")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Now = t0
			for i := range c.in.Desired {
				c.in.Desired[i].Unit.Restart.Jitter = 0
			}
			if got := text(Compute(c.in)); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

// A reason holds no time that runs: it would be a new event at every tick.
func TestReasonStaysWhileWaiting(t *testing.T) {
	in := Input{Desired: []Desired{want("web", 1)}, Memory: map[string]Attempts{"web.1": {Failures: 8, Last: t0, Revision: 2}}, Now: t0}
	first := Compute(in)
	in.Now = t0.Add(5 * time.Second)
	later := Compute(in)
	if text(first) != text(later) || len(first.Waiting) != 1 {
		t.Errorf("got\n%sand 5 s later\n%s", text(first), text(later))
	}
}
