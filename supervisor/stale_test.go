package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// plans collects what the steps of a loop have planned.
type plans struct {
	mu         sync.Mutex
	units      map[string]bool
	overlooked map[string]bool
}

func (p *plans) hear(units map[string]bool, overlooked []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.units, units)
	for _, name := range overlooked {
		p.overlooked[name] = true
	}
}

func (p *plans) take() (units, overlooked []string) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	units, overlooked = slices.Sorted(maps.Keys(p.units)), slices.Sorted(maps.Keys(p.overlooked))
	p.units, p.overlooked = map[string]bool{}, map[string]bool{}
	return units, overlooked
}

// TestPlanOfFew: what happens to a unit has it planned anew, and what hangs together with it
// by depends_on; nothing else.
func TestPlanOfFew(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, n int) supervisortest.Script {
			if c.Unit == "crashes" && n == 1 {
				return supervisortest.Script{RunsFor: 15 * time.Second, Exit: runtime.Exit{Code: 1}}
			}
			return supervisortest.Script{}
		}
		p := &plans{units: map[string]bool{}, overlooked: map[string]bool{}}
		o.hooks.planned = p.hear
		d := begin(t, o)
		defer d.end()
		d.apply("name: db\nimage: a\n", "name: web\nimage: a\ndepends_on: [db]\n", "name: front\nimage: a\ndepends_on: [web]\n",
			"name: crashes\nimage: a\nrestart: always\n", "name: other\nimage: a\n")
		time.Sleep(10 * time.Second)
		p.take()

		time.Sleep(10 * time.Second) // all of it is over before fullEvery
		if units, _ := p.take(); !slices.Equal(units, []string{"crashes"}) {
			t.Errorf("a crash had these planned: %s", units)
		}
		d.want("crashes", "running")
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		if units, _ := p.take(); !slices.Equal(units, []string{"db", "front", "web"}) {
			t.Errorf("a stop had these planned: %s", units)
		}
		// One that is waited for, and appears only now.
		d.apply("name: early\nimage: a\ndepends_on: {late: {condition: started, required: false}}\n")
		time.Sleep(10 * time.Second)
		p.take()
		d.apply("name: late\nimage: a\n")
		if units, _ := p.take(); !slices.Equal(units, []string{"early", "late"}) {
			t.Errorf("a unit that another waits for had these planned: %s", units)
		}
	})
}

// TestDependencyDropped: what waits to stop until its user has stopped is planned anew when that one does not depend on
// it any more.
func TestDependencyDropped(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{IgnoreStop: c.Unit == "web"}
		}
		d := begin(t, o)
		defer d.end()
		alone := "name: web\nimage: a\nstop_grace_period: 30s\n"
		d.apply("name: db\nimage: a\n", alone+"depends_on: [db]\n")
		time.Sleep(10 * time.Second)
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web", "db"}, NoWait: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		if why := d.unit("db").Reason; why != "stops after unit web, which depends on it" {
			t.Fatalf("before web has stopped, db %s", why)
		}
		d.apply(alone)
		time.Sleep(time.Second)
		d.want("db", "stopped")
	})
}

// glance is a look into the loop, or a hand in it.
type glance func(l *loop)

func (g glance) handle(l *loop) { g(l) }

// TestOverlooked: what is not touched is found by the check that all tests on a world make, and
// planned after a while all the same.
func TestOverlooked(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		p := &plans{units: map[string]bool{}, overlooked: map[string]bool{}}
		o.hooks.planned = p.hear
		d := begin(t, o)
		defer d.end()
		d.apply(web, "name: other\nimage: a\n")
		time.Sleep(10 * time.Second)
		p.take()
		d.post(glance(func(l *loop) { // loses a run behind the loop's back
			for id := range l.stale.runs["web"] {
				delete(l.runs, id)
			}
			delete(l.stale.runs, "web")
		}))
		if units, overlooked := p.take(); !slices.Equal(overlooked, []string{"web"}) || len(units) > 0 {
			t.Errorf("planned %s, overlooked %s", units, overlooked)
		}
		time.Sleep(fullEvery)
		if units, _ := p.take(); !slices.Equal(units, []string{"other", "web"}) {
			t.Errorf("after a while planned: %s", units)
		}
		d.want("web", "running")
	})
}

// TestRemovedIsForgotten: names are made up for ever, so nothing may be kept of one that has gone.
func TestRemovedIsForgotten(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{StartErr: errors.New("no such program")}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		time.Sleep(10 * time.Second)
		if len(d.events(event.StartFailed)) == 0 {
			t.Fatal("no start has failed")
		}
		if _, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}, Force: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		d.post(glance(func(l *loop) {
			if n := len(l.starting) + len(l.failed) + len(l.failures) + len(l.attempts) + len(l.stale.users) + len(l.stale.runs) + len(l.stale.wakes) + len(l.work); n > 0 {
				t.Errorf("kept: %v, %v, %v, %v, %+v, %v", l.starting, l.failed, l.failures, l.attempts, l.stale, l.work)
			}
		}))
		synctest.Wait()
	})
}

// BenchmarkRunBeside is a `run --rm` on a host without processes, beside idle units: all that
// the supervisor itself does for it. It is to cost the same beside any number.
func BenchmarkRunBeside(b *testing.B) {
	for _, n := range []int{0, 50, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := supervisortest.New()
			w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
				if c.Unit == "once" {
					return supervisortest.Script{RunsFor: time.Microsecond}
				}
				return supervisortest.Script{}
			}
			o := Options{Root: b.TempDir(), RunDir: b.TempDir(), hooks: hooks{containers: w.Runtime, networks: w.Network, images: w.Images}}
			s, err := New(o)
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- s.Run(b.Context()) }()
			b.Cleanup(func() { <-ended })
			<-s.Ready()
			run := func(name string, remove bool) {
				def := unit.Unit{Name: name, Network: "host", Containers: []unit.Container{{Image: "busybox"}}}
				if _, err := s.RunUnit(b.Context(), api.RunRequest{Unit: def, Remove: remove}, "tester", nil); err != nil {
					b.Fatal(err)
				}
			}
			for i := range n {
				run(fmt.Sprintf("idle%d", i), false)
			}
			b.ReportAllocs()
			for b.Loop() {
				run("once", true)
				if err := s.awaitSnapshot(b.Context(), func(snap *snapshot) (bool, error) { return snap.find("once") == nil, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
