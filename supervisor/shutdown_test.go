package supervisor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// stack is three units that depend on each other, of which the middle has two containers.
var stack = []string{
	"name: db\nimage: db:1\n",
	"name: app\ndepends_on: [db]\ncontainers:\n  php: {image: \"php:8\"}\n  nginx: {image: \"nginx:1\", depends_on: [php]}\n",
	"name: web\nimage: web:1\ndepends_on: [app]\n",
}

// goesDown starts a shutdown and gives its result.
func (d *daemon) goesDown(budget time.Duration) <-chan api.ShutdownResult {
	done := make(chan api.ShutdownResult, 1)
	go func() {
		res, err := d.Shutdown(d.t.Context(), api.ShutdownRequest{Budget: unit.Duration(budget)}, "tester")
		if err != nil && !errors.Is(err, api.ErrAborted) {
			d.t.Error(err)
		}
		done <- res
	}()
	return done
}

func (d *daemon) attemptsOf(name string) api.Instance {
	d.t.Helper()
	return d.unit(name).Instances[0]
}

// TestShutdownInOrder: everything stops in order, nothing else changes, and the next daemon
// starts it again, without any of it counting as a crash.
func TestShutdownInOrder(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(append(stack, "name: idle\nimage: idle:1\n", "name: once\nimage: once:1\nrestart: \"no\"\n")...)
		time.Sleep(time.Minute)
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"idle"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		before := len(w.Runtime.Log())
		res := <-d.goesDown(0)
		var stops []string
		for _, what := range w.Runtime.Log()[before:] {
			if name, ok := strings.CutPrefix(what, "exit "); ok && name != "once.1" {
				stops = append(stops, name)
			}
			if strings.HasPrefix(what, "start ") {
				t.Errorf("after the shutdown began: %s", what)
			}
		}
		if want := []string{"web.1", "app.1/nginx", "app.1/php", "db.1"}; !slices.Equal(stops, want) {
			t.Errorf("stopped %v", stops)
		}
		order := slices.DeleteFunc(slices.Clone(res.Stopped), func(s string) bool { return s == "once" })
		if !slices.Equal(order, []string{"web", "app", "db"}) || len(res.Stopped) != 4 || len(res.Killed) > 0 || len(res.Left) > 0 {
			t.Errorf("%+v", res)
		}
		time.Sleep(time.Hour)
		d.want("db", plan.StateStopped)
		if u := d.unit("db"); u.Intent != "running" || u.Instances[0].Exit.Cause != causeShutdown {
			t.Errorf("%+v", u)
		}
		d.end()
		for range 2 { // also the one after the next
			d = begin(t, o)
			time.Sleep(time.Minute)
			for _, name := range []string{"db", "app", "web"} {
				d.want(name, plan.StateRunning)
				if i := d.attemptsOf(name); i.Restarts != 0 || i.Attempt != 0 {
					t.Errorf("%s: counted as a crash: %+v", name, i)
				}
			}
			d.want("idle", plan.StateStopped)
			if s := d.state("once"); s != plan.StateCompleted && s != plan.StateFailed {
				t.Errorf("what runs once is %s", s)
			}
			exits := d.exitsOf("web")
			if len(exits) != 1 || exits[0].Exit.Cause != causeShutdown || !exits[0].Stopped {
				t.Errorf("%+v", exits)
			}
			d.end()
		}
		if n := w.Runtime.Starts("once.1"); n != 1 {
			t.Errorf("what runs once was started %d times", n)
		}
	})
}

// TestShutdownAfterReboot: the same if the host has really gone down, and the keeper knows
// nothing any more.
func TestShutdownAfterReboot(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(stack...)
		time.Sleep(time.Minute)
		<-d.goesDown(0)
		d.end()
		w.Runtime.Restart(true)
		d = begin(t, o)
		defer d.end()
		time.Sleep(time.Minute)
		if i := d.attemptsOf("web"); d.state("web") != plan.StateRunning || i.Restarts != 0 || i.Attempt != 0 {
			t.Errorf("%+v", i)
		}
		d.empty(w)
	})
}

// TestShutdownBudget: what does not heed its stop signal is killed when its share is used up,
// and the levels after it have theirs.
func TestShutdownBudget(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{IgnoreStop: true}
		}
		d := begin(t, o)
		defer d.end()
		files := slices.Clone(stack)
		for i := range files {
			files[i] = strings.ReplaceAll(files[i]+"stop_grace_period: 1h\n", "stop_grace_period: 1h\n", "")
		}
		files[0] += "stop_grace_period: 1h\n"
		files[2] += "stop_grace_period: 1h\n"
		files[1] = strings.ReplaceAll(files[1], "depends_on: [php]}", "depends_on: [php], stop_grace_period: 1h}")
		files[1] = strings.ReplaceAll(files[1], "\"php:8\"}", "\"php:8\", stop_grace_period: 1h}")
		d.apply(files...)
		time.Sleep(time.Minute)
		began := time.Now()
		res := <-d.goesDown(40 * time.Second)
		if took := time.Since(began); took > 41*time.Second || took < 39*time.Second {
			t.Errorf("took %s", took)
		}
		if want := []string{"web.1", "app.1/nginx", "app.1/php", "db.1"}; !slices.Equal(res.Killed, want) {
			t.Errorf("killed %v", res.Killed)
		}
		for i, name := range []string{"web", "app", "db"} {
			x := d.exitsOf(name)[0]
			if at := x.At.Sub(began).Round(time.Second); at != []time.Duration{10, 30, 40}[i]*time.Second || x.Exit.Cause != causeKilled {
				t.Errorf("%s ended after %s: %+v", name, at, x)
			}
		}
		var told []string
		for e, err := range d.Events(t.Context(), 0, false) {
			if err == nil && e.Type == event.Shutdown && e.Instance != "" {
				told = append(told, api.JoinTarget(e.Instance, e.Container)+" "+e.Message)
			}
		}
		if len(told) != 4 || told[1] != "app.1/nginx it did not end in its time, and was killed" {
			t.Errorf("%q", told)
		}
	})
}

// TestShutdownLeavesTimeUnused: a level that ends at once leaves its time to the next one.
func TestShutdownLeavesTimeUnused(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{IgnoreStop: c.Unit == "db"}
		}
		d := begin(t, o)
		defer d.end()
		files := slices.Clone(stack)
		files[0] += "stop_grace_period: 25s\n"
		files[2] += "stop_grace_period: 1h\n"
		d.apply(files...)
		time.Sleep(time.Minute)
		began := time.Now()
		<-d.goesDown(30 * time.Second)
		if took := time.Since(began); took < 25*time.Second || took > 26*time.Second {
			t.Errorf("took %s, not the grace period of db", took)
		}
	})
}

// TestShutdownOfWhatNothingEnds: it is named, and holds up neither the others nor the host.
func TestShutdownOfWhatNothingEnds(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{Stuck: c.Unit == "web", IgnoreStop: c.Unit == "web"}
		}
		d := begin(t, o)
		d.apply(stack...)
		time.Sleep(time.Minute)
		began := time.Now()
		res := <-d.goesDown(20 * time.Second)
		if took := time.Since(began); took > 23*time.Second {
			t.Errorf("took %s", took)
		}
		if !slices.Equal(res.Left, []string{"web.1"}) || !slices.Equal(res.Stopped, []string{"app", "db"}) {
			t.Errorf("%+v", res)
		}
		d.end()
	})
}

// TestShutdownStartsNothing: whoever asks is told why not, and nothing heals.
func TestShutdownStartsNothing(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, n int) supervisortest.Script {
			switch c.Unit {
			case "flaky":
				return supervisortest.Script{RunsFor: 5 * time.Second, Exit: runtime.Exit{Code: 1}, IgnoreStop: true}
			case "late":
				return supervisortest.Script{StartTakes: 10 * time.Second}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web, "name: flaky\nimage: f:1\n", "name: off\nimage: o:1\n")
		time.Sleep(2 * time.Second)
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"off"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		d.apply("name: late\nimage: l:1\n")
		go func() {
			_, err := d.Start(t.Context(), api.ActRequest{Units: []string{"late"}}, "tester")
			started <- err
		}()
		time.Sleep(time.Second)
		done := d.goesDown(time.Minute)
		if err := <-started; !errors.Is(err, api.ErrShuttingDown) {
			t.Errorf("a start that was under way: %v", err)
		}
		<-done
		starts := w.Runtime.Starts("flaky.1")
		for what, err := range map[string]error{
			"start":   second(d.Start(t.Context(), api.ActRequest{Units: []string{"off"}}, "tester")),
			"restart": second(d.Restart(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester")),
			"rm":      second(d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester")),
			"apply":   second(d.tryApply("name: new\nimage: n:1\n")),
			"run":     second(d.RunUnit(t.Context(), api.RunRequest{Unit: unit.Unit{Replicas: 1, Containers: []unit.Container{{Name: unit.OnlyContainer, Image: "n:1"}}}}, "tester", nil)),
		} {
			if !errors.Is(err, api.ErrShuttingDown) || !strings.Contains(err.Error(), "the host is shutting down") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if w := d.Info().Warnings; len(w) != 1 || !strings.Contains(w[0], "the host goes down") {
			t.Errorf("%q", w)
		}
		time.Sleep(time.Hour)
		if n := w.Runtime.Starts("flaky.1"); n != starts || len(w.Runtime.Running("")) > 0 {
			t.Errorf("%d starts, then %d", starts, n)
		}
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Error("an intent to stop:", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestShutdownCalledOff: what was stopped starts again, and who waits is told.
func TestShutdownCalledOff(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{IgnoreStop: c.Unit == "app"}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(stack...)
		time.Sleep(time.Minute)
		db := w.Runtime.Running("db.1")
		waiting := make(chan error, 1)
		go func() {
			_, err := d.Shutdown(t.Context(), api.ShutdownRequest{}, "tester")
			waiting <- err
		}()
		time.Sleep(time.Second)
		d.want("web", plan.StateStopped)
		if err := d.CancelShutdown(t.Context(), "operator"); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; !errors.Is(err, api.ErrAborted) || !strings.Contains(err.Error(), "operator") {
			t.Errorf("the one who waits hears: %v", err)
		}
		time.Sleep(time.Minute)
		for _, name := range []string{"db", "app", "web"} {
			d.want(name, plan.StateRunning)
		}
		if got := w.Runtime.Running("db.1"); !slices.Equal(got, db) {
			t.Errorf("db was stopped: %v, %v", db, got)
		}
		if len(d.Info().Warnings) > 0 {
			t.Errorf("%q", d.Info().Warnings)
		}
		mustIs(t, d.CancelShutdown(t.Context(), "operator"), ErrInvalid)
		d.empty(w)
	})
}

// TestShutdownAmidStops: a stop that is under way gets no more time than the shutdown has, and a
// second shutdown may be in more of a hurry than the first.
func TestShutdownAmidStops(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script { return supervisortest.Script{IgnoreStop: true} }
		d := begin(t, o)
		defer d.end()
		d.apply("name: slow\nimage: s:1\nstop_grace_period: 1h\n", "name: slower\nimage: s:1\nstop_grace_period: 1h\n")
		time.Sleep(time.Minute)
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"slow"}, NoWait: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		began := time.Now()
		first, second := d.goesDown(time.Minute), (<-chan api.ShutdownResult)(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		second = d.goesDown(10 * time.Second)
		res := <-first
		<-second
		if took := time.Since(began); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("took %s", took)
		}
		slices.Sort(res.Killed)
		if !slices.Equal(res.Killed, []string{"slow.1", "slower.1"}) {
			t.Errorf("%+v", res)
		}
		if u := d.unit("slow"); u.Intent != "stopped" {
			t.Errorf("%+v", u)
		}
	})
}

// TestShutdownHooks: the hooks before a stop are run, within the share, and leave the signal a
// moment.
func TestShutdownHooks(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{Exec: func(runtime.Process) (time.Duration, runtime.Exit) { return time.Hour, runtime.Exit{} }}
		}
		d := begin(t, o)
		defer d.end()
		d.apply("name: slow\nimage: s:1\nstop_grace_period: 2h\npre_stop: [{command: [drain]}]\n")
		time.Sleep(time.Minute)
		began := time.Now()
		res := <-d.goesDown(30 * time.Second)
		if took := time.Since(began).Round(time.Second); took != 29*time.Second || len(res.Killed) > 0 {
			t.Errorf("took %s: %+v", took, res)
		}
		if got := w.Runtime.Log(); !slices.Contains(got, "exec drain slow.1") || !slices.Contains(got, "stop slow.1") {
			t.Errorf("%q", got)
		}
	})
}

// TestShutdownCalledOffWithinARun: a container whose back-off ends while the host goes down starts again once that is
// called off, in a run that has not been stopped yet.
func TestShutdownCalledOffWithinARun(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, n int) supervisortest.Script {
			switch {
			case c.Unit == "front":
				return supervisortest.Script{IgnoreStop: true}
			case c.Container == "side" && n == 1:
				return supervisortest.Script{RunsFor: 59 * time.Second, Exit: runtime.Exit{Code: 1}}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(`name: shop
restart_policy: {condition: any, delay: 10s}
containers:
  main: {image: a}
  side: {image: a, essential: false}
`, "name: front\nimage: a\ndepends_on: [shop]\nstop_grace_period: 1h\n")
		time.Sleep(time.Minute)
		d.goesDown(2 * time.Minute)
		time.Sleep(20 * time.Second)
		d.wantContainers("main running", "side backoff")
		if err := d.CancelShutdown(t.Context(), "operator"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		d.wantContainers("main running", "side running")
	})
}
