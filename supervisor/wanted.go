package supervisor

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// wanted is what the loop knows of one unit. Only the loop touches it.
type wanted struct {
	rec    state.Unit
	revs   []state.Revision // oldest first; the slice is never changed in place
	serial uint64           // tells a unit from a later one of the same name

	grace    *time.Duration // of a stop, instead of the unit's own
	rebuilt  bool           // from its runs, because the database did not know it
	attached bool           // somebody stands by to remove it; see autoRemove
	endedAt  time.Time      // since when it has ended for good
	readers  *atomic.Int32  // of its logs, see autoRemove
	started  chan<- error   // hears of the first start, once

	word  string // the state shown last
	since time.Time
	waits []plan.Waiting
}

// revision is the current one.
func (w *wanted) revision() *state.Revision { return w.find(w.rec.Revision) }

func (w *wanted) find(number int) *state.Revision {
	for i := len(w.revs) - 1; i >= 0; i-- {
		if w.revs[i].Number == number {
			return &w.revs[i]
		}
	}
	return nil
}

func (w *wanted) def() *unit.Unit { return &w.revision().Definition }

func (w *wanted) app() *unit.Container { return w.def().Leading() }

func (w *wanted) desired() plan.Desired {
	return plan.Desired{Unit: *w.def(), Revision: w.rec.Revision, Same: w.revision().Same, Intent: w.rec.Intent, Restart: w.rec.Restart}
}

// lazy tells whether the unit may wait for the disk: what lives no longer than
// its one run is found again beside that run, or not needed any more.
func (w *wanted) lazy() bool { return w.rec.AutoRemove }

// clone is for undoing: the loop changes a copy and keeps it once it is on disk.
func (w *wanted) clone() *wanted {
	c := *w
	return &c
}

// ofRun tells whether `run` has made the unit, and no file has taken it over.
func (w *wanted) ofRun() bool {
	return !slices.ContainsFunc(w.revs, func(r state.Revision) bool { return r.Source != sourceRun && r.Source != updateSource })
}

// tell answers whoever waits for the unit's first start. A change that is taken back brings
// the question back: it may have been answered, and nobody be there to hear it again.
func (w *wanted) tell(err error) {
	if w.started == nil {
		return
	}
	select {
	case w.started <- err:
	default:
	}
	w.started = nil
}

// setDigests records what the images' names meant when the revision first started,
// by container; nil: it is known.
func (w *wanted) setDigests(number int, digests map[string]string, stale bool) *state.Revision {
	revs := append([]state.Revision(nil), w.revs...)
	for i := range revs {
		missing := func(c unit.Container) bool { return revs[i].ImageDigest(c.Name) == "" }
		if revs[i].Number == number && slices.ContainsFunc(revs[i].Definition.Containers, missing) {
			revs[i] = revs[i].WithDigests(digests, stale)
			w.revs = revs
			return &revs[i]
		}
	}
	return nil
}

// wireExit is how an instance's last run ended, as the API says it.
func wireExit(e *state.Ended) *api.Exit {
	if e == nil {
		return nil
	}
	return &api.Exit{Code: e.Code, Signal: e.Signal, OOM: e.OOM, Unknown: e.Unknown, Cause: e.Cause, At: e.EndedAt}
}
