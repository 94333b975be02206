package supervisor

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
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

// at is a message that does something in the loop.
type at func(l *loop)

func (f at) handle(l *loop) { f(l) }

// held holds up the loop until the result is called.
func (d *daemon) held() (release func()) {
	entered, free := make(chan struct{}), make(chan struct{})
	d.inbox <- at(func(*loop) { close(entered); <-free })
	<-entered
	return func() { close(free) }
}

// full takes all places of starts until the result is called.
func (d *daemon) full() (release func()) {
	for range cap(d.starts) {
		d.starts <- struct{}{}
	}
	return func() {
		for range cap(d.starts) {
			<-d.starts
		}
	}
}

func runWeb() api.RunRequest {
	return api.RunRequest{Unit: unit.Unit{Name: "web", Containers: []unit.Container{{Image: "nginx:1"}}}}
}

// runAside calls RunUnit.
func (d *daemon) runAside(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := d.RunUnit(ctx, runWeb(), "tester", nil)
		done <- err
	}()
	synctest.Wait()
	return done
}

func (d *daemon) answered(what string, done <-chan error) error {
	d.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Hour):
		d.t.Fatal(what + ": never answered")
		return nil
	}
}

// Whoever waits for the first start of what `run` makes is answered, whenever somebody else
// stops or removes it.
func TestRunStoppedByAnother(t *testing.T) {
	for _, verb := range []string{verbStop, verbRemove} {
		for when, prepare := range map[string]func(d *daemon) func(){
			"before its start":  (*daemon).held,
			"before its images": (*daemon).full,
			"in its start":      func(*daemon) func() { return func() {} },
		} {
			t.Run(verb+" "+when, func(t *testing.T) {
				world(t, func(t *testing.T, w *supervisortest.World, o Options) {
					w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
						return supervisortest.Script{StartTakes: time.Minute}
					}
					d := begin(t, o)
					defer d.end()
					go_ := prepare(d)
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
					defer cancel()
					done := d.runAside(ctx)
					d.inbox <- intend{verb: verb, units: []string{"web"}, by: "another", reply: make(chan error, 1)}
					synctest.Wait()
					go_()
					err := d.answered("run", done)
					if when != "in its start" && err == nil {
						t.Error("it was never started, and nobody heard of it")
					}
					if verb == verbRemove || err != nil {
						time.Sleep(time.Minute)
						d.want("web", "none")
					}
					d.empty(w)
				})
			})
		}
	}
}

// A start that succeeds in the moment it is aborted was one.
func TestRunStoppedAsItStarts(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		release := d.full()
		done := d.runAside(t.Context())
		d.inbox <- at(func(l *loop) {
			release()
			time.Sleep(time.Second) // it is up, and that is the next to be heard
			l.change("web", func(w *wanted) { w.rec.Intent = plan.Stopped })
			for _, r := range l.runs {
				l.dispatchStop(plan.Action{Kind: plan.Stop, Unit: "web", Instance: r.Instance, Run: r.Run})
			}
		})
		if err := d.answered("run", done); err != nil {
			t.Error(err)
		}
		d.want("web", "stopped")
		d.empty(w)
	})
}

// A caller that goes away while its unit is being written leaves none.
func TestRunCalledOffWhileItIsWritten(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		release := d.held()
		ctx, cancel := context.WithCancel(t.Context())
		done := d.runAside(ctx)
		cancel()
		synctest.Wait()
		release()
		if err := d.answered("run", done); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		d.want("web", "none")
		d.empty(w)
	})
}

// A file that takes over what `run` is starting stays, whatever becomes of that start.
func TestRunTakenOver(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		release := d.full()
		done := d.runAside(t.Context())
		d.apply("name: web\nimage: nginx:2\n")
		if err := d.answered("run", done); err == nil {
			t.Error("its start was called off, and nobody heard of it")
		}
		release()
		time.Sleep(time.Minute)
		d.want("web", "running")
		if u := d.unit("web"); u.Image != "nginx:2" {
			t.Errorf("%+v", u)
		}
		d.empty(w)
	})
}

// What has the name by now is none of those who undo their run.
func TestRunUndoesOnlyItsOwn(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		first := d.answered("run", d.runAside(t.Context()))
		serial := d.snap.Load().find("web").serial
		d.empty(w)
		if err := errors.Join(first, d.answered("run", d.runAside(t.Context()))); err != nil {
			t.Fatal(err)
		}
		mustIs(t, d.undoRun(t.Context(), "web", serial, "tester"), ErrNoSuchUnit)
		time.Sleep(time.Minute)
		d.want("web", "running")
		d.empty(w)
	})
}

// A start that a shutdown has cancelled is no failure, also if that is called off before the start has ended.
func TestStartOverShutdownCalledOff(t *testing.T) {
	const job = "restart: \"no\"\n"
	for name, text := range map[string]string{"one": web + job,
		"several": "name: web\n" + job + "containers:\n  main: {image: a, essential: true}\n  side: {image: b, essential: false}\n"} {
		for when, takes := range map[string][2]time.Duration{"pull": {time.Minute, 0}, "process": {0, time.Minute}} {
			t.Run(name+"/"+when, func(t *testing.T) {
				world(t, func(t *testing.T, w *supervisortest.World, o Options) {
					w.Images.Takes = takes[0]
					w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
						return supervisortest.Script{StartTakes: takes[1]}
					}
					d := begin(t, o)
					defer d.end()
					d.apply(text)
					time.Sleep(time.Second)
					d.inbox <- at(func(l *loop) {
						goDown{budget: time.Minute, by: "host", reply: make(chan error, 1), result: new(api.ShutdownResult)}.handle(l)
						stayUp{by: "tester", reply: make(chan error, 1)}.handle(l)
					})
					time.Sleep(5 * time.Minute)
					d.want("web", "running")
					u := d.unit("web")
					if u.Instances[0].Attempt != 0 || count(d.types("web"), event.StartFailed) > 0 {
						t.Errorf("%v: %+v", d.types("web"), u.Instances)
					}
					for _, c := range u.Instances[0].Containers {
						if c.State != "running" {
							t.Errorf("container %s is %s", c.Name, c.State)
						}
					}
					d.empty(w)
				})
			})
		}
	}
}

// The end of a daemon does not wait for a caller that waits for an answer of it.
func TestEndDuringRun(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{StartTakes: time.Hour}
		}
		d := begin(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		d.background.Go(func() { // as the API's server, which ends with Run
			_, err := d.RunUnit(ctx, runWeb(), "tester", nil)
			done <- err
		})
		time.Sleep(time.Minute)
		began := time.Now()
		d.cancel()
		cancel()
		if err := d.end(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("never started, and nobody heard of it")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the daemon waited for %v", took)
		}
	})
}

// A file that takes the name of a `run --rm` whose removal is under way does not lose its logs to it.
func TestApplyDuringRemovalOfRun(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		var slow atomic.Bool
		o.hooks.fault = func(at string) bool {
			if at == stepDetach && slow.CompareAndSwap(true, false) {
				time.Sleep(time.Minute)
			}
			return false
		}
		w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
			s := supervisortest.Script{Output: []string{"hello"}}
			if n == 1 {
				s.RunsFor = time.Second
			}
			return s
		}
		d := begin(t, o)
		defer d.end()
		slow.Store(true)
		r := runWeb()
		r.Remove = true
		if _, err := d.RunUnit(t.Context(), r, "tester", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if slow.Load() {
			t.Fatal("nothing is being removed")
		}
		for tries := 0; ; tries++ {
			_, err := d.tryApply(web)
			if err == nil {
				break
			}
			mustIs(t, err, ErrExists)
			if time.Sleep(10 * time.Second); tries > 10 {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		d.want("web", "running")
		if _, err := os.Stat(d.paths.log("web", "web.1", unit.OnlyContainer)); err != nil {
			t.Error(err)
		}
		d.empty(w)
	})
}
