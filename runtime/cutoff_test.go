package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

// TestKillOfWhatStarts: a client that dies over a start leaves the next one a container that is being made. To kill
// that is to call the start off, which leaves nothing, or else to wait until it can be killed.
func TestKillOfWhatStarts(t *testing.T) {
	w := newFaultyWorld(t)
	for _, point := range []string{"start-reserved", "start-mounted", "start-execed", "start-running"} {
		c := w.config("sleep", "1000")
		first := w.open("/no/such/keeper")
		reached := w.set(point, "hold")
		var over sync.WaitGroup
		over.Go(func() { first.Start(w.ctx(), c) })
		w.await(point, reached)
		first.Close()
		over.Wait()
		killed := make(chan error, 1)
		go func() { killed <- w.rt.Kill(w.ctx(), c.ID()) }()
		w.await("the kill", func() bool { return len(killed) > 0 || w.busyWith("(*Keeper).kill(") })
		if err := os.Remove(filepath.Join(w.run, "fault.reached")); err != nil {
			t.Fatal(err)
		}
		err, late := <-killed, point == "start-running"
		if late != (err == nil) || !late && !errors.Is(err, runtime.ErrNotFound) {
			t.Fatalf("at %s: %v", point, err)
		}
		if exit, err := w.rt.Wait(w.ctx(), c.ID()); late && (err != nil || exit.Signal != "SIGKILL") || !late && !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("at %s: %+v, %v", point, exit, err)
		}
		if err := w.rt.Remove(w.ctx(), c.ID()); err != nil {
			t.Errorf("at %s: %v", point, err)
		}
	}
}

// busyWith tells whether the keeper is in a function.
func (w *world) busyWith(function string) bool {
	w.tb.Helper()
	v, err := w.rt.KeeperVitals(w.ctx(), false, true)
	if err != nil {
		w.tb.Fatal(err)
	}
	return strings.Contains(v.Stacks, function)
}
