package supervisor

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// heard calls listen with each message that is logged.
type heard struct {
	slog.Handler
	listen func(string)
}

func (h heard) Handle(_ context.Context, r slog.Record) error {
	h.listen(r.Message)
	return nil
}

// Whoever asks the next daemon before it has done anything hears what there is, and not that there is nothing.
func TestKnowsItsUnitsBeforeItAnswers(t *testing.T) {
	world(t, func(t *testing.T, _ *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		if err := d.end(); err != nil {
			t.Fatal(err)
		}
		var next *Supervisor
		var units []api.Unit
		asked := false
		o.Logger = slog.New(heard{slog.NewTextHandler(io.Discard, nil), func(message string) {
			if message == "the daemon started" { // it listens, and waits for the disk
				units, asked = next.Units(), true
			}
		}})
		next, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- next.Run(ctx) }()
		<-next.Ready()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if !asked || len(units) != 1 || units[0].Name != "web" || units[0].State != "running" {
			t.Errorf("asked %v: %+v", asked, units)
		}
	})
}

// marking is a keeper that tells whether a run was marked as being removed when it was killed.
type marking struct {
	*supervisortest.Runtime
	paths  *paths
	marked []bool
}

func (m *marking) Kill(ctx context.Context, id string) error {
	run, _ := splitID(id)
	m.marked = append(m.marked, exists(m.paths.removing(run)))
	return m.Runtime.Kill(ctx, id)
}

// The next daemon finds a start under way that the last one asked for. It ends that before it starts the instance again:
// there are never two runs at work on the same volumes. And it marks it before, as one that is killed so has not
// crashed, also for a daemon that finds it like that.
func TestNoSecondRunBesideALeftover(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		if err := d.end(); err != nil {
			t.Fatal(err)
		}
		w.Runtime.Unsettle("web.1")
		keeper := &marking{Runtime: w.Runtime, paths: &d.paths}
		o.hooks.containers = keeper
		d = begin(t, o)
		defer d.end()
		time.Sleep(10 * time.Second)
		d.want("web", "running")
		if n, peak := w.Runtime.Starts("web.1"), w.Runtime.Peak("web"); n != 2 || peak != 1 {
			t.Errorf("%d starts, %d runs at once", n, peak)
		}
		if !slices.Equal(keeper.marked, []bool{true}) {
			t.Errorf("marked at its kill: %v", keeper.marked)
		}
	})
}

// An instance whose leftover is being removed may have a run as well: what happens to that is seen to.
func TestEndBesideALeftover(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		run := w.Runtime.Running("web.1")[0]
		d.end()
		rec, err := readRecord(d.paths, run)
		if err != nil {
			t.Fatal(err)
		}
		rec.Run = "web.1-zzzz"
		if err := writeRecord(d.paths, rec); err != nil {
			t.Fatal(err)
		}
		o.hooks.fault = func(at string) bool {
			if at == stepDetach {
				time.Sleep(10 * time.Second)
			}
			return false
		}
		d = begin(t, o)
		defer d.end()
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(50 * time.Second) // the plan of everything comes later
		d.want("web", "running")
		if now := w.Runtime.Running("web.1"); len(now) != 1 || now[0] == run {
			t.Errorf("running of web.1: %v, before %s", now, run)
		}
		d.empty(w)
	})
}

// What was asked to end for a restart, or a new revision, has not crashed, also where the daemon that asked did not live to see it.
func TestStoppedByTheLastDaemon(t *testing.T) {
	for name, replace := range map[string]func(*testing.T, *daemon){
		"restart": func(t *testing.T, d *daemon) {
			if _, err := d.Restart(t.Context(), api.ActRequest{Units: []string{"web"}, NoWait: true}, "tester"); err != nil {
				t.Error(err)
			}
		},
		"revision": func(_ *testing.T, d *daemon) { d.apply(web + "command: [other]\n") },
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				w.Runtime.Script = func(runtime.Config, int) supervisortest.Script { return supervisortest.Script{IgnoreStop: true} }
				d := begin(t, o)
				d.apply(web)
				d.want("web", "running")
				replace(t, d)
				time.Sleep(time.Second)
				if err := d.end(); err != nil {
					t.Fatal(err)
				}
				w.Runtime.End("web.1", runtime.Exit{Signal: "SIGTERM"})
				d = begin(t, o)
				defer d.end()
				time.Sleep(time.Minute)
				d.want("web", "running")
				if list, u := d.exitsOf("web"), d.unit("web"); len(list) != 1 || !list[0].Stopped || u.Restarts != 0 || count(d.types("web"), event.Backoff) > 0 {
					t.Errorf("exits %+v, %d restarts, events %v", list, u.Restarts, d.types("web"))
				}
			})
		})
	}
}
