package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

func after(name string, conditions ...string) unit.ContainerDependency {
	return unit.ContainerDependency{Container: name, Condition: append(conditions, unit.Started)[0]}
}

// shop is a unit with an init container, two essential ones and one that is not.
func shop() unit.Unit {
	return unit.Unit{Name: "shop", Restart: policy(), Containers: []unit.Container{
		{Name: "metrics", DependsOn: []unit.ContainerDependency{after("nginx")}},
		{Name: "migrate"},
		{Name: "nginx", Essential: true, DependsOn: []unit.ContainerDependency{after("php")}},
		{Name: "php", Essential: true, DependsOn: []unit.ContainerDependency{after("migrate", unit.CompletedSuccessfully)}},
	}}
}

func up(name string) Container {
	return Container{Name: name, Phase: ContainerUp, Began: true, StartedAt: t0}
}

func ended(name string, code int, at time.Duration) Container {
	return Container{Name: name, Phase: ContainerExited, Began: true, StartedAt: t0, EndedAt: t0.Add(at), Code: code, Clean: code == 0}
}

func TestWithin(t *testing.T) {
	waiting := func(name string) Container { return Container{Name: name, Phase: ContainerWaiting} }
	failed := func(name string) Container {
		return Container{Name: name, Phase: ContainerFailed, EndedAt: t0, Code: -1, Error: "process: no"}
	}
	counted := func(c Container, done string) Container {
		c.Attempts = Attempts{Failures: 1, Last: c.EndedAt, Done: done != "", Error: done}
		return c
	}
	for _, c := range []struct {
		what string
		list []Container
		want string
	}{
		{"nothing yet", []Container{waiting("php"), waiting("nginx"), waiting("migrate"), waiting("metrics")}, "start migrate"},
		{"init runs", []Container{waiting("php"), waiting("nginx"), up("migrate"), waiting("metrics")}, ""},
		{"init completed", []Container{waiting("php"), waiting("nginx"), ended("migrate", 0, 0), waiting("metrics")}, "start php"},
		{"init failed", []Container{waiting("php"), waiting("nginx"), counted(ended("migrate", 1, 0), ""), waiting("metrics")}, "wake"},
		{"init gave up", []Container{waiting("php"), waiting("nginx"), counted(ended("migrate", 1, 0), "gave up"), waiting("metrics")},
			"fail php: waits for container migrate, which has ended for good: gave up"},
		{"chain", []Container{up("php"), waiting("nginx"), ended("migrate", 0, 0), waiting("metrics")}, "start nginx"},
		{"essential up", []Container{up("php"), up("nginx"), ended("migrate", 0, 0), waiting("metrics")}, "up, start metrics"},
		{"all up", []Container{up("php"), up("nginx"), ended("migrate", 0, 0), up("metrics")}, "up"},
		{"essential ended", []Container{ended("php", 2, time.Minute), up("nginx"), ended("migrate", 0, 0), up("metrics")},
			"up, end php: container php: exited with code 2"},
		{"essential ended well", []Container{ended("php", 0, time.Minute), up("nginx"), ended("migrate", 0, 0), up("metrics")},
			"up, end php: container php: exited with code 0"},
		{"two ended", []Container{ended("php", 2, 2*time.Minute), ended("nginx", 3, time.Minute), ended("migrate", 0, 0), up("metrics")},
			"up, end nginx: container nginx: exited with code 3"},
		{"essential not started", []Container{up("php"), failed("nginx"), ended("migrate", 0, 0), waiting("metrics")},
			"fail nginx: container nginx: process: no"},
		{"other not started", []Container{up("php"), up("nginx"), ended("migrate", 0, 0), counted(failed("metrics"), "")}, "up, wake"},
		{"other ended", []Container{up("php"), up("nginx"), ended("migrate", 0, 0), counted(ended("metrics", 1, 0), "")}, "up, wake"},
		{"its back-off is over", []Container{up("php"), up("nginx"), ended("migrate", 0, 0), counted(ended("metrics", 1, -time.Hour), "")},
			"up, start metrics"},
		{"other gave up", []Container{up("php"), up("nginx"), ended("migrate", 0, 0), counted(ended("metrics", 1, 0), "gave up")}, "up"},
		{"dependency gave up later", []Container{up("php"), up("nginx"), counted(ended("migrate", 1, 0), "gave up"), up("metrics")}, "up"},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := Within(Containers{Unit: shop(), Now: t0, List: c.list})
			var got []string
			if p.Up {
				got = append(got, "up")
			}
			for _, s := range p.Start {
				got = append(got, "start "+s.Container)
			}
			if e := p.End; e != nil {
				got = append(got, map[bool]string{true: "fail ", false: "end "}[e.Failed]+e.Container+": "+e.Reason)
			}
			if !p.Wake.IsZero() {
				got = append(got, "wake")
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("got %q, want %q (%+v)", s, c.want, p)
			}
		})
	}
}

func TestContainerAlone(t *testing.T) {
	u := unit.Unit{Name: "web", Restart: policy(), Containers: []unit.Container{{Name: unit.OnlyContainer}}}
	p := Within(Containers{Unit: u, Now: t0, List: []Container{ended(unit.OnlyContainer, 1, 0)}})
	if p.End == nil || !p.Up || len(p.Start) > 0 {
		t.Errorf("%+v", p)
	}
}

// Which policy holds for an end: what others wait for to complete is done once it has,
// whatever the policy says.
func TestAfterContainer(t *testing.T) {
	for _, c := range []struct {
		name      string
		condition unit.Condition
		code      int
		done      bool
		state     string
	}{
		{"migrate", unit.Any, 0, true, "completed"},
		{"migrate", unit.Any, 1, false, "backoff"},
		{"migrate", unit.OnFailure, 0, true, "completed"},
		{"migrate", unit.Never, 1, true, "failed"},
		{"metrics", unit.Any, 0, false, "backoff"},
		{"metrics", unit.Any, 1, false, "backoff"},
		{"metrics", unit.OnFailure, 0, true, "completed"},
		{"metrics", unit.OnFailure, 1, false, "backoff"},
		{"metrics", unit.Never, 0, true, "completed"},
		{"metrics", unit.Never, 1, true, "failed"},
	} {
		u := shop()
		u.Restart.Condition = c.condition
		con := ended(c.name, c.code, time.Second)
		con.Attempts = AfterContainer(u, Attempts{}, con, "key", t0)
		if con.Attempts.Done != c.done || ContainerState(u, con) != c.state {
			t.Errorf("%+v: %+v, %s", c, con.Attempts, ContainerState(u, con))
		}
		if again := AfterContainer(u, con.Attempts, con, "key", t0.Add(time.Hour)); !reflect.DeepEqual(again, con.Attempts) {
			t.Errorf("counted twice: %+v, then %+v", con.Attempts, again)
		}
	}
}

func TestContainerPhases(t *testing.T) {
	for from, moves := range containerMoves {
		for _, to := range []ContainerPhase{ContainerWaiting, ContainerStarting, ContainerUp, ContainerExited, ContainerFailed} {
			got, err := from.To(to)
			if legal := slices.Contains(moves, to); legal != (err == nil) || legal && got != to || !legal && got != from {
				t.Errorf("%s to %s: %s, %v", from, to, got, err)
			}
		}
	}
}

// Random units with random containers that end, fail and complete in any order:
//
//   - a container starts only when what it depends on has been reached;
//   - none is started that runs, is being started, has completed or was given up;
//   - the same input, in another order, gives the same plan;
//   - the run ends if and only if an essential container has ended, or can never start;
//   - once nothing fails any more, every run is up with all its containers, or has ended.
func TestWithinProperties(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 11))
		b := newBrood(t, r)
		for range 60 {
			b.step(r.IntN(5) > 0)
			if b.over {
				break
			}
		}
		for i := 0; i < 400 && !b.over; i++ {
			b.step(false)
		}
		if b.over {
			continue
		}
		for name, c := range b.all {
			done := c.Attempts.Done || b.unit.Awaited(name) && completed(c)
			waits := c.Phase == ContainerWaiting && !b.unit.Essential(b.unit.Container(name)) // on one that was given up
			if c.Phase != ContainerUp && !done && !waits {
				t.Fatalf("seed %d: %s is %s: %+v", seed, name, c.Phase, c)
			}
		}
	}
}

// brood is a model of one run.
type brood struct {
	t    *testing.T
	r    *rand.Rand
	unit unit.Unit
	all  map[string]*Container
	now  time.Time
	key  int
	over bool
}

func newBrood(t *testing.T, r *rand.Rand) *brood {
	b := &brood{t: t, r: r, all: map[string]*Container{}, now: t0, unit: unit.Unit{Name: "u", Restart: policy()}}
	b.unit.Restart.Condition = []unit.Condition{unit.Any, unit.OnFailure, unit.Never}[r.IntN(3)]
	b.unit.Restart.MaxAttempts = r.IntN(3) * 3
	for i := range 1 + r.IntN(5) {
		c := unit.Container{Name: string(rune('a' + i)), Essential: r.IntN(2) == 0}
		for j := range i {
			switch r.IntN(4) {
			case 0:
				c.DependsOn = append(c.DependsOn, after(string(rune('a'+j))))
			case 1:
				c.DependsOn = append(c.DependsOn, after(string(rune('a'+j)), unit.CompletedSuccessfully))
			}
		}
		b.unit.Containers = append(b.unit.Containers, c)
		b.all[c.Name] = &Container{Name: c.Name, Phase: ContainerWaiting}
	}
	for i := range b.unit.Containers { // as the parser decides
		if c := &b.unit.Containers[i]; b.unit.Awaited(c.Name) {
			c.Essential = false
		}
	}
	b.unit.Containers[len(b.unit.Containers)-1].Essential = true
	return b
}

// step plans, checks the plan, carries it out, and lets something happen.
func (b *brood) step(trouble bool) {
	in := Containers{Unit: b.unit, Now: b.now}
	for _, name := range slices.Sorted(maps.Keys(b.all)) {
		in.List = append(in.List, *b.all[name])
	}
	p := Within(in)
	b.r.Shuffle(len(in.List), func(i, j int) { in.List[i], in.List[j] = in.List[j], in.List[i] })
	if again := Within(in); !reflect.DeepEqual(p, again) {
		b.t.Fatalf("the order of the input matters:\n%+v\n%+v", p, again)
	}
	b.check(p)
	if p.End != nil {
		b.over = true
		return
	}
	for _, s := range p.Start {
		c := b.all[s.Container]
		c.Phase = ContainerStarting
	}
	if p.Wake.After(b.now) {
		b.now = p.Wake
	} else {
		b.now = b.now.Add(time.Second)
	}
	for _, name := range slices.Sorted(maps.Keys(b.all)) {
		b.happen(b.all[name], trouble)
	}
}

func (b *brood) happen(c *Container, trouble bool) {
	awaited := b.unit.Awaited(c.Name)
	switch {
	case c.Phase == ContainerStarting && trouble && b.r.IntN(4) == 0 && !b.unit.Essential(b.unit.Container(c.Name)):
		c.Phase, c.EndedAt, c.Code, c.Clean, c.Error = ContainerFailed, b.now, -1, false, "no"
	case c.Phase == ContainerStarting:
		c.Phase, c.Began, c.StartedAt, c.EndedAt, c.Error = ContainerUp, true, b.now, time.Time{}, ""
		return
	case c.Phase == ContainerUp && (awaited || trouble && b.r.IntN(6) == 0):
		c.Phase, c.EndedAt, c.Code = ContainerExited, b.now, 0
		if trouble {
			c.Code = b.r.IntN(2)
		}
		c.Clean = c.Code == 0
	default:
		return
	}
	b.key++
	if !b.unit.Essential(b.unit.Container(c.Name)) {
		c.Attempts = AfterContainer(b.unit, c.Attempts, *c, fmt.Sprint(b.key), b.now)
	}
}

func (b *brood) check(p ContainersPlan) {
	essentialEnded := false
	for _, c := range b.all {
		essentialEnded = essentialEnded || b.unit.Essential(b.unit.Container(c.Name)) && c.Phase.Over()
	}
	if essentialEnded && p.End == nil || p.End != nil && !essentialEnded && !p.End.Failed {
		b.t.Fatalf("an essential container ended: %t, the plan: %+v", essentialEnded, p)
	}
	if p.End != nil && len(p.Start) > 0 {
		b.t.Fatalf("it ends and starts: %+v", p)
	}
	for _, s := range p.Start {
		c := b.all[s.Container]
		if c.Phase == ContainerUp || c.Phase == ContainerStarting || c.Attempts.Done || b.unit.Awaited(c.Name) && completed(c) {
			b.t.Fatalf("started: %+v", c)
		}
		for _, d := range b.unit.Container(c.Name).DependsOn {
			dep := b.all[d.Container]
			if c.Phase == ContainerWaiting && (!dep.Began || d.Condition == unit.CompletedSuccessfully && !completed(dep)) {
				b.t.Fatalf("%s started before %+v", c.Name, dep)
			}
		}
	}
}
