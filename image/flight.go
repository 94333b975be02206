package image

import (
	"context"
	"errors"
	"sync"

	"github.com/wherry-run/wherry/image/internal/layer"
)

// flights are the layers being fetched, by blob digest: pulls that need the
// same one share it.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

// flight is one layer on its way. It ends when it is done, or when the last
// pull that waits for it has gone.
type flight struct {
	key    string
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // set before done is closed

	mu        sync.Mutex
	refs      int
	listeners []func(Step, int64)
	last      struct {
		step Step
		n    int64
	}
	stage  *layer.Stage // unpacked, but not the layer of anybody yet
	result layer.Result // of stage
}

var errAbandoned = errors.New("nobody waits for it any more")

// join finds the flight of key or starts it with run.
func (fs *flights) join(ctx context.Context, key string, listen func(Step, int64), run func(context.Context, *flight) error) *flight {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f, ok := fs.m[key]
	if !ok {
		fctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		f = &flight{key: key, cancel: cancel, done: make(chan struct{})}
		fs.m[key] = f
		go func() { // leave waits for it
			defer close(f.done)
			f.err = run(fctx, f)
			fs.remove(f)
		}()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs++
	f.listeners = append(f.listeners, listen)
	if f.last.step != "" {
		listen(f.last.step, f.last.n)
	}
	return f
}

func (fs *flights) remove(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.m[f.key] == f {
		delete(fs.m, f.key)
	}
}

// wait returns the end of the flight, or of the caller's patience.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave ends a pull's interest. The last one to leave ends the flight and
// returns when nothing of it is left.
func (fs *flights) leave(f *flight) error {
	fs.mu.Lock()
	f.mu.Lock()
	f.refs--
	last := f.refs == 0
	if last && fs.m[f.key] == f {
		delete(fs.m, f.key)
	}
	f.mu.Unlock()
	fs.mu.Unlock()
	if !last {
		return nil
	}
	f.cancel(errAbandoned)
	<-f.done
	if st, _ := f.claim(); st != nil {
		return st.Discard()
	}
	return nil
}

// claim hands the unpacked layer to one of those who wait.
func (f *flight) claim() (*layer.Stage, layer.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.stage
	f.stage = nil
	return st, f.result
}

func (f *flight) report(step Step, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last.step, f.last.n = step, n
	for _, l := range f.listeners {
		l(step, n)
	}
}
