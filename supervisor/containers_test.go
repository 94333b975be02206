package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// shop is a unit with an init container, two essential ones and one that is not.
const shop = `name: shop
containers:
  migrate: {image: "php:8", command: migrate}
  php:     {image: "php:8", depends_on: {migrate: {condition: completed_successfully}}}
  nginx:   {image: "nginx:1", depends_on: [php]}
  metrics: {image: "exporter:2", essential: false, depends_on: [nginx]}
`

// scripts gives each container of shop its behaviour by name; migrate completes after
// a second unless it is said otherwise.
func scripts(m map[string]func(n int) supervisortest.Script) func(runtime.Config, int) supervisortest.Script {
	return func(c runtime.Config, n int) supervisortest.Script {
		if f := m[c.Container]; f != nil {
			return f(n)
		}
		if c.Container == "migrate" {
			return supervisortest.Script{RunsFor: time.Second}
		}
		return supervisortest.Script{}
	}
}

func (d *daemon) container(name string) api.Container {
	d.t.Helper()
	for _, c := range d.unit("shop").Instances[0].Containers {
		if c.Name == name {
			return c
		}
	}
	d.t.Fatalf("no container %s: %+v", name, d.unit("shop"))
	return api.Container{}
}

func (d *daemon) wantContainers(states ...string) {
	d.t.Helper()
	var got []string
	for _, c := range d.unit("shop").Instances[0].Containers {
		got = append(got, c.Name+" "+c.State)
	}
	if !slices.Equal(got, states) {
		d.t.Fatalf("containers are %q, want %q", got, states)
	}
}

func (d *daemon) messages(typ, container string) []string {
	var list []string
	for e, err := range d.Events(d.t.Context(), 0, false) {
		if err != nil {
			d.t.Fatal(err)
		}
		if e.Type == typ && e.Container == container {
			list = append(list, e.Message)
		}
	}
	return list
}

var allUp = []string{"migrate completed", "php running", "nginx running", "metrics running"}

func TestContainersInOrder(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(nil)
		d := begin(t, o)
		defer d.end()
		d.apply(shop)
		d.want("shop", "starting")
		d.wantContainers("migrate running", "php waiting", "nginx waiting", "metrics waiting")
		if r := d.container("php").Reason; r != "waits for container migrate to complete" {
			t.Error(r)
		}
		time.Sleep(2 * time.Second)
		d.want("shop", "running")
		d.wantContainers(allUp...)
		want := []string{"start shop.1/migrate", "exit shop.1/migrate", "start shop.1/php", "start shop.1/nginx", "start shop.1/metrics"}
		if got := w.Runtime.Log(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		runs := w.Runtime.Running("shop.1")
		ns := w.Runtime.Shared()
		if len(runs) != 1 || len(ns) != 1 || !ns[runs[0]].Net || !ns[runs[0]].IPC || !ns[runs[0]].UTS || ns[runs[0]].PID || !ns[runs[0]].Pin {
			t.Errorf("runs %v, namespaces %+v", runs, ns)
		}
		if c := w.Runtime.Config("shop.1/php"); !c.Join || c.Container != "php" || !strings.HasSuffix(c.Log.Path, "/logs/shop/shop.1/php.log") {
			t.Errorf("%+v", c)
		}
		if n := len(w.Network.Leases()); n != 1 {
			t.Errorf("%d addresses", n)
		}
		if n := w.Images.Pulls("php:8"); n > 2 || w.Images.Pulls("nginx:1") != 1 {
			t.Errorf("%d pulls", n)
		}
		detail, err := d.Unit(t.Context(), "shop")
		if err != nil || len(detail.Digests) != 4 || detail.Digests["php"] != detail.Digests["migrate"] || detail.Digests["nginx"] == detail.Digests["php"] {
			t.Errorf("%v %v", detail.Digests, err)
		}
		if len(detail.Stats) != 3 {
			t.Errorf("%v", detail.Stats)
		}
		stop := api.ActRequest{Units: []string{"shop"}}
		if _, err := d.Stop(t.Context(), stop, "tester"); err != nil {
			t.Fatal(err)
		}
		var stops []string
		for _, l := range w.Runtime.Log() {
			if name, ok := strings.CutPrefix(l, "stop shop.1/"); ok {
				stops = append(stops, name)
			}
		}
		if !slices.Equal(stops, []string{"metrics", "nginx", "php"}) {
			t.Errorf("stopped in the order %q", stops)
		}
		d.empty(w)
	})
}

// The end of an essential container is the end of the run, with its exit, and the next
// run follows.
func TestEssentialEnds(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(nil)
		d := begin(t, o)
		defer d.end()
		d.apply(shop)
		time.Sleep(2 * time.Second)
		first := w.Runtime.Running("shop.1")
		w.Runtime.End("shop.1/php", runtime.Exit{Code: 3})
		time.Sleep(50 * time.Millisecond)
		u := d.unit("shop")
		if x := u.Instances[0].Exit; u.State != "backoff" || x == nil || x.Code != 3 || x.Cause != "container php" {
			t.Fatalf("%s %+v", u.State, x)
		}
		if u.Reason != "exited with code 3: attempt 1" && !strings.Contains(u.Reason, "code 3") {
			t.Error(u.Reason)
		}
		time.Sleep(10 * time.Second)
		d.want("shop", "running")
		if again := w.Runtime.Running("shop.1"); len(again) != 1 || again[0] == first[0] {
			t.Errorf("%v, then %v", first, again)
		}
		if u := d.unit("shop"); u.Restarts != 1 {
			t.Errorf("%+v", u)
		}
		if stops := d.messages(event.Stop, ""); len(stops) != 1 || !strings.Contains(stops[0], "container php: exited with code 3") {
			t.Errorf("%q", stops)
		}
		d.empty(w)
	})
}

// Any other container is restarted by itself, with a back-off of its own.
func TestRestartedSingly(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"metrics": func(n int) supervisortest.Script {
			switch n {
			case 2:
				return supervisortest.Script{StartErr: errors.New("no luck")}
			case 3:
				return supervisortest.Script{RunsFor: 30 * time.Second, Exit: runtime.Exit{Signal: "SIGSEGV"}}
			}
			return supervisortest.Script{}
		}})
		d := begin(t, o)
		defer d.end()
		d.apply(shop + "restart_policy: {delay: 1s, max_delay: 1m, jitter: 0}\n")
		time.Sleep(2 * time.Second)
		php, run := w.Runtime.Pid("shop.1/php"), w.Runtime.Running("shop.1")
		w.Runtime.End("shop.1/metrics", runtime.Exit{Code: 1})
		d.want("shop", "running")
		d.wantContainers("migrate completed", "php running", "nginx running", "metrics backoff")
		if u := d.unit("shop"); !strings.Contains(u.Instances[0].Reason, "container metrics: exited with code 1") {
			t.Errorf("%+v", u.Instances[0])
		}
		time.Sleep(1100 * time.Millisecond) // the second start fails
		if c := d.container("metrics"); c.State != "backoff" || c.Attempt != 2 || c.Restarts != 0 || !strings.Contains(c.Reason, "no luck") {
			t.Fatalf("%+v", c)
		}
		time.Sleep(2100 * time.Millisecond)
		d.wantContainers(allUp...)
		time.Sleep(30 * time.Second)
		if c := d.container("metrics"); c.State != "backoff" || c.Attempt != 3 || c.Restarts != 1 || c.Exit.Signal != "SIGSEGV" {
			t.Fatalf("%+v", c)
		}
		time.Sleep(5 * time.Second)
		d.wantContainers(allUp...)
		if w.Runtime.Pid("shop.1/php") != php || !slices.Equal(w.Runtime.Running("shop.1"), run) || d.unit("shop").Restarts != 0 {
			t.Errorf("the run was disturbed: %+v", d.unit("shop"))
		}
		if n := len(d.messages(event.Backoff, "metrics")); n != 3 {
			t.Errorf("%d back-offs", n)
		}
		d.empty(w)
	})
}

// One that is given up on ends nothing, and `start` tries it again.
func TestSingleGivenUp(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		bad := true
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"metrics": func(n int) supervisortest.Script {
			if bad {
				return supervisortest.Script{RunsFor: time.Millisecond, Exit: runtime.Exit{Code: 2}}
			}
			return supervisortest.Script{}
		}})
		d := begin(t, o)
		defer d.end()
		d.apply(shop + "restart_policy: {max_attempts: 3}\n")
		time.Sleep(time.Minute)
		d.want("shop", "running")
		if c := d.container("metrics"); c.State != "failed" || !strings.Contains(c.Reason, "gave up after 3 restarts") {
			t.Fatalf("%+v", c)
		}
		bad = false
		if _, err := d.Start(t.Context(), api.ActRequest{Units: []string{"shop"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		d.wantContainers(allUp...)
		d.empty(w)
	})
}

// What an essential container waits for and cannot get fails the start.
func TestInitFails(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"migrate": func(n int) supervisortest.Script {
			return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: 9}}
		}})
		d := begin(t, o)
		defer d.end()
		d.apply(shop + "restart: \"no\"\n")
		time.Sleep(2 * time.Second)
		u := d.unit("shop")
		if u.State != "failed" || !strings.Contains(u.Reason, "waits for container migrate, which has ended for good: exited with code 9") {
			t.Fatalf("%s: %s", u.State, u.Reason)
		}
		if w.Runtime.Starts("shop.1/php") != 0 || len(w.Leftovers()) > 0 {
			t.Errorf("%v %v", w.Runtime.Log(), w.Leftovers())
		}
		if _, err := d.Start(t.Context(), api.ActRequest{Units: []string{"shop"}}, "tester"); err == nil || !strings.Contains(err.Error(), "shop.1/php") {
			t.Error(err)
		}
		d.empty(w)
	})
}

// With a policy that allows it, an init container is tried again until it completes.
func TestInitTriedAgain(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"migrate": func(n int) supervisortest.Script {
			return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: max(3-n, 0)}}
		}})
		d := begin(t, o)
		defer d.end()
		d.apply(shop)
		time.Sleep(time.Minute)
		d.want("shop", "running")
		d.wantContainers(allUp...)
		if n := w.Runtime.Starts("shop.1/migrate"); n != 3 {
			t.Errorf("%d starts", n)
		}
		d.empty(w)
	})
}

// An essential container that cannot be started fails the run: the others end.
func TestEssentialNotStarted(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"nginx": func(n int) supervisortest.Script {
			if n == 1 {
				return supervisortest.Script{StartErr: errors.New("no such program")}
			}
			return supervisortest.Script{}
		}})
		d := begin(t, o)
		defer d.end()
		d.apply(shop + "restart_policy: {delay: 10s}\n")
		time.Sleep(2 * time.Second)
		u := d.unit("shop")
		if u.State != "backoff" || !strings.Contains(u.Reason, "container nginx: process: no such program") {
			t.Fatalf("%s: %s", u.State, u.Reason)
		}
		if left := w.Leftovers(); len(left) > 0 || len(w.Runtime.Running("shop.1")) > 0 || count(w.Runtime.Log(), "stop shop.1/php") != 1 {
			t.Errorf("%v %v", left, w.Runtime.Log())
		}
		time.Sleep(time.Minute)
		d.wantContainers(allUp...)
		d.empty(w)
	})
}

// A pull that fails starts nothing.
func TestOneImageMissing(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Fail = func(ref string, n int) error {
			if ref == "exporter:2" && n == 1 {
				return errors.New("gone")
			}
			return nil
		}
		w.Runtime.Script = scripts(nil)
		d := begin(t, o)
		defer d.end()
		d.apply(shop + "restart_policy: {delay: 10s}\n")
		time.Sleep(time.Second)
		if u := d.unit("shop"); u.State != "backoff" || !strings.Contains(u.Reason, "pull: container metrics: ") || len(w.Runtime.Log()) > 0 {
			t.Fatalf("%s %s %v", u.State, u.Reason, w.Runtime.Log())
		}
		time.Sleep(time.Minute)
		d.wantContainers(allUp...)
		d.empty(w)
	})
}

// A stop in the midst of a start ends what there is of it.
func TestStopWhileStarting(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"migrate": func(int) supervisortest.Script {
			return supervisortest.Script{RunsFor: time.Hour}
		}})
		d := begin(t, o)
		defer d.end()
		d.apply(shop)
		d.want("shop", "starting")
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"shop"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		d.want("shop", "stopped")
		if w.Runtime.Starts("shop.1/php") != 0 {
			t.Error(w.Runtime.Log())
		}
		d.empty(w)
	})
}

// Each container has its own grace period, and an order to hurry is for all.
func TestStopTakesItsTime(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		deaf := func(int) supervisortest.Script { return supervisortest.Script{IgnoreStop: true} }
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"php": deaf, "nginx": deaf})
		text := "name: shop\ncontainers:\n  php: {image: i, stop_grace_period: 20s}\n  nginx: {image: i, stop_grace_period: 5s, depends_on: [php]}\n"
		d := begin(t, o)
		defer d.end()
		for want, r := range map[time.Duration]api.ActRequest{25 * time.Second: {}, 3 * time.Second: {Timeout: 3e9}, 0: {Force: true}} {
			r.Units = []string{"shop"}
			d.apply(text)
			if _, err := d.Start(t.Context(), api.ActRequest{Units: r.Units}, "tester"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if _, err := d.Stop(t.Context(), r, "tester"); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("%+v took %s, want %s", r, took, want)
			}
		}
		d.empty(w)
	})
}

var containerPoints = []string{stepRootfs, stepVolumes, stepFiles, stepSpec, stepProcess, "started"}

// whole asserts that the shop runs once, all of it, and that nothing else is there.
func (d *daemon) whole(w *supervisortest.World) {
	d.t.Helper()
	time.Sleep(5 * time.Minute)
	d.want("shop", "running")
	d.wantContainers(allUp...)
	runs := w.Runtime.Running("shop.1")
	if len(runs) != 1 {
		d.t.Fatalf("runs: %v", runs)
	}
	for id := range w.Runtime.Shared() {
		if id != runs[0] {
			d.t.Errorf("namespaces of %s are left", id)
		}
	}
	leases, _ := w.Images.Leases()
	if len(leases) != 4 || len(w.Network.Leases()) != 1 {
		d.t.Errorf("leases of images %v, of addresses %v", leases, w.Network.Leases())
	}
	records, err := readRecords(d.paths)
	if err != nil || len(records) != 1 {
		d.t.Errorf("folders of runs: %v %v", records, err)
	}
}

// The daemon dies at each step of each container's start: the next one goes on with
// what runs already, in the same run, or undoes what does not.
func TestDaemonDiesAmongContainers(t *testing.T) {
	for _, point := range containerPoints {
		for n := range int32(4) {
			t.Run(fmt.Sprintf("%s/%d", point, n+1), func(t *testing.T) {
				world(t, func(t *testing.T, w *supervisortest.World, o Options) {
					w.Runtime.Script = scripts(nil)
					dying := o
					dying.hooks.fault = dieAt(point, n+1)
					d := begin(t, dying)
					d.apply(shop + "ports: [\"80:80\"]\n")
					if err := <-d.ended; !errors.Is(err, errDied) {
						t.Fatal(err)
					}
					before := w.Runtime.Running("shop.1")
					completed := count(w.Runtime.Log(), "exit shop.1/migrate") > 0
					d = begin(t, o)
					defer d.end()
					d.whole(w)
					if after := w.Runtime.Running("shop.1"); len(before) > 0 && before[0] != after[0] {
						t.Errorf("run %v was not finished, but replaced by %v: %v", before, after, w.Runtime.Log())
					}
					if completed && count(w.Runtime.Log(), "start shop.1/migrate") != 1 {
						t.Errorf("a container that had completed was started again: %v", w.Runtime.Log())
					}
					d.empty(w)
				})
			})
		}
	}
}

// The daemon dies at each step of the clean-up of a run, and of a single container.
func TestDaemonDiesCleaningContainers(t *testing.T) {
	for _, what := range []string{"php", "metrics"} {
		for _, point := range slices.Concat(cleanupPoints, []string{stepLetGo, stepAgain}) {
			for n := range int32(4) {
				t.Run(fmt.Sprintf("%s/%s/%d", what, point, n+1), func(t *testing.T) {
					world(t, func(t *testing.T, w *supervisortest.World, o Options) {
						w.Runtime.Script = scripts(nil)
						dying := o
						dying.hooks.fault = dieAt(point, n+1)
						d := begin(t, dying)
						d.apply(shop)
						time.Sleep(2 * time.Second)
						w.Runtime.End("shop.1/"+what, runtime.Exit{Code: 1})
						select {
						case <-d.ended:
						case <-time.After(time.Minute): // this one has fewer such steps
							d.end()
						}
						d = begin(t, o)
						defer d.end()
						d.whole(w)
						d.empty(w)
					})
				})
			}
		}
	}
}

// What happens to containers while no daemon is there.
func TestContainersWhileAway(t *testing.T) {
	for _, c := range []struct {
		name  string
		away  func(w *supervisortest.World)
		kept  bool // the run goes on
		fresh string
	}{
		{"nothing", func(w *supervisortest.World) {}, true, ""},
		{"essential ended", func(w *supervisortest.World) { w.Runtime.End("shop.1/nginx", runtime.Exit{Code: 4}) }, false, ""},
		{"other ended", func(w *supervisortest.World) { w.Runtime.End("shop.1/metrics", runtime.Exit{Code: 4}) }, true, "metrics"},
		{"other was being made", func(w *supervisortest.World) { w.Runtime.Unsettle("shop.1/metrics") }, true, "metrics"},
		{"essential was being made", func(w *supervisortest.World) { w.Runtime.Unsettle("shop.1/nginx") }, true, "nginx"},
		{"all ended", func(w *supervisortest.World) {
			for _, name := range []string{"metrics", "nginx", "php"} {
				w.Runtime.End("shop.1/"+name, runtime.Exit{Code: 4})
			}
		}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				// A start that takes its time: the end of what it replaces is heard meanwhile.
				slow := func(n int) supervisortest.Script {
					return supervisortest.Script{StartTakes: time.Duration(n-1) * time.Second}
				}
				w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{"nginx": slow, "metrics": slow})
				d := begin(t, o)
				d.apply(shop)
				time.Sleep(2 * time.Second)
				d.wantContainers(allUp...)
				run := w.Runtime.Running("shop.1")
				pids := map[string]int{}
				for _, name := range []string{"metrics", "nginx", "php"} {
					pids[name] = w.Runtime.Pid("shop.1/" + name)
				}
				d.end()
				c.away(w)
				for range 2 {
					d = begin(t, o)
					d.whole(w)
					d.end()
				}
				if again := w.Runtime.Running("shop.1"); slices.Equal(run, again) != c.kept {
					t.Errorf("run %v, then %v: %v", run, again, w.Runtime.Log())
				}
				for name, pid := range pids {
					if now := w.Runtime.Pid("shop.1/" + name); c.kept && (now == pid) != (name != c.fresh) {
						t.Errorf("%s: pid %d, then %d", name, pid, now)
					}
				}
				d = begin(t, o)
				defer d.end()
				if got := d.container("metrics").Restarts; c.name == "other ended" && got != 1 {
					t.Errorf("%d restarts", got)
				}
				d.empty(w)
			})
		})
	}
}

// A keeper that comes back without a container: its end is noticed, whichever it is.
func TestKeeperForgets(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(nil)
		d := begin(t, o)
		defer d.end()
		d.apply(shop)
		time.Sleep(2 * time.Second)
		w.Runtime.Restart(false)
		time.Sleep(time.Second)
		d.wantContainers(allUp...)
		w.Runtime.Restart(true)
		time.Sleep(time.Second)
		d.whole(w)
		d.empty(w)
	})
}

// Back-off and count of a single container survive the daemon.
func TestSingleBackoffSurvives(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(nil)
		d := begin(t, o)
		d.apply(shop + "restart_policy: {delay: 1m, max_delay: 1h, jitter: 0}\n")
		time.Sleep(2 * time.Second)
		w.Runtime.End("shop.1/metrics", runtime.Exit{Code: 1})
		time.Sleep(time.Second)
		for range 3 {
			d.end()
			d = begin(t, o)
			if c := d.container("metrics"); c.State != "backoff" || c.Attempt != 1 || c.Exit.Code != 1 {
				t.Fatalf("%+v", c)
			}
		}
		if n := len(d.messages(event.Exit, "metrics")); n != 1 {
			t.Errorf("its end was told %d times", n)
		}
		time.Sleep(time.Minute)
		d.wantContainers(allUp...)
		if c := d.container("metrics"); c.Restarts != 1 {
			t.Errorf("%+v", c)
		}
		d.empty(w)
		d.end()
	})
}

// Any container may end at any time, in any way, and the daemon die in between.
func TestContainersConverge(t *testing.T) {
	for seed := range 8 {
		world(t, func(t *testing.T, w *supervisortest.World, o Options) {
			w.Runtime.Script = func(c runtime.Config, n int) supervisortest.Script {
				if n > 5 {
					return scripts(nil)(c, n)
				}
				switch (n*7 + seed + 3*len(c.Container)) % 5 {
				case 0:
					return supervisortest.Script{StartErr: errors.New("no luck"), StartTakes: time.Second}
				case 1:
					return supervisortest.Script{RunsFor: time.Duration(n) * time.Second, Exit: runtime.Exit{Code: n}}
				case 2:
					return supervisortest.Script{RunsFor: time.Millisecond, Exit: runtime.Exit{Signal: "SIGSEGV"}}
				case 3:
					return supervisortest.Script{RunsFor: 3 * time.Second}
				}
				return supervisortest.Script{RunsFor: 20 * time.Second, IgnoreStop: true}
			}
			points := slices.Concat(startPoints, cleanupPoints)
			for round := range 6 {
				dying := o
				dying.hooks.fault = dieAt(points[(seed*5+round*3)%len(points)], int32(2+round))
				d := begin(t, dying)
				_, _ = d.tryApply(shop)
				select {
				case <-d.ended:
				case <-time.After(30 * time.Second):
					d.end()
				}
			}
			d := begin(t, o)
			defer d.end()
			time.Sleep(time.Hour)
			d.whole(w)
			if w.Runtime.Peak("shop") > 1 {
				t.Errorf("seed %d: %d runs at once", seed, w.Runtime.Peak("shop"))
			}
			d.empty(w)
		})
	}
}

// TestFollowersAreAskedToEnd: of what is kept of a run, only the end that was the cause
// stands for itself; the others were asked to end.
func TestFollowersAreAskedToEnd(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = scripts(map[string]func(int) supervisortest.Script{
			"nginx": func(n int) supervisortest.Script {
				if n == 1 {
					return supervisortest.Script{RunsFor: 10 * time.Second}
				}
				return supervisortest.Script{}
			},
		})
		d := begin(t, o)
		defer d.end()
		d.apply(shop)
		time.Sleep(30 * time.Second)
		d.want("shop", "running")
		stopped := map[string]bool{}
		for _, r := range d.exitsOf("shop") {
			stopped[r.Container] = r.Stopped
		}
		if v, ok := stopped["nginx"]; v || !ok || !stopped["php"] || !stopped["metrics"] {
			t.Errorf("asked to end: %v", stopped)
		}
	})
}

// TestNamesThatMissAContainer: the unit is there, so the error does not deny it.
func TestNamesThatMissAContainer(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		_, err := d.Exec(t.Context(), api.ExecRequest{Target: "web/none", Args: []string{"true"}}, "", nil, nil, nil)
		if !errors.Is(err, ErrNoSuchUnit) || err.Error() != `unit web has no container "none", but app` {
			t.Errorf("got %v", err)
		}
	})
}

// TestSpoiltRun: a run whose namespaces went with a keeper, before any of its containers ran, is replaced. Its containers alone
// would be tried again for ever.
func TestSpoiltRun(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		lost := ""
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			if lost == "" {
				lost = c.Run
			}
			switch {
			case c.Run == lost:
				return supervisortest.Script{StartErr: fmt.Errorf("namespaces of %s: %w", c.Run, runtime.ErrNotFound)}
			case c.Container == "first":
				return supervisortest.Script{RunsFor: time.Second}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(`name: shop
containers:
  first: {image: a, essential: false}
  side:  {image: a, essential: false}
  main:  {image: a, depends_on: {first: {condition: completed_successfully}}}
`)
		time.Sleep(10 * time.Second)
		d.want("shop", "running")
		d.wantContainers("first completed", "main running", "side running")
		failed := d.events(event.StartFailed)
		if len(failed) != 1 || failed[0].Instance != "shop.1" || !strings.Contains(failed[0].Message, "namespaces of "+lost) {
			t.Errorf("%+v", failed)
		}
	})
}
