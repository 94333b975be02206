package image

import (
	"context"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image/internal/blob"
)

// watcher looks at one download now and then: it tells the pulls how far it is,
// and ends it when it takes more room than there is.
type watcher struct {
	s   *Store
	f   *flight
	j   layerJob
	d   *blob.Download
	src *blob.Reader // what is being unpacked

	mu   sync.Mutex
	step Step // "" while the blob comes
}

// start begins to watch; the function it returns ends that.
func (w *watcher) start(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	w.report()
	ctx, end := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		t := time.NewTicker(reportEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			w.report()
			if err := w.room(); err != nil {
				cancel(w.s.stepFailed(StepUnpack, w.j.desc.Digest.String(), err))
				return
			}
		}
	})
	return func() {
		end()
		done.Wait()
	}
}

// enter reports the next step.
func (w *watcher) enter(s Step) {
	w.mu.Lock()
	w.step = s
	w.mu.Unlock()
	w.report()
}

func (w *watcher) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := news{step: StepFetch}
	n.done, n.fetched = w.d.Progress()
	switch {
	case w.step != "":
		n.step = w.step
	case n.done == w.j.desc.Size:
		n.step = StepUnpack
	}
	w.f.report(n)
}

// room says what is still to come, and asks whether it may.
func (w *watcher) room() error {
	done, _ := w.d.Progress()
	size := w.j.desc.Size
	unpacked := unpackedSize(w.j.desc)
	if size > 0 {
		unpacked = int64(float64(unpacked) * (1 - float64(w.src.Offset())/float64(size)))
	}
	return w.s.room.check(w.f, size-done, unpacked)
}
