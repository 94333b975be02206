package runtime_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

// TestRemovedTwice: a removal that is still under way when its caller has died and the next one has removed and started the
// container anew has nothing to do with that one.
func TestRemovedTwice(t *testing.T) {
	w := newFaultyWorld(t)
	c := w.config("sleep", "1000")
	for _, point := range []string{"remove-folder", "remove-group", "remove-state"} {
		w.start(c)
		if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.rt.Wait(w.ctx(), c.ID()); err != nil {
			t.Fatal(err)
		}
		first := w.open("/no/such/keeper")
		reached := w.set(point, "hold")
		var over sync.WaitGroup
		over.Go(func() { first.Remove(w.ctx(), c.ID()) })
		w.await(point, reached)
		first.Close()
		over.Wait()
		again := make(chan error, 1)
		go func() {
			err := w.rt.Remove(w.ctx(), c.ID())
			if err == nil {
				_, err = w.rt.Start(w.ctx(), c)
			}
			again <- err
		}()
		w.await("the second removal", func() bool {
			return len(again) > 0 || strings.Count(w.stacks(), "(*Keeper).remove(") == 2
		})
		os.Remove(filepath.Join(w.run, "fault.reached"))
		if err := <-again; err != nil {
			t.Fatal(err)
		}
		w.await("the end of both", func() bool { return !strings.Contains(w.stacks(), "(*Keeper).remove(") })
		if st, err := w.rt.Get(w.ctx(), c.ID()); err != nil || st.State != runtime.Running {
			t.Fatalf("after %s: %+v, %v", point, st, err)
		}
		if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
			t.Fatal(err)
		}
		w.finish(c)
	}
}

// TestRemovedWhileLookedAt: who looks at an ended container's files leaves nothing of it, though it is removed meanwhile.
func TestRemovedWhileLookedAt(t *testing.T) {
	w := newFaultyWorld(t)
	c := w.config("true")
	w.start(c)
	if _, err := w.rt.Wait(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	reached := w.set("root-read", "hold")
	looked := make(chan error, 1)
	go func() {
		f, err := w.rt.Root(w.ctx(), c.ID())
		if err == nil {
			f.Close()
		}
		looked <- err
	}()
	w.await("the look", reached)
	removed := make(chan error, 1)
	go func() { removed <- w.rt.Remove(w.ctx(), c.ID()) }()
	w.await("the removal", func() bool { return len(removed) > 0 || strings.Contains(w.stacks(), "(*Keeper).remove(") })
	if err := os.Remove(filepath.Join(w.run, "fault.reached")); err != nil {
		t.Fatal(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if err := <-looked; err != nil {
		t.Logf("the look: %v", err)
	}
	if left := w.left(c); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// stacks are what the keeper is doing.
func (w *world) stacks() string {
	w.tb.Helper()
	v, err := w.rt.KeeperVitals(w.ctx(), false, true)
	if err != nil {
		w.tb.Fatal(err)
	}
	return v.Stacks
}
