package supervisor

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// daemon is a supervisor on a world of supervisortest, in a bubble of synctest.
type daemon struct {
	*Supervisor
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

// world runs f in a bubble with an empty host and root.
func world(t *testing.T, f func(t *testing.T, w *supervisortest.World, o Options)) {
	t.Helper()
	o := Options{Root: t.TempDir(), RunDir: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		w := supervisortest.New()
		o.hooks = hooks{containers: w.Runtime, networks: w.Network, images: w.Images, planned: planned(t)}
		f(t, w, o)
	})
}

// planned holds the loop to its word that whatever it does not plan anew is as a plan of
// everything wants it.
func planned(t *testing.T) func(map[string]bool, []string) {
	return func(_ map[string]bool, overlooked []string) {
		if len(overlooked) > 0 {
			t.Errorf("not planned although it has changed: %s", overlooked)
		}
	}
}

func begin(t *testing.T, o Options) *daemon {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d := &daemon{Supervisor: s, t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { d.ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-d.ended:
		if !errors.Is(err, errDied) {
			cancel()
			t.Fatal("Run ended:", err)
		}
		d.ended <- err // it met its fault point while it took over, which is as good as later
	}
	return d
}

// end ends the daemon; a second time it does nothing.
func (d *daemon) end() error {
	d.cancel()
	err, ok := <-d.ended
	if ok {
		close(d.ended)
	}
	return err
}

func (d *daemon) apply(texts ...string) api.ApplyResult {
	d.t.Helper()
	res, err := d.tryApply(texts...)
	if err != nil {
		d.t.Fatal(err)
	}
	return res
}

func (d *daemon) tryApply(texts ...string) (api.ApplyResult, error) {
	var r api.ApplyRequest
	for i, text := range texts {
		r.Files = append(r.Files, api.File{Source: fmt.Sprintf("/units/f%d.yaml", i), Text: text})
	}
	return d.Apply(d.t.Context(), r, "tester")
}

// state is a unit's state once everything has settled at this moment.
func (d *daemon) state(name string) string {
	d.t.Helper()
	synctest.Wait()
	for _, u := range d.Units() {
		if u.Name == name {
			return u.State
		}
	}
	return "none"
}

func (d *daemon) unit(name string) api.Unit {
	d.t.Helper()
	synctest.Wait()
	for _, u := range d.Units() {
		if u.Name == name {
			return u
		}
	}
	d.t.Fatalf("no unit %s", name)
	return api.Unit{}
}

func (d *daemon) want(name, state string) {
	d.t.Helper()
	if got := d.state(name); got != state {
		d.t.Fatalf("%s is %s, want %s: %+v", name, got, state, d.Units())
	}
}

func (d *daemon) types(unit string) []string {
	var list []string
	for e, err := range d.Events(context.Background(), 0, false) {
		if err != nil {
			d.t.Fatal(err)
		}
		if e.Unit == unit {
			list = append(list, e.Type)
		}
	}
	return list
}

// empty removes every unit and asserts that nothing is left anywhere.
func (d *daemon) empty(w *supervisortest.World) {
	d.t.Helper()
	if _, err := d.Remove(d.t.Context(), api.ActRequest{All: true, Force: true}, "tester"); err != nil {
		d.t.Fatal(err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if left := w.Leftovers(); len(left) > 0 || len(w.Runtime.Running("")) > 0 || w.String() != "" {
		d.t.Errorf("left over: %v %s", left, w)
	}
	records, err := readRecords(d.paths)
	if err != nil || len(records) > 0 {
		d.t.Errorf("folders of runs left: %v %v", records, err)
	}
	if u := d.Units(); len(u) > 0 {
		d.t.Errorf("units left: %+v", u)
	}
}

const web = "name: web\nimage: nginx:1\n"

func mustIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

func count(list []string, what string) int {
	n := 0
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}
