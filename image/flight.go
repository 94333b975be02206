package image

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/wherry-run/wherry/image/internal/layer"
)

// flights are the layers being fetched and unpacked, by blob digest and diff ID:
// pulls that need the same one share it. The blob's bytes are shared beyond that,
// see blob.Download.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight

	configs configs
}

// flight is one layer on its way. It ends when it is done, or when the last
// pull that waits for it has gone.
type flight struct {
	key    string
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // set before done is closed

	asked, left int64 // bytes of content, for the room, whose lock they are below

	mu     sync.Mutex
	seats  []*seat
	last   news
	stage  *layer.Stage // unpacked, but not the layer of anybody yet
	result layer.Result // of stage
}

// news is how far a flight is.
type news struct {
	step    Step
	done    int64 // bytes of the blob that are there
	fetched int64 // of them, those that came over the network by this flight
}

// seat is one pull's part in a flight.
type seat struct {
	*flight
	own    bool // the pull started the flight
	listen func(news)
}

var errAbandoned = errors.New("nobody waits for it any more")

// join finds the flight of key or starts it with run.
func (fs *flights) join(ctx context.Context, key string, listen func(news), run func(context.Context, *flight) error) *seat {
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
	s := &seat{f, !ok, listen}
	f.seats = append(f.seats, s)
	if f.last.step != "" {
		listen(f.last)
	}
	return s
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
func (fs *flights) leave(s *seat) error {
	f := s.flight
	fs.mu.Lock()
	f.mu.Lock()
	f.seats = slices.DeleteFunc(f.seats, func(o *seat) bool { return o == s })
	last := len(f.seats) == 0
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

func (f *flight) report(n news) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = n
	for _, s := range f.seats {
		s.listen(n)
	}
}
