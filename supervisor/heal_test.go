package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

func TestRunWithoutDeviceIsReplaced(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web+"replicas: 2\nrestart_policy: {delay: 1h}\n", "name: once\nimage: nginx:1\nrestart: no\n")
		d.want("web", "running")
		before, once := d.unit("web"), d.unit("once")
		w.Network.Sever(before.Instances[1].Run)
		w.Network.Sever(once.Instances[0].Run)
		time.Sleep(healEvery + time.Second)
		d.want("web", "running")
		after := d.unit("web")
		if after.Instances[0].Run != before.Instances[0].Run || after.Instances[1].Run == before.Instances[1].Run {
			t.Errorf("before %+v\nafter %+v", before.Instances, after.Instances)
		}
		if after.Instances[1].Attempt != 0 {
			t.Errorf("counted as a failure: %+v", after.Instances[1])
		}
		if got := d.unit("once").Instances[0].Run; got != once.Instances[0].Run {
			t.Errorf("what must not run twice was started again: %s, was %s", got, once.Instances[0].Run)
		}
		time.Sleep(5 * healEvery)
		if got := d.said(event.Severed); len(got) != 2 {
			t.Errorf("events: %q", got)
		}
		// The same at a daemon's start.
		w.Network.Sever(after.Instances[0].Run)
		d.end()
		d = begin(t, o)
		defer d.end()
		d.want("web", "running")
		last := d.unit("web")
		if last.Instances[0].Run == after.Instances[0].Run || last.Instances[1].Run != after.Instances[1].Run {
			t.Errorf("after a restart of the daemon: before %+v\nafter %+v", after.Instances, last.Instances)
		}
		d.empty(w)
	})
}

// TestEndedRunIsNotSevered: the devices of a run that has just ended are gone
// as well; its end counts as what it was.
func TestEndedRunIsNotSevered(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		run := d.unit("web").Instances[0].Run
		w.Network.Sever(run)
		w.Runtime.End("web.1", runtime.Exit{Code: 3})
		if got := d.judge(t.Context(), &network.RunError{Run: run, Err: network.ErrDeviceGone}); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestNetworkTroubleIsShownWhileItLasts(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		w.Network.Spoil(errors.Join(fmt.Errorf("chain FORWARD: %w", network.ErrForeignDrop), nil,
			fmt.Errorf("tcp 80: %w", network.ErrPortTaken)))
		time.Sleep(healEvery + time.Second)
		synctest.Wait()
		got := d.Info().Warnings
		if len(got) != 2 || !strings.Contains(got[0], "chain FORWARD: another firewall") || !strings.Contains(got[1], "tcp 80: address already in use") {
			t.Errorf("warnings: %q", got)
		}
		w.Network.Spoil(nil)
		time.Sleep(healEvery)
		synctest.Wait()
		if got := d.Info().Warnings; len(got) != 0 {
			t.Errorf("healed, but: %q", got)
		}
		d.want("web", "running")
	})
}

func TestSplit(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	both := fmt.Errorf("%w: %w", b, c)
	if got := fmt.Sprint(split(errors.Join(a, errors.Join(both, nil)))); got != "[a b: c]" {
		t.Error(got)
	}
	if split(nil) != nil {
		t.Error("of nothing, something")
	}
}
