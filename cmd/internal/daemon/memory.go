package daemon

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcPercent trades a little CPU of a process that mostly sleeps for memory of
// the host's containers. GOGC in the environment has the last word.
const gcPercent = 50

func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

const (
	// trimEvery is how often the daemon looks whether a burst of work is over.
	trimEvery = 5 * time.Second
	// burst is how much must have been allocated to make a trim worth its while,
	// calm how little since the last look for the work to be over.
	burst = 16 << 20
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
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}
