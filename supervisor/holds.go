package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// beginnings are the starts that have no lease yet: from before they look for
// their image until they have prepared its root file system, its deletion
// must not come between.
type beginnings struct {
	mu  sync.Mutex
	all map[string][]image.Hold // by run, or whatever else tells them apart
}

// keep holds images for a start until drop. Empty refs are none.
func (b *beginnings) keep(id, why string, refs ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[string][]image.Hold{}
	}
	for _, ref := range refs {
		if ref != "" {
			b.all[id] = append(b.all[id], holdOf(ref, why))
		}
	}
}

func (b *beginnings) drop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, id)
}

func (b *beginnings) list() []image.Hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []image.Hold
	for _, holds := range b.all {
		list = append(list, holds...)
	}
	return list
}

func holdOf(ref, why string) image.Hold {
	if isDigest(ref) {
		return image.Hold{Digest: ref, Why: why}
	}
	return image.Hold{Name: ref, Why: why}
}

func isDigest(ref string) bool { return len(ref) > 7 && ref[:7] == "sha256:" }

// holds names the images that must not be deleted although no run has a lease
// on them: what is being started, the current revision of every unit, and
// the revisions that a rollback may go to.
func (s *Supervisor) holds(ctx context.Context) ([]image.Hold, error) {
	select {
	case <-s.ready:
	default: // nobody has said yet which units there are
		return nil, fmt.Errorf("%w: the daemon is still starting", ErrUnavailable)
	}
	// In this order: a start begins after its unit can be seen.
	starting := s.beginnings.list()
	snap := s.snap.Load()
	keep := s.opts.Load().GC.KeepRevisions
	var list []image.Hold
	for _, e := range snap.entries {
		if e.unit.Intent != string(plan.Removed) {
			list = append(list, holdsOf(e, keep)...)
		}
	}
	slices.SortFunc(list, func(a, b image.Hold) int { return cmp.Compare(a.Why, b.Why) })
	slices.SortFunc(starting, func(a, b image.Hold) int { return cmp.Compare(a.Why, b.Why) })
	return append(starting, list...), ctx.Err()
}

// holdsOf are those of one unit: its current revision and the latest ones,
// keep of them together.
func holdsOf(e *entry, keep int) []image.Hold {
	var list []image.Hold
	left := max(keep, 1) - 1
	for _, r := range slices.Backward(e.revs) {
		why := fmt.Sprintf("revision %d of unit %s", r.Number, e.unit.Name)
		switch {
		case r.Number == e.rev.Number:
			why = "current " + why
		case left == 0:
			continue
		default:
			left--
		}
		for _, c := range r.Definition.Containers {
			// What the name meant when it was first started.
			list = append(list, holdOf(cmp.Or(r.ImageDigest(c.Name), c.Image), why))
		}
	}
	return list
}

// hold keeps the images of a start until unhold.
func (st *start) hold(refs ...string) {
	st.s.beginnings.keep(st.rec.Run, st.rec.Instance+" is being started", refs...)
}

func (st *start) unhold() { st.s.beginnings.drop(st.rec.Run) }
