package supervisor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// said lists the messages of events of a type.
func (d *daemon) said(typ string) []string {
	d.t.Helper()
	var list []string
	for e, err := range d.Events(context.Background(), 0, false) {
		if err != nil {
			d.t.Fatal(err)
		}
		if e.Type == typ {
			list = append(list, e.Message)
		}
	}
	return list
}

func TestKeeperIsUpgradedAtStartAndReload(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		answer := errors.New("cannot take over")
		renewed := false
		w.Runtime.Renewal = func() (bool, error) { return renewed, answer }
		o.Reload = func() (Options, error) { return o, nil }
		d := begin(t, o)
		defer d.end()
		if got := d.Info().Warnings; len(got) != 1 || !strings.Contains(got[0], "keeper not upgraded") || !strings.Contains(got[0], "cannot take over") {
			t.Errorf("after a refusal, warnings: %q", got)
		}
		d.apply(web)
		d.want("web", "running")
		renewed, answer = true, nil
		res, err := d.Reload(t.Context(), "tester")
		if err != nil || !slices.Contains(res.Applied, "keeper") {
			t.Errorf("reload: %+v %v", res, err)
		}
		if got := d.Info().Warnings; len(got) != 0 {
			t.Errorf("after an upgrade, warnings: %q", got)
		}
		if got := d.said(event.Keeper); len(got) != 2 || !strings.Contains(got[0], "cannot take over") || got[1] != "upgraded in place" {
			t.Errorf("events: %q", got)
		}
		d.want("web", "running")
	})
}

// TestNoStartUnderAnUpgrade: a start that is under way is waited for, and one
// that comes meanwhile waits; but not where there is nothing to upgrade.
func TestNoStartUnderAnUpgrade(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{StartTakes: 2 * time.Second}
		}
		o.Reload = func() (Options, error) { return o, nil }
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		synctest.Wait()
		began := time.Now()
		res, err := d.Reload(t.Context(), "tester")
		if took := time.Since(began); err != nil || took > 0 || slices.Contains(res.Applied, "keeper") {
			t.Errorf("without another build: %+v %v after %v", res, err, took)
		}
		w.Runtime.Renewal = func() (bool, error) {
			if len(w.Runtime.Running("web.1")) != 1 {
				t.Errorf("upgraded in the middle of a start: %v", w.Runtime.Log())
			}
			time.Sleep(time.Second)
			return true, nil
		}
		go func() {
			time.Sleep(2500 * time.Millisecond)
			_, _ = d.tryApply("name: db\nimage: nginx:1\n")
		}()
		if _, err := d.Reload(t.Context(), "tester"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("the upgrade was over after %v, want 3s", took)
		}
		time.Sleep(1999 * time.Millisecond)
		d.want("db", "starting")
		time.Sleep(2 * time.Millisecond)
		d.want("db", "running")
	})
}

func TestSubnetIsShownOnceThereIsOne(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		if got := d.Info().Subnet; got != "" {
			t.Errorf("before the first run, subnet %q", got)
		}
		d.apply(web)
		d.want("web", "running")
		if got := d.Info().Subnet; got != "10.88.0.0/16" {
			t.Errorf("subnet %q", got)
		}
	})
}
