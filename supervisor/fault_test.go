package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

var startPoints = []string{stepPull, stepRecord, stepRootfs, stepVolumes, stepNetwork, stepFiles, stepSpec, stepProcess, "started"}
var cleanupPoints = []string{stepContainer, stepDetach, stepRelease, stepFolder}

// dieAt lets the daemon die when it comes to the point for the n-th time.
func dieAt(point string, n int32) func(string) bool {
	var seen atomic.Int32
	return func(at string) bool { return at == point && seen.Add(1) == n }
}

// settled asserts that web runs once and that everything on disk and in the
// world belongs to that one run.
func (d *daemon) settled(w *supervisortest.World) {
	d.t.Helper()
	time.Sleep(5 * time.Minute)
	d.want("web", "running")
	runs := w.Runtime.Running("web.1")
	if len(runs) != 1 {
		d.t.Fatalf("runs of web.1: %v", runs)
	}
	if left := w.Leftovers(); len(left) > 0 {
		d.t.Errorf("left over: %v", left)
	}
	folders, _ := filepath.Glob(filepath.Join(d.paths.runs(), "*"))
	folders = slices.DeleteFunc(folders, func(f string) bool { return strings.HasPrefix(filepath.Base(f), trashPrefix) })
	if len(folders) != 1 || filepath.Base(folders[0]) != runs[0] {
		d.t.Errorf("folders %v for run %v", folders, runs)
	}
	if n := len(w.Network.Leases()); n != 1 {
		d.t.Errorf("%d addresses", n)
	}
}

func TestDaemonDiesDuringStart(t *testing.T) {
	for _, point := range startPoints {
		t.Run(point, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				dying := o
				dying.hooks.fault = dieAt(point, 1)
				d := begin(t, dying)
				d.apply(web + "ports: [\"80:80\"]\nvolumes: [/data, \"named:/n\"]\n")
				if err := <-d.ended; !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				d = begin(t, o)
				defer d.end()
				d.settled(w)
				if n := len(w.Runtime.Log()); point == "started" && n != 1 {
					t.Errorf("a container that ran was not adopted: %v", w.Runtime.Log())
				}
				d.empty(w)
				if _, err := os.Stat(d.paths.volume("named")); err != nil {
					t.Error("a named volume was removed")
				}
			})
		})
	}
}

func TestDaemonDiesDuringCleanup(t *testing.T) {
	for _, point := range cleanupPoints {
		t.Run("crash/"+point, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				dying := o
				dying.hooks.fault = dieAt(point, 1)
				d := begin(t, dying)
				d.apply(web)
				d.want("web", "running")
				w.Runtime.End("web.1", runtime.Exit{Code: 1})
				if err := <-d.ended; !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				d = begin(t, o)
				defer d.end()
				d.settled(w)
				d.empty(w)
			})
		})
		t.Run("rm/"+point, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				dying := o
				dying.hooks.fault = dieAt(point, 1)
				d := begin(t, dying)
				d.apply(web)
				d.want("web", "running")
				_, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester")
				mustIs(t, err, ErrUnavailable)
				<-d.ended
				d = begin(t, o)
				defer d.end()
				time.Sleep(time.Minute)
				d.want("web", "none")
				d.empty(w)
			})
		})
		t.Run("failed start/"+point, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
					if n == 1 {
						return supervisortest.Script{StartErr: errors.New("no")}
					}
					return supervisortest.Script{}
				}
				dying := o
				dying.hooks.fault = dieAt(point, 1)
				d := begin(t, dying)
				d.apply(web)
				<-d.ended
				d = begin(t, o)
				defer d.end()
				d.settled(w)
				d.empty(w)
			})
		})
	}
}

// What ended while no daemon was there is counted once, with its true exit.
func TestExitWhileAway(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web + "restart: \"no\"\n")
		d.want("web", "running")
		d.end()
		w.Runtime.End("web.1", runtime.Exit{Code: 7})
		for range 2 {
			d = begin(t, o)
			u := d.unit("web")
			if u.State != "failed" || u.Instances[0].Exit.Code != 7 || u.Instances[0].Attempt != 1 {
				t.Fatalf("%+v", u)
			}
			if x, err := d.WaitExit(t.Context(), "web"); err != nil || x.Code != 7 {
				t.Fatal(x, err)
			}
			d.end()
		}
		if w.Runtime.Starts("web.1") != 1 {
			t.Error("started again")
		}
	})
}

// The database is rebuilt from what runs.
func TestLostDatabase(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.apply("name: web\nimage: nginx:2\n")
		time.Sleep(time.Second)
		d.want("web", "running")
		path := d.paths.state()
		d.end()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		starts := w.Runtime.Starts("web.1")
		d = begin(t, o)
		d.want("web", "running")
		u := d.unit("web")
		if u.Revision != 2 || u.Image != "nginx:2" || w.Runtime.Starts("web.1") != starts {
			t.Fatalf("%+v", u)
		}
		d.end()
		d = begin(t, o)
		defer d.end()
		d.want("web", "running")
		d.empty(w)
	})
}

// A `run --rm` costs no sync; if the daemon dies before anything of it is on
// disk, the next one finds it beside its run and still removes it.
func TestAutoRemoveAfterDeath(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		dying := o
		dying.hooks.fault = dieAt("started", 1)
		d := begin(t, dying)
		def := unit.Unit{Name: "once", Containers: []unit.Container{{Image: "busybox"}}}
		_, err := d.RunUnit(t.Context(), api.RunRequest{Unit: def, Remove: true, Attach: true}, "tester", nil)
		mustIs(t, err, ErrUnavailable)
		<-d.ended
		d = begin(t, o)
		defer d.end()
		d.want("once", "running")
		w.Runtime.End("once.1", runtime.Exit{Code: 7})
		time.Sleep(time.Second)
		d.want("once", "none")
		if x, err := d.WaitExit(t.Context(), "once"); err != nil || x.Code != 7 {
			t.Error(x, err)
		}
		d.empty(w)
	})
}

// TestAutoRemoveLeavesNoLogs: wherever the daemon dies over a `run --rm`, its logs and
// exits go as well.
func TestAutoRemoveLeavesNoLogs(t *testing.T) {
	for _, point := range slices.Concat(startPoints, cleanupPoints, []string{stepForget}) {
		t.Run(point, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				dying := o
				reached := dieAt(point, 1)
				var d *daemon
				dying.hooks.fault = func(at string) bool {
					if at == stepProcess { // as the keeper does
						if err := os.MkdirAll(d.paths.unitLogs("once")+"/once.1", 0o700); err != nil {
							t.Error(err)
						}
					}
					return reached(at)
				}
				d = begin(t, dying)
				w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
					return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: 7}}
				}
				def := unit.Unit{Name: "once", Containers: []unit.Container{{Image: "busybox"}}}
				_, err := d.RunUnit(t.Context(), api.RunRequest{Unit: def, Remove: true}, "tester", nil)
				if err == nil {
					err = ErrUnavailable
				}
				mustIs(t, err, ErrUnavailable)
				select {
				case <-d.ended:
				case <-time.After(time.Minute):
					t.Error("did not come so far")
					d.end()
				}
				d = begin(t, o)
				defer d.end()
				time.Sleep(time.Minute)
				d.want("once", "none")
				for _, dir := range []string{"logs", "exits"} {
					if left, _ := filepath.Glob(filepath.Join(d.paths.root, dir, "*")); len(left) > 0 {
						t.Errorf("left: %v", left)
					}
				}
				d.empty(w)
			})
		})
	}
}

// Random exits and daemon deaths: in the end everything runs, once.
func TestConvergesUnderChaos(t *testing.T) {
	for seed := range 8 {
		world(t, func(t *testing.T, w *supervisortest.World, o Options) {
			w.Runtime.Script = func(c runtime.Config, n int) supervisortest.Script {
				if n > 6 {
					return supervisortest.Script{}
				}
				switch (n*7 + seed + len(c.Instance)) % 4 {
				case 0:
					return supervisortest.Script{StartErr: errors.New("no luck"), StartTakes: time.Second}
				case 1:
					return supervisortest.Script{RunsFor: time.Duration(n) * time.Second, Exit: runtime.Exit{Code: n}}
				case 2:
					return supervisortest.Script{RunsFor: time.Millisecond, Exit: runtime.Exit{Signal: "SIGSEGV"}}
				}
				return supervisortest.Script{RunsFor: 20 * time.Second, IgnoreStop: true}
			}
			texts := []string{"name: a\nimage: i\nreplicas: 3\ndepends_on: [b]\n", "name: b\nimage: i\nreplicas: 2\n", web}
			points := slices.Concat(startPoints, cleanupPoints)
			for round := range 6 {
				dying := o
				dying.hooks.fault = dieAt(points[(seed*5+round*3)%len(points)], int32(2+round))
				d := begin(t, dying)
				_, _ = d.tryApply(texts...)
				select {
				case <-d.ended:
				case <-time.After(30 * time.Second):
					d.end()
				}
			}
			d := begin(t, o)
			defer d.end()
			time.Sleep(time.Hour)
			for name, n := range map[string]int{"a": 3, "b": 2, "web": 1} {
				u := d.unit(name)
				if u.State != "running" || u.Running != n || w.Runtime.Peak(name) > n {
					t.Errorf("seed %d: %s: %+v, at once %d\n%s", seed, name, u, w.Runtime.Peak(name), strings.Join(w.Runtime.Log(), "\n"))
				}
			}
			if left := w.Leftovers(); len(left) > 0 {
				t.Errorf("seed %d: left over: %v", seed, left)
			}
			d.empty(w)
		})
	}
}
