package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func TestApplyRunsAndRemoveLeavesNothing(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		res := d.apply(web + "replicas: 2\nports: [\"80:8080\"]\n")
		if len(res.Units) != 1 || res.Units[0].Change != "create" || len(res.Actions) != 2 {
			t.Fatalf("%+v", res)
		}
		d.want("web", "running")
		u := d.unit("web")
		if u.Running != 2 || u.Instances[0].Address == "" || u.Instances[1].Pid == 0 {
			t.Fatalf("%+v", u)
		}
		if res := d.apply(web + "replicas: 2\nports: [\"80:8080\"] # the same\n"); res.Units[0].Change != "unchanged" || res.Units[0].Revision != 1 {
			t.Fatalf("second apply: %+v", res)
		}
		d.empty(w)
		if got := d.types("web"); !slices.Contains(got, event.Start) || got[len(got)-1] != event.Remove {
			t.Errorf("events: %v", got)
		}
	})
}

func TestCrashHealsWithBackoff(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
			if n <= 4 {
				return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: 3}}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web + "restart_policy: {delay: 1s, multiplier: 2, jitter: 0}\n")
		// It runs for a second four times; the waits between are 1, 2, 4 and 8 s.
		for _, at := range []struct {
			after time.Duration
			state string
			n     int
		}{{1500 * time.Millisecond, "backoff", 1}, {time.Second, "running", 2}, {2 * time.Second, "backoff", 2},
			{time.Second, "running", 3}, {4 * time.Second, "backoff", 3}} {
			time.Sleep(at.after)
			d.want("web", at.state)
			if n := w.Runtime.Starts("web.1"); n != at.n {
				t.Fatalf("%d starts, want %d", n, at.n)
			}
		}
		u := d.unit("web")
		if u.Instances[0].NextTry.IsZero() || u.Instances[0].Attempt != 3 || u.Instances[0].Exit.Code != 3 || !strings.Contains(u.Reason, "code 3") {
			t.Errorf("in back-off: %+v", u)
		}
		time.Sleep(time.Minute)
		d.want("web", "running")
		if u := d.unit("web"); u.Restarts != 4 {
			t.Errorf("%d restarts, want 4", u.Restarts)
		}
		if count(d.types("web"), event.Backoff) != 4 {
			t.Errorf("events: %v", d.types("web"))
		}
		d.empty(w)
	})
}

func TestBackoffSurvivesDaemon(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{RunsFor: time.Millisecond, Exit: runtime.Exit{Code: 1}}
		}
		d := begin(t, o)
		d.apply(web + "restart_policy: {delay: 1m, max_delay: 10m, multiplier: 2, jitter: 0}\n")
		time.Sleep(90 * time.Second) // the second run has ended; two minutes to wait
		before := d.unit("web").Instances[0]
		d.end()
		d = begin(t, o)
		defer d.end()
		after := d.unit("web").Instances[0]
		if after.Attempt != 2 || !after.NextTry.Equal(before.NextTry) || after.Exit == nil || after.Exit.Code != 1 {
			t.Fatalf("before %+v\nafter %+v", before, after)
		}
		time.Sleep(60 * time.Second)
		if n := w.Runtime.Starts("web.1"); n != 2 {
			t.Fatalf("%d starts before the back-off was over", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.Runtime.Starts("web.1"); n != 3 {
			t.Fatalf("%d starts after the back-off was over", n)
		}
		d.empty(w)
	})
}

func TestFailedStartIsRetriedAndNamesTheStep(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Network.Take(80)
		d := begin(t, o)
		defer d.end()
		d.apply(web + "ports: [\"80:8080\"]\n")
		time.Sleep(time.Second)
		u := d.unit("web")
		if u.State != "backoff" || u.Instances[0].Error != "network: port 80: address already in use" {
			t.Fatalf("%+v", u)
		}
		if left := w.Leftovers(); len(left) > 0 {
			t.Fatalf("a failed start left %v", left)
		}
		_, err := d.Start(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester")
		mustIs(t, err, network.ErrPortTaken)
		if want := "unit web: container web.1: network: port 80: address already in use"; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		w.Network.Free(80)
		time.Sleep(time.Minute)
		d.want("web", "running")
		d.empty(w)
	})
}

func TestPullFailureIsRetried(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Fail = func(_ string, n int) error {
			if n < 3 {
				return errors.New("connection refused")
			}
			return nil
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "backoff")
		time.Sleep(10 * time.Second)
		d.want("web", "running")
		d.empty(w)
	})
}

func TestStopIsRemembered(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		d.want("web", "stopped")
		if len(w.Network.Leases()) > 0 {
			synctest.Wait()
			t.Error("a stopped unit holds an address")
		}
		d.end()
		d = begin(t, o)
		defer d.end()
		time.Sleep(time.Hour)
		d.want("web", "stopped")
		if res := d.apply("name: web\nimage: nginx:2\n"); len(res.Warnings) == 0 {
			t.Error("apply of a stopped unit gave no warning")
		}
		d.want("web", "stopped")
		if _, err := d.Start(t.Context(), api.ActRequest{Units: []string{"we"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		if u := d.unit("web"); u.State != "running" || u.Revision != 2 {
			t.Fatalf("%+v", u)
		}
		d.empty(w)
	})
}

func TestDependenciesStartInOrder(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{StartTakes: time.Second}
		}
		d := begin(t, o)
		defer d.end()
		d.apply("name: a\nimage: i\ndepends_on: [b]\n", "name: b\nimage: i\ndepends_on: [c]\n", "name: c\nimage: i\n")
		d.want("a", "waiting")
		time.Sleep(10 * time.Second)
		d.want("a", "running")
		if got := w.Runtime.Log(); !slices.Equal(got, []string{"start c.1", "start b.1", "start a.1"}) {
			t.Fatalf("%v", got)
		}
		_, err := d.tryApply("name: c\nimage: i\ndepends_on: [a]\n")
		mustIs(t, err, ErrInvalid)
		_, err = d.tryApply("name: d\nimage: i\ndepends_on: [nobody]\n")
		mustIs(t, err, ErrInvalid)
		d.empty(w)
	})
}

func TestApplyIsAllOrNothing(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		_, err := d.tryApply(web, "name: bad\nimag: x\n")
		mustIs(t, err, ErrInvalid)
		if !strings.Contains(err.Error(), "f1.yaml:2:1") {
			t.Errorf("error without a place: %v", err)
		}
		_, err = d.tryApply("name: a\nimage: i\nports: [\"80:1\"]\n", "name: b\nimage: i\nports: [\"127.0.0.1:80:2\"]\n")
		mustIs(t, err, ErrExists)
		if len(d.Units()) > 0 || len(w.Runtime.Log()) > 0 {
			t.Fatal("something was applied")
		}
		res, err := d.Apply(t.Context(), api.ApplyRequest{DryRun: true, Files: []api.File{{Source: "/web.yaml", Text: web}}}, "tester")
		if err != nil || len(res.Actions) != 1 || d.state("web") != "none" {
			t.Fatalf("dry run: %+v %v", res, err)
		}
	})
}

func TestNewRevisionReplacesOneByOne(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web + "replicas: 3\n")
		d.want("web", "running")
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{StartTakes: time.Second}
		}
		res := d.apply("name: web\nimage: nginx:2\nreplicas: 3\n")
		if res.Units[0].Change != "update" || res.Units[0].Revision != 2 || len(res.Units[0].Fields) == 0 {
			t.Fatalf("%+v", res.Units)
		}
		for range 30 {
			if u := d.unit("web"); u.Running < 2 {
				t.Fatalf("only %d of 3 run during the update", u.Running)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		u := d.unit("web")
		for _, i := range u.Instances {
			if i.Revision != 2 || i.State != "running" {
				t.Fatalf("%+v", u)
			}
		}
		if w.Runtime.Peak("web") > 3 {
			t.Errorf("%d at once", w.Runtime.Peak("web"))
		}
		d.empty(w)
	})
}

func TestRestartReplacesAndWaits(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		old := d.unit("web").Instances[0].Run
		if _, err := d.Restart(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		if i := d.Units()[0].Instances[0]; i.Run == old || i.State != "running" {
			t.Fatalf("%+v", i)
		}
		d.empty(w)
	})
}

func TestOneDigestPerRevision(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Takes = time.Second
		d := begin(t, o)
		defer d.end()
		d.apply(web + "replicas: 3\npull_policy: always\n")
		d.want("web", "pulling")
		time.Sleep(10 * time.Second)
		d.want("web", "running")
		if n := w.Images.Pulls("nginx:1"); n != 1 {
			t.Errorf("asked the registry %d times", n)
		}
		w.Images.Push("nginx:1")
		w.Runtime.End("web.2", runtime.Exit{Code: 1})
		time.Sleep(10 * time.Second)
		if n := w.Images.Pulls("nginx:1"); n != 1 || d.state("web") != "running" {
			t.Errorf("a restart asked the registry what the revision means (%d)", n)
		}
		detail, err := d.Unit(t.Context(), "web")
		if err != nil || detail.Digest == "" || len(detail.Stats) != 3 {
			t.Fatalf("%+v %v", detail, err)
		}
		d.empty(w)
	})
}

func TestStopAbortsPull(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Takes = time.Hour
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "pulling")
		start := time.Now()
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("stop took %v", took)
		}
		d.want("web", "stopped")
		w.Images.Takes = 0
		d.empty(w)
	})
}

// A container in D state holds up nobody else.
func TestStuckContainer(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{Stuck: c.Unit == "stuck", IgnoreStop: c.Unit == "stuck"}
		}
		d := begin(t, o)
		defer d.end()
		d.apply("name: stuck\nimage: i\n", web)
		d.want("stuck", "running")
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"stuck"}, NoWait: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		d.want("stuck", "stopping")
		time.Sleep(time.Minute)
		d.want("stuck", "stuck")
		if u := d.unit("stuck"); u.Reason != "stuck: its processes do not end" || u.Instances[0].State != "stuck" {
			t.Errorf("%+v", u)
		}
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(time.Second)
		d.want("web", "running")
		if _, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestForceCutsGraceShort(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script { return supervisortest.Script{IgnoreStop: true} }
		d := begin(t, o)
		defer d.end()
		d.apply(web + "stop_grace_period: 1h\n")
		d.want("web", "running")
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}, NoWait: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		d.want("web", "stopping")
		start := time.Now()
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}, Timeout: unit.Duration(2 * time.Second)}, "tester"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("stop with a shorter grace took %v", took)
		}
		if _, err := d.Start(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		d.empty(w)
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("rm -f took %v", took)
		}
	})
}

func TestKeeperForgetsContainers(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		w.Runtime.Restart(false)
		time.Sleep(time.Second)
		if w.Runtime.Starts("web.1") != 1 {
			t.Fatal("a keeper that came back with its containers made a restart")
		}
		w.Runtime.Restart(true)
		time.Sleep(time.Second)
		u := d.unit("web")
		if u.State != "running" || w.Runtime.Starts("web.1") != 2 {
			t.Fatalf("%+v", u)
		}
		d.empty(w)
	})
}

func TestRunUnit(t *testing.T) {
	run := func(d *daemon, r api.RunRequest) (string, error) {
		return d.RunUnit(d.t.Context(), r, "tester", nil)
	}
	def := func(name string) unit.Unit {
		return unit.Unit{Name: name, Network: "host", Containers: []unit.Container{{Image: "busybox"}}}
	}
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			switch c.Unit {
			case "bad":
				return supervisortest.Script{StartErr: &runtime.StepError{Step: runtime.StepProcess, Err: runtime.ErrCommand}}
			case "long":
				return supervisortest.Script{}
			}
			return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: 7}}
		}
		d := begin(t, o)
		defer d.end()

		name, err := run(d, api.RunRequest{Unit: def("")})
		if err != nil || !strings.HasPrefix(name, "run-") {
			t.Fatal(name, err)
		}
		x, err := d.WaitExit(t.Context(), name)
		if err != nil || x.Code != 7 {
			t.Fatalf("%+v %v", x, err)
		}
		if u := d.unit(name); u.State != "failed" || u.Running != 0 {
			t.Fatalf("after its end: %+v", u)
		}

		_, err = run(d, api.RunRequest{Unit: def("bad")})
		mustIs(t, err, runtime.ErrCommand)
		if want := "unit bad: container bad.1: process: command not found"; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		if d.state("bad") != "none" {
			t.Error("a run that failed left its unit")
		}

		if _, err = run(d, api.RunRequest{Unit: def("long")}); err != nil {
			t.Fatal(err)
		}
		_, err = run(d, api.RunRequest{Unit: def("long")})
		mustIs(t, err, ErrExists)
		d.empty(w)
	})
}

func TestAutoRemove(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: 7}}
		}
		d := begin(t, o)
		defer d.end()
		def := unit.Unit{Name: "once", Containers: []unit.Container{{Image: "busybox"}}}
		if _, err := d.RunUnit(t.Context(), api.RunRequest{Unit: def, Remove: true}, "tester", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if d.state("once") != "none" {
			t.Error("a detached run --rm stays")
		}
		if x, err := d.WaitExit(t.Context(), "once"); err != nil || x.Code != 7 {
			t.Errorf("a late wait: %+v %v", x, err)
		}
		// With somebody attached who has died, the unit goes a little later.
		if _, err := d.RunUnit(t.Context(), api.RunRequest{Unit: def, Remove: true, Attach: true}, "tester", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		d.want("once", "failed")
		time.Sleep(autoGrace)
		d.want("once", "none")
		if left := w.Leftovers(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestTwoSupervisorsInOneProcess(t *testing.T) {
	roots := []Options{{Root: t.TempDir(), RunDir: t.TempDir()}, {Root: t.TempDir(), RunDir: t.TempDir()}}
	synctest.Test(t, func(t *testing.T) {
		var ds []*daemon
		for _, o := range roots {
			w := supervisortest.New()
			o.hooks = hooks{containers: w.Runtime, networks: w.Network, images: w.Images}
			ds = append(ds, begin(t, o))
		}
		ds[0].apply(web)
		ds[1].apply("name: db\nimage: redis\n")
		if ds[0].state("web") != "running" || ds[0].state("db") != "none" || ds[1].state("db") != "running" {
			t.Error("the two mix")
		}
		_, err := New(roots[0])
		mustIs(t, err, ErrBusy)
		if !strings.Contains(err.Error(), "pid") || !strings.Contains(err.Error(), roots[0].Root) {
			t.Errorf("error %v names neither path nor pid", err)
		}
		for _, d := range ds {
			if err := d.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestStopAtExit(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		o.StopAtExit = true
		d := begin(t, o)
		d.apply(web+"depends_on: [db]\n", "name: db\nimage: redis\n")
		d.want("web", "running")
		if err := d.end(); err != nil {
			t.Fatal(err)
		}
		log := w.Runtime.Log()
		if w.String() != "" || slices.Index(log, "exit web.1") > slices.Index(log, "exit db.1") {
			t.Fatalf("%s %v", w, log)
		}
		d = begin(t, o)
		d.want("web", "running") // the intent did not change
		d.end()
	})
}

func TestImageGoneFromStore(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		w.Images.Forget()
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(time.Second)
		d.want("web", "running")
		w.Images.Forget()
		d.apply("name: no\nimage: never\npull_policy: never\n")
		time.Sleep(time.Second)
		u := d.unit("no")
		if u.State != "backoff" || !strings.Contains(u.Instances[0].Error, "pull: ") {
			t.Errorf("%+v", u)
		}
		_, err := d.Start(t.Context(), api.ActRequest{Units: []string{"no"}}, "tester")
		mustIs(t, err, image.ErrNotFound)
		d.empty(w)
	})
}

func runDef() unit.Unit {
	return unit.Unit{Containers: []unit.Container{{Image: "busybox"}}}
}

// What the client leaves open about logs is as the daemon is configured.
func TestRunLogsAsConfigured(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		o.Logging = unit.Logging{MaxSize: 3 << 20, MaxFile: 5}
		d := begin(t, o)
		defer d.end()
		for opt, want := range map[string]unit.Logging{"": o.Logging, "max-file=2": {MaxSize: 3 << 20, MaxFile: 2}} {
			f := unit.RunFlags{Image: "busybox", Dir: "/"}
			if opt != "" {
				f.LogOpts = []string{opt}
			}
			def, err := unit.FromRun(f)
			if err != nil {
				t.Fatal(err)
			}
			name, err := d.RunUnit(t.Context(), api.RunRequest{Unit: def}, "tester", nil)
			if err != nil {
				t.Fatal(err)
			}
			got := w.Runtime.Config(name + ".1").Log
			if got.MaxSize != want.MaxSize || got.MaxFile != want.MaxFile {
				t.Errorf("%q: %+v, want %+v", opt, got, want)
			}
		}
	})
}

// What cannot be made durable does not happen.
func TestStateNotWritten(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		if err := d.store.Abandon(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.tryApply("name: web\nimage: nginx:2\n", "name: new\nimage: i\n"); err == nil {
			t.Error("apply without a disk worked")
		}
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err == nil {
			t.Error("stop without a disk worked")
		}
		time.Sleep(time.Second)
		if u := d.unit("web"); u.State != "running" || u.Revision != 1 || u.Intent != "running" || d.state("new") != "none" {
			t.Errorf("%+v", d.Units())
		}
		if log := w.Runtime.Log(); len(log) != 1 {
			t.Errorf("%v", log)
		}
		d.end()
	})
}

// One loop serves many units: a step must not cost what the whole host costs.
func BenchmarkThousandUnits(b *testing.B) {
	w := supervisortest.New()
	o := Options{Root: b.TempDir(), RunDir: b.TempDir()}
	o.hooks = hooks{containers: w.Runtime, networks: w.Network, images: w.Images}
	s, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	var r api.ApplyRequest
	for i := range 1000 {
		r.Files = append(r.Files, api.File{Source: fmt.Sprintf("/u%d.yaml", i), Text: "image: i\nnetwork: host\n"})
	}
	if _, err := s.Apply(ctx, r, "bench"); err != nil {
		b.Fatal(err)
	}
	if err := s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
		return !slices.ContainsFunc(snap.entries, func(e *entry) bool { return e.unit.Running == 0 }), nil
	}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for i := range b.N {
		name := fmt.Sprintf("u%d", i%1000)
		if _, err := s.Restart(ctx, api.ActRequest{Units: []string{name}}, "bench"); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	cancel()
	<-ended
}
