package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// ends is a container that runs for a while and exits with a code.
func ends(after time.Duration, code int) supervisortest.Script {
	return supervisortest.Script{RunsFor: after, Exit: runtime.Exit{Code: code}}
}

func TestWaitUp(t *testing.T) {
	const slow = "restart_policy: {delay: 1m}\n"
	for name, c := range map[string]struct {
		text   string
		script func(n int) supervisortest.Script
		want   string        // in the error; empty: none
		took   time.Duration // of the wait
	}{
		"up":          {web, func(int) supervisortest.Script { return supervisortest.Script{} }, "", upFor},
		"ends later":  {web, func(int) supervisortest.Script { return ends(time.Second, 1) }, "", upFor},
		"crash":       {web + slow, func(int) supervisortest.Script { return ends(12*time.Millisecond, 1) }, "unit web: container web.1: exited with code 1 12ms after its start", 12 * time.Millisecond},
		"clean crash": {web + slow, func(int) supervisortest.Script { return ends(12*time.Millisecond, 0) }, "exited with code 0 12ms after", 12 * time.Millisecond},
		"job done":    {web + "restart: no\n", func(int) supervisortest.Script { return ends(12*time.Millisecond, 0) }, "", 12 * time.Millisecond},
		"job failed":  {web + "restart: no\n", func(int) supervisortest.Script { return ends(12*time.Millisecond, 4) }, "exited with code 4 12ms after", 12 * time.Millisecond},
		"start fails": {web + slow, func(int) supervisortest.Script {
			return supervisortest.Script{StartErr: errors.New("exec: no such file")}
		}, "unit web: container web.1: process: exec: no such file", 0},
		"the second does": {web + "replicas: 2\n" + slow, nil, "container web.2: exited with code 1 50ms after its start", 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, w *supervisortest.World, o Options) {
				w.Runtime.Script = func(r runtime.Config, n int) supervisortest.Script {
					switch {
					case c.script != nil:
						return c.script(n)
					case r.Instance == "web.2":
						return ends(50*time.Millisecond, 1)
					}
					return supervisortest.Script{}
				}
				d := begin(t, o)
				defer d.end()
				d.apply(c.text)
				began := time.Now()
				err := d.WaitUp(t.Context(), []string{"web"})
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("error %v, want %q", err, c.want)
				}
				var crash *CrashError
				if errors.As(err, &crash) && !errors.Is(err, api.ErrNotRunning) {
					t.Errorf("%v is no ErrNotRunning", err)
				}
				// The same for somebody who starts it by hand.
				_, err = d.Start(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester")
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("start: error %v, want %q", err, c.want)
				}
			})
		})
	}
}

// TestWaitUpIsForTheNewRevision: neither that the old one runs nor that it
// crashed counts.
func TestWaitUpIsForTheNewRevision(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
			switch n {
			case 1, 3:
				return ends(10*time.Millisecond, n)
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		policy := "restart_policy: {delay: 1h}\n"
		d.apply(web + policy)
		time.Sleep(time.Second)
		d.want("web", "backoff")
		d.apply(web + policy + "environment: {n: \"2\"}\n")
		if err := d.WaitUp(t.Context(), []string{"web"}); err != nil {
			t.Errorf("the second revision is up, but: %v", err)
		}
		d.apply(web + policy + "environment: {n: \"3\"}\n")
		if err := d.WaitUp(t.Context(), []string{"web"}); err == nil || !strings.Contains(err.Error(), "code 3") {
			t.Errorf("the third revision crashed, but: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		mustIs(t, d.WaitUp(ctx, []string{"nobody"}), ErrNoSuchUnit)
	})
}

// TestWaitUpIsPatientWithOthers: what waits for another unit has not failed.
func TestWaitUpIsPatientWithOthers(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			if c.Unit == "db" {
				return supervisortest.Script{StartTakes: 10 * time.Second}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web+"depends_on: [db]\n", "name: db\nimage: nginx:1\n")
		began := time.Now()
		if err := d.WaitUp(t.Context(), []string{"web", "db"}); err != nil || time.Since(began) != 10*time.Second+upFor {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestEndBeforeTheStartIsKnown: the news of a short program's end may be faster than the answer to its start.
func TestEndBeforeTheStartIsKnown(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{EndsFirst: true, Exit: runtime.Exit{Code: 3}}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web + "restart: no\n")
		time.Sleep(time.Minute)
		if x := d.find("web").Instances[0].Exit; x == nil || x.Code != 3 {
			t.Errorf("the end is %+v, the unit is %s", x, d.state("web"))
		}
	})
}

// TestScaleLeavesRunsAlone: a revision that asks the same of a run replaces
// none, and its end counts for the new revision: a task is not done twice.
func TestScaleLeavesRunsAlone(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script { return ends(10*time.Second, 0) }
		d := begin(t, o)
		defer d.end()
		d.apply(web + "restart: no\n")
		time.Sleep(time.Second)
		first := d.find("web").Instances[0].Run
		d.apply(web + "restart: no\nlabels: {n: \"2\"}\n")
		time.Sleep(time.Second)
		if u := d.find("web"); u.Revision != 2 || u.Instances[0].Run != first {
			t.Errorf("revision %d has run %s, was %s", u.Revision, u.Instances[0].Run, first)
		}
		time.Sleep(time.Minute)
		d.want("web", "completed")
		if u := d.find("web"); u.Instances[0].Run != first {
			t.Errorf("run %s after the end of %s", u.Instances[0].Run, first)
		}
	})
}
