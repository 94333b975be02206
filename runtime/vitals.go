package runtime

import (
	"context"
	"os"
	goruntime "runtime"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Vitals is how one of our own processes fares: what a leak would raise.
type Vitals = wire.Vitals

// KeeperVitals asks the keeper how it fares. Collect has it collect its garbage first,
// so that the heap is what is still in use; stacks asks for those of its goroutines.
func (r *Runtime) KeeperVitals(ctx context.Context, collect, stacks bool) (v Vitals, err error) {
	return v, r.repeat(ctx, wire.Examine, wire.ExamineRequest{Collect: collect, Stacks: stacks}, &v)
}

// OwnVitals is the same of the process that calls.
func OwnVitals(collect, stacks bool) Vitals {
	if collect {
		goruntime.GC()
	}
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	v := Vitals{Pid: os.Getpid(), Goroutines: goruntime.NumGoroutine(), Heap: m.HeapAlloc}
	if stacks {
		v.Stacks = allStacks()
	}
	return v
}

// maxStacks bounds the text: a message of the keeper may have 16 MiB.
const maxStacks = 4 << 20

// allStacks are the stacks of all goroutines, or as many as fit.
func allStacks() string {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := goruntime.Stack(buf, true); n < size || size >= maxStacks {
			return string(buf[:n])
		}
	}
}
