package plan

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func limited(name string, memory int64) unit.Unit {
	return unit.Unit{Name: name, Replicas: 1, Restart: policy(), Containers: []unit.Container{{Name: "app", Limits: cgroup.Limits{Memory: memory}}}}
}

func TestUpdate(t *testing.T) {
	now, then := limited("web", 64<<20), limited("web", 32<<20)
	run := Run{ID: "web.1-aaaa", Unit: "web", Instance: "web.1", Revision: 1, Phase: Up, StartedAt: t0, Limits: unit.LimitsOf(then)}
	for _, c := range []struct {
		what     string
		change   func(*Run, *Input)
		kinds    []Kind
		waitings int
	}{
		{"the limits differ", func(*Run, *Input) {}, []Kind{Update}, 0},
		{"they are as wanted", func(r *Run, _ *Input) { r.Limits = unit.LimitsOf(now) }, nil, 0},
		{"nobody knows what it has", func(r *Run, _ *Input) { r.Limits = "" }, nil, 0},
		{"an update is under way", func(r *Run, in *Input) { in.InFlight = map[string]string{r.ID: string(Update)} }, nil, 0},
		{"the last one failed a moment ago", func(r *Run, _ *Input) { r.UpdateAt = t0.Add(time.Second) }, nil, 1},
		{"the last one failed long ago", func(r *Run, _ *Input) { r.UpdateAt = t0 }, []Kind{Update}, 0},
		{"it does not run yet", func(r *Run, _ *Input) { r.Phase = Starting }, nil, 0},
		{"it is on its way out", func(r *Run, _ *Input) { r.Phase = Stopping }, nil, 0},
		{"it is replaced anyway", func(r *Run, in *Input) { in.Desired[0].Same = 0 }, []Kind{Stop}, 0},
		{"the unit is stopped", func(r *Run, in *Input) { in.Desired[0].Intent = Stopped }, []Kind{Stop}, 0},
	} {
		r := run
		in := Input{Desired: []Desired{{Unit: now, Revision: 2, Same: 1, Intent: Running}}, Now: t0}
		c.change(&r, &in)
		in.Observed = []Run{r}
		p := Compute(in)
		var kinds []Kind
		for _, a := range p.Actions {
			kinds = append(kinds, a.Kind)
			if a.Run != r.ID || a.Reason == "" {
				t.Errorf("%s: %+v", c.what, a)
			}
		}
		if !slices.Equal(kinds, c.kinds) || len(p.Waiting) != c.waitings {
			t.Errorf("%s: got %v, %v", c.what, p.Actions, p.Waiting)
		}
		if c.waitings > 0 && !p.Wake.Equal(r.UpdateAt) {
			t.Errorf("%s: wakes at %v", c.what, p.Wake)
		}
	}
}

// Whatever limits runs have: once the updates of a plan are done, the next
// plan asks for none, and no run was stopped for them.
func TestUpdatesConverge(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 7))
	for range 500 {
		var in Input
		in.Now = t0
		for n := range 1 + rnd.IntN(4) {
			u := limited(string(rune('a'+n)), int64(1+rnd.IntN(3))<<23)
			u.Replicas = 1 + rnd.IntN(3)
			in.Desired = append(in.Desired, Desired{Unit: u, Revision: 3, Same: 1, Intent: Running})
			for i := 1; i <= u.Replicas; i++ {
				in.Observed = append(in.Observed, Run{ID: Instance(u.Name, i) + "-aaaa", Unit: u.Name, Instance: Instance(u.Name, i),
					Revision: 1 + rnd.IntN(3), Phase: Up, StartedAt: t0, Limits: unit.LimitsOf(limited(u.Name, int64(1+rnd.IntN(3))<<23))})
			}
		}
		for _, a := range Compute(in).Actions {
			if a.Kind != Update {
				t.Fatalf("%+v for limits alone", a)
			}
			for i := range in.Observed {
				if in.Observed[i].ID == a.Run {
					in.Observed[i].Limits = unit.LimitsOf(in.Desired[slices.IndexFunc(in.Desired, func(d Desired) bool { return d.Unit.Name == a.Unit })].Unit)
				}
			}
		}
		if again := Compute(in); len(again.Actions)+len(again.Waiting) > 0 {
			t.Fatalf("not done: %+v", again)
		}
	}
}
