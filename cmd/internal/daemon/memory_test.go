package daemon

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsTrimmedOnceAfterABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var total, trims atomic.Uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			trimMemory(ctx, total.Load, func() { trims.Add(1) })
		}()
		// tick passes one interval in which so much is allocated.
		tick := func(bytes, want uint64) {
			t.Helper()
			synctest.Wait()
			total.Add(bytes)
			time.Sleep(trimEvery)
			synctest.Wait()
			if trims.Load() != want {
				t.Fatalf("%d trims, want %d", trims.Load(), want)
			}
		}
		tick(calm/2, 0)  // nothing worth it
		tick(50<<20, 0)  // a pull begins
		tick(50<<20, 0)  // and goes on
		tick(calm/2, 1)  // over
		tick(calm/2, 1)  // once
		tick(burst+1, 1) // the next one
		tick(0, 2)
		for range 100 {
			tick(0, 2)
		}
		cancel()
		<-done
	})
}

func TestAllocatedIsKnown(t *testing.T) {
	if allocated() == 0 {
		t.Error("the runtime does not tell")
	}
}

func TestCollectionsAreHeardOf(t *testing.T) {
	heard := make(chan uint64, 1)
	afterCollections(func() {
		select {
		case heard <- alive():
		default: // later tests have collections too
		}
	})
	for range 3 { // each of them
		for waits := true; waits; {
			runtime.GC() // does not find an object whose finalizer has not returned yet
			select {
			case left := <-heard:
				waits = false
				if left == 0 {
					t.Error("nothing is alive")
				}
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

func TestASmallHeapIsLeftToGrow(t *testing.T) {
	for _, c := range []struct {
		alive uint64
		want  int
	}{{0, 200}, {2 << 20, 200}, {4 << 20, 100}, {8 << 20, 50}, {1 << 30, 50}} {
		if got := gcPercent(c.alive); got != c.want {
			t.Errorf("%d alive: %d %%, want %d", c.alive, got, c.want)
		}
	}
}
