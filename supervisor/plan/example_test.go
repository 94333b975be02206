package plan_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func ExampleCompute() {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	db := unit.Unit{Name: "db", Replicas: 1}
	web := unit.Unit{Name: "web", Replicas: 2, DependsOn: []unit.Dependency{{Unit: "db", Required: true}}}
	in := plan.Input{
		Now: now,
		Desired: []plan.Desired{
			{Unit: db, Revision: 1, Intent: plan.Running},
			{Unit: web, Revision: 2, Intent: plan.Running},
		},
		Observed: []plan.Run{{ID: "web.1-7f3k", Unit: "web", Instance: "web.1", Revision: 1, Phase: plan.Up}},
	}
	p := plan.Compute(in)
	for _, a := range p.Actions {
		fmt.Println(a.Kind, a.Instance, "-", a.Reason)
	}
	for _, w := range p.Waiting {
		fmt.Println("wait", w.Instance, "-", w.Reason)
	}
	// Output:
	// start db.1 - db.1 is not running
	// wait web.1 - revision 2 replaces 1, but waits for unit db: db.1 is not running
	// wait web.2 - waits for unit db: db.1 is not running
}

func BenchmarkCompute(b *testing.B) {
	in := plan.Input{Now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	for n := range 1000 {
		u := unit.Unit{Name: fmt.Sprintf("u%d", n), Replicas: 1}
		if n > 0 {
			u.DependsOn = []unit.Dependency{{Unit: fmt.Sprintf("u%d", n/2), Required: true}}
		}
		in.Desired = append(in.Desired, plan.Desired{Unit: u, Revision: 1, Intent: plan.Running})
		in.Observed = append(in.Observed, plan.Run{ID: u.Name + ".1-aaaa", Unit: u.Name, Instance: u.Name + ".1", Revision: 1, Phase: plan.Up})
	}
	for b.Loop() {
		if p := plan.Compute(in); len(p.Actions) > 0 {
			b.Fatal(p.Actions)
		}
	}
}
