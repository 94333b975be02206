package daemon

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// tuneMemory trades a little CPU of a process that mostly sleeps for memory of the host's
// containers. GOGC in the environment has the last word.
//
// A small heap is left to grow before it is collected: with 1 MB alive and half of that to
// come, every second `run` would pay for a collection. What it grew by goes with the next trim.
func tuneMemory() {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := gcPercent(0)
	debug.SetGCPercent(percent)
	afterCollections(func() {
		if now := gcPercent(alive()); now != percent {
			percent = now
			debug.SetGCPercent(percent)
		}
	})
}

// gcPercent is how much may be allocated before the next collection, of what was
// alive at the last; Go takes at least 4 MB to be.
func gcPercent(alive uint64) int {
	switch {
	case alive < 4<<20:
		return 200
	case alive < 8<<20:
		return 100
	}
	return 50
}

// afterCollections has f called after each of the garbage collector's cycles: each finds
// the object that waits for it.
func afterCollections(f func()) {
	type marker struct{ _ *byte }
	var again func(*marker)
	again = func(m *marker) {
		f()
		runtime.SetFinalizer(m, again)
	}
	runtime.SetFinalizer(&marker{}, again)
}

const (
	// trimEvery is how often the daemon looks whether a burst of work is over.
	trimEvery = 5 * time.Second
	// burst is how much must have been allocated to make a trim worth its while,
	// calm how little since the last look for the work to be over.
	burst = 4 << 20
	calm  = 1 << 20
)

// trimMemory gives memory back to the host once after each burst of work, such
// as a pull: Go itself would keep what the busiest moment took, for the next one.
func trimMemory(ctx context.Context, allocated func() uint64, free func()) {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	trimmed := uint64(0)
	last := allocated()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := allocated()
		if now-trimmed >= burst && now-last < calm {
			free()
			now = allocated()
			trimmed = now
		}
		last = now
	}
}

// allocated is how many bytes were ever allocated.
func allocated() uint64 { return metric("/gc/heap/allocs:bytes") }

// alive is how many bytes the last collection has left.
func alive() uint64 { return metric("/gc/heap/live:bytes") }

func metric(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}
