package supervisor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

const limitedWeb = web + "replicas: 2\nresources: {limits: {memory: 64MiB}}\n"

func memory(n int64) unit.LimitsChange { return unit.LimitsChange{Memory: &n} }

func TestFileWithOtherLimitsRestartsNothing(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(limitedWeb)
		before := d.unit("web").Instances
		res := d.apply(strings.Replace(limitedWeb, "64MiB", "96MiB", 1))
		if len(res.Actions) != 2 || res.Actions[0].Kind != "update" || res.Units[0].Revision != 2 {
			t.Errorf("%+v", res)
		}
		u := d.unit("web")
		for i, now := range u.Instances {
			if now.Run != before[i].Run || now.Pid != before[i].Pid {
				t.Errorf("replaced: %+v by %+v", before[i], now)
			}
			if l := w.Runtime.Limits(now.Run + ".app"); l == nil || l.Memory != 96<<20 {
				t.Errorf("%s has %+v", now.Name, l)
			}
		}
		updates := strings.Count(strings.Join(w.Runtime.Log(), "\n"), "update")
		// The next daemon knows what they have.
		d.end()
		d = begin(t, o)
		defer d.end()
		d.want("web", "running")
		if n := strings.Count(strings.Join(w.Runtime.Log(), "\n"), "update"); n != updates || updates != 2 {
			t.Errorf("%d updates, then %d", updates, n)
		}
	})
}

func TestUpdateByHand(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(limitedWeb)
		pid := d.unit("web").Instances[0].Pid
		res, err := d.Update(t.Context(), api.UpdateRequest{Units: []string{"web"}, Change: memory(128 << 20)}, "alice")
		if err != nil || len(res.Units) != 1 || res.Units[0].Revision != 2 || res.Units[0].Fields[0].New != "128MiB" {
			t.Fatalf("%+v, %v", res, err)
		}
		u := d.unit("web")
		if l := w.Runtime.Limits(u.Instances[1].Run + ".app"); u.Instances[0].Pid != pid || l == nil || l.Memory != 128<<20 {
			t.Errorf("%+v, %+v", u, l)
		}
		detail, err := d.Unit(t.Context(), "web")
		if err != nil || detail.Revisions[0].By != "alice" || !slices.Contains(d.types("web"), event.Update) {
			t.Errorf("%+v, %v, %v", detail.Revisions, err, d.types("web"))
		}
		// The same file takes nothing back, a changed one does.
		if res := d.apply(limitedWeb); res.Units[0].Change != "unchanged" || len(res.Warnings) != 1 {
			t.Errorf("the same file: %+v", res)
		}
		if res := d.apply(strings.Replace(limitedWeb, "64MiB", "80MiB", 1)); res.Units[0].Change != "update" {
			t.Errorf("another file: %+v", res)
		}
		u = d.unit("web")
		if l := w.Runtime.Limits(u.Instances[0].Run + ".app"); l.Memory != 80<<20 || u.Instances[0].Pid != pid {
			t.Errorf("%+v", l)
		}
		if res, err := d.Update(t.Context(), api.UpdateRequest{Units: []string{"web"}, Change: memory(80 << 20)}, "alice"); err != nil || res.Units[0].Change != "unchanged" {
			t.Errorf("%+v, %v", res, err)
		}
		for _, bad := range []api.UpdateRequest{{}, {Units: []string{"web"}}, {Change: memory(1 << 30)}, {Units: []string{"web"}, Change: memory(1)},
			{Units: []string{"web"}, Container: "none", Change: memory(1 << 30)}, {Units: []string{"none"}, Change: memory(1 << 30)}} {
			if _, err := d.Update(t.Context(), bad, "alice"); err == nil {
				t.Errorf("%+v was accepted", bad)
			}
		}
	})
}

func TestUpdateThatFailsIsTriedAgain(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		busy := errors.New("limit memory: more is in use")
		var inUse atomic.Bool
		w.Runtime.Refuse = func(cgroup.Limits) error {
			if inUse.Load() {
				return busy
			}
			return nil
		}
		d := begin(t, o)
		defer d.end()
		d.apply(limitedWeb)
		d.want("web", "running")
		inUse.Store(true)
		_, err := d.Update(t.Context(), api.UpdateRequest{Units: []string{"web"}, Change: memory(32 << 20)}, "alice")
		if err == nil || !strings.Contains(err.Error(), "more is in use") || !strings.Contains(err.Error(), "web.1") {
			t.Errorf("got %v", err)
		}
		d.want("web", "running")
		inUse.Store(false)
		time.Sleep(5 * time.Second)
		u := d.unit("web")
		for _, i := range u.Instances {
			if l := w.Runtime.Limits(i.Run + ".app"); l == nil || l.Memory != 32<<20 {
				t.Errorf("%s has %+v", i.Name, l)
			}
		}
	})
}

// TestUpdateThatIsSlow: that a try took too long is no answer yet, for the next one follows.
func TestUpdateThatIsSlow(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		var slow atomic.Int64
		w.Runtime.Refuse = func(cgroup.Limits) error {
			if slow.Add(-1) >= 0 {
				return context.DeadlineExceeded
			}
			return nil
		}
		d := begin(t, o)
		defer d.end()
		d.apply(limitedWeb)
		d.want("web", "running")
		slow.Store(3)
		if _, err := d.Update(t.Context(), api.UpdateRequest{Units: []string{"web"}, Change: memory(32 << 20)}, "alice"); err != nil {
			t.Error(err)
		}
		slow.Store(1000)
		_, err := d.Update(t.Context(), api.UpdateRequest{Units: []string{"web"}, Change: memory(48 << 20)}, "alice")
		if !errors.Is(err, ErrTimeout) || !errors.Is(err, errSlow) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("always slow: %v", err)
		}
	})
}

// TestEndDuringUpdate: less memory may be the end of a container before the update is answered.
func TestEndDuringUpdate(t *testing.T) {
	for _, text := range []string{limitedWeb, "name: web\nreplicas: 2\ncontainers:\n  main: {image: a, essential: true, resources: {limits: {memory: 64MiB}}}\n  side: {image: b, essential: false}\n"} {
		world(t, func(t *testing.T, w *supervisortest.World, o Options) {
			w.Runtime.Refuse = func(cgroup.Limits) error {
				time.Sleep(time.Second)
				return nil
			}
			d := begin(t, o)
			defer d.end()
			d.apply(text)
			d.want("web", "running")
			before := w.Runtime.Running("web.1")
			d.apply(strings.Replace(text, "64MiB", "32MiB", 1))
			app := "web.1"
			if strings.Contains(text, "side") {
				app = "web.1/main"
			}
			w.Runtime.End(app, runtime.Exit{Signal: "SIGKILL", OOM: true})
			time.Sleep(20 * time.Second) // the plan of everything comes later
			d.want("web", "running")
			if now := w.Runtime.Running("web.1"); len(now) != 1 || now[0] == before[0] {
				t.Errorf("running of web.1: %v, before %v", now, before)
			}
			d.empty(w)
		})
	}
}

// TestUpdateOfWhatIsBeingStarted: a container that is started again as the limits change gets the new ones, whichever is first.
func TestUpdateOfWhatIsBeingStarted(t *testing.T) {
	const text = "name: web\ncontainers:\n  main: {image: a, essential: true}\n  side: {image: b, essential: false, resources: {limits: {memory: 64MiB}}}\n"
	for name, takes := range map[string]struct{ start, update time.Duration }{"start": {5 * time.Second, 0}, "update": {0, 5 * time.Second}} {
		t.Run(name+" first", func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
					if n > 1 {
						return supervisortest.Script{StartTakes: takes.start}
					}
					return supervisortest.Script{}
				}
				w.Runtime.Refuse = func(cgroup.Limits) error {
					time.Sleep(takes.update)
					return nil
				}
				d := begin(t, o)
				defer d.end()
				d.apply(text)
				d.want("web", "running")
				end := func() { w.Runtime.End("web.1/side", runtime.Exit{Code: 1}) }
				if takes.start > 0 {
					end()
					time.Sleep(time.Second)
				}
				d.apply(strings.Replace(text, "64MiB", "96MiB", 1))
				if takes.update > 0 {
					time.Sleep(takes.update * 3 / 2) // it is the second one
					end()
				}
				time.Sleep(30 * time.Second)
				d.want("web", "running")
				c := w.Runtime.Config("web.1/side")
				has := *c.Spec.Linux.Resources.Memory.Limit
				if l := w.Runtime.Limits(c.ID()); l != nil {
					has = l.Memory
				}
				if has != 96<<20 {
					t.Errorf("it has %d", has)
				}
				if u := d.unit("web"); u.Instances[0].Revision != 1 || w.Runtime.Starts("web.1/main") != 1 {
					t.Errorf("replaced: %+v", u.Instances)
				}
			})
		})
	}
}

func TestPauseKillResume(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(limitedWeb)
		d.want("web", "running")
		names, err := d.Pause(t.Context(), api.TargetsRequest{Targets: []string{"web.1", "web"}}, "alice")
		if err != nil || !slices.Equal(names, []string{"web.1", "web.2"}) {
			t.Fatalf("%v, %v", names, err)
		}
		if u := d.unit("web"); u.Instances[0].State != "paused" || u.State != "paused" || u.Running != 2 || u.Instances[0].Containers[0].State != "paused" {
			t.Errorf("%+v", u)
		}
		d.end()
		d = begin(t, o)
		defer d.end()
		if u := d.unit("web"); u.Instances[1].State != "paused" {
			t.Errorf("the next daemon: %+v", u)
		}
		if _, err := d.Resume(t.Context(), api.TargetsRequest{Targets: []string{"web.2"}}, "alice"); err != nil {
			t.Fatal(err)
		}
		if u := d.unit("web"); u.State != "running" || u.Instances[0].State != "paused" || u.Instances[1].State != "running" {
			t.Errorf("%+v", u)
		}
		if _, err := d.Kill(t.Context(), api.KillRequest{TargetsRequest: api.TargetsRequest{Targets: []string{"web.1"}}, Signal: "HUP"}, "alice"); err != nil {
			t.Fatal(err)
		}
		if u := d.unit("web"); u.Instances[0].State != "running" || u.Intent != "running" || !slices.Contains(w.Runtime.Log(), "signal HUP web.1") {
			t.Errorf("%+v, %v", u, w.Runtime.Log())
		}
		if _, err := d.Pause(t.Context(), api.TargetsRequest{Targets: []string{"none"}}, ""); !errors.Is(err, ErrNoSuchUnit) {
			t.Errorf("got %v", err)
		}
	})
}
