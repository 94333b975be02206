package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// hookScript has each hook take some time and end with a code: "warm 2s 0".
func hookScript(c runtime.Config, n int) supervisortest.Script {
	return supervisortest.Script{Exec: func(p runtime.Process) (time.Duration, runtime.Exit) {
		var takes string
		var x runtime.Exit
		fmt.Sscan(strings.Join(p.Args[1:], " "), &takes, &x.Code)
		d, err := time.ParseDuration(takes)
		if err != nil {
			panic(err)
		}
		return d, x
	}}
}

const hooky = web + "stop_grace_period: 10s\n"

func withHooks(t *testing.T, f func(t *testing.T, w *supervisortest.World, o Options)) {
	t.Helper()
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = hookScript
		f(t, w, o)
	})
}

// hookEvents are the messages of hooks so far.
func (d *daemon) hookEvents() []string {
	var list []string
	for _, e := range d.events(event.Hook) {
		list = append(list, e.Message)
	}
	return list
}

func (d *daemon) mustStop(unit string) time.Duration {
	d.t.Helper()
	began := time.Now()
	if _, err := d.Stop(d.t.Context(), api.ActRequest{Units: []string{unit}}, "tester"); err != nil {
		d.t.Fatal(err)
	}
	return time.Since(began)
}

func TestPostStart(t *testing.T) {
	withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(hooky + "post_start: [{command: warm 2s}, {command: fill 1s 0, user: www}]\n")
		time.Sleep(2 * time.Second)
		if got := d.state("web"); got == "running" {
			t.Error("up before its hooks have ended")
		}
		time.Sleep(2 * time.Second)
		d.want("web", "running")
		if got := w.Runtime.Log(); !slices.Equal(got, []string{"start web.1", "exec warm 2s web.1", "exec fill 1s 0 web.1"}) {
			t.Errorf("%q", got)
		}
		if got := d.hookEvents(); !slices.Equal(got, []string{"post_start warm 2s: done", "post_start fill 1s 0: done"}) {
			t.Errorf("%q", got)
		}
		for _, e := range d.events(event.Hook) {
			if e.Unit != "web" || e.Instance != "web.1" || e.Run == "" || e.Container != "" || e.Fields["output"] == "" {
				t.Errorf("%+v", e)
			}
		}
		d.empty(w)
	})
}

func TestPostStartFails(t *testing.T) {
	for _, c := range []struct{ hooks, want string }{
		{"{command: warm 1s 3}", "post_start: warm 1s 3: exited with code 3: warm 1s 3"},
		{"{command: warm 1h}", "post_start: warm 1h: killed after 1m0s: warm 1h"},
		{"{command: warm 1h, timeout: 5s}", "post_start: warm 1h: killed after 5s: warm 1h"},
	} {
		withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
			d := begin(t, o)
			defer d.end()
			d.apply(hooky + "restart: \"no\"\npost_start: [" + c.hooks + "]\n")
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			failed := d.events(event.StartFailed)
			if len(failed) != 1 || failed[0].Step != stepPostStart || failed[0].Message != c.want {
				t.Errorf("%+v", failed)
			}
			if n := len(w.Runtime.Running("web.1")); n != 0 || slices.Contains(d.types("web"), event.Start) {
				t.Errorf("%d runs of a container whose hook failed: %v", n, d.types("web"))
			}
			d.empty(w)
		})
	}
}

// TestStopDuringPostStart: nobody waits for a hook whose container is to go.
func TestStopDuringPostStart(t *testing.T) {
	withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(hooky + "post_start: [{command: warm 50s}]\n")
		time.Sleep(time.Second)
		synctest.Wait()
		if took := d.mustStop("web"); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		d.want("web", "stopped")
		d.empty(w)
	})
}

func TestPreStop(t *testing.T) {
	for _, c := range []struct {
		hooks string
		took  time.Duration
		want  []string
	}{
		{"{command: drain 3s}", 3 * time.Second, []string{"pre_stop drain 3s: done"}},
		{"{command: drain 3s 1}, {command: flush 1s}", 4 * time.Second,
			[]string{"pre_stop drain 3s 1: exited with code 1: drain 3s 1", "pre_stop flush 1s: done"}},
		{"{command: drain 1h}, {command: flush 1s}", 10 * time.Second, []string{"pre_stop drain 1h: killed after 10s: drain 1h"}},
		{"{command: drain 1h, timeout: 2s}, {command: flush 1s}", 3 * time.Second,
			[]string{"pre_stop drain 1h: killed after 2s: drain 1h", "pre_stop flush 1s: done"}},
	} {
		withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
			d := begin(t, o)
			defer d.end()
			d.apply(hooky + "pre_stop: [" + c.hooks + "]\n")
			synctest.Wait()
			if took := d.mustStop("web"); took != c.took {
				t.Errorf("%s: the stop took %v, want %v", c.hooks, took, c.took)
			}
			if got := d.hookEvents(); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			if log := w.Runtime.Log(); !slices.Contains(log, "stop web.1") {
				t.Errorf("%q", log)
			}
			d.empty(w)
		})
	}
}

// TestHurriedPreStop: whoever kills a unit does not wait for its hooks, also if they have begun.
func TestHurriedPreStop(t *testing.T) {
	withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(hooky + "pre_stop: [{command: drain 8s}]\n")
		synctest.Wait()
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}, NoWait: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		began := time.Now()
		if _, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}, Force: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("a removal by force took %v", took)
		}
	})
}

// TestDaemonDiesDuringPreStop: the next one goes on with the stop; the hook is not run again.
func TestDaemonDiesDuringPreStop(t *testing.T) {
	for _, how := range []string{"fault", "end"} {
		t.Run(how, func(t *testing.T) {
			withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
				dying := o
				if how == "fault" {
					dying.hooks.fault = dieAt(preStop, 1)
				}
				d := begin(t, dying)
				d.apply(hooky + "pre_stop: [{command: drain 5s}]\n")
				synctest.Wait()
				if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}, NoWait: true}, "tester"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if how == "end" {
					d.end()
				} else if err := <-d.ended; !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				d = begin(t, o)
				defer d.end()
				time.Sleep(time.Minute)
				d.want("web", "stopped")
				n := 0
				for _, l := range w.Runtime.Log() {
					if strings.HasPrefix(l, "exec drain") {
						n++
					}
				}
				if n > 1 {
					t.Errorf("the hook was run %d times: %q", n, w.Runtime.Log())
				}
				// A later stop has its hooks again.
				if _, err := d.Start(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if took := d.mustStop("web"); took != 5*time.Second {
					t.Errorf("the next stop took %v", took)
				}
				d.empty(w)
			})
		})
	}
}

// TestDaemonDiesDuringPostStart: the hook is run again in the container that is found.
func TestDaemonDiesDuringPostStart(t *testing.T) {
	for _, c := range []struct {
		hook   string
		starts int
	}{{"warm 5s", 1}, {"warm 5s 1", 2}} {
		withHooks(t, func(t *testing.T, w *supervisortest.World, o Options) {
			var dead atomic.Bool
			dying := o
			dying.hooks.fault = func(string) bool { return dead.Load() }
			d := begin(t, dying)
			d.apply(hooky + "restart_policy: {condition: any, delay: 30s, multiplier: 1, jitter: 0}\npost_start: [{command: " + c.hook + "}]\n")
			time.Sleep(2 * time.Second)
			synctest.Wait()
			dead.Store(true) // nothing is undone
			d.end()
			d = begin(t, o)
			defer d.end()
			time.Sleep(37 * time.Second)
			synctest.Wait()
			log := w.Runtime.Log()
			if count(log, "start web.1") != c.starts || count(log, "exec "+c.hook+" web.1") != c.starts+1 {
				t.Errorf("%s: %q", c.hook, log)
			}
			d.empty(w)
		})
	}
}
