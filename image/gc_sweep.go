package image

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/wherry-run/wherry/image/internal/index"
)

// Deleting goes in two steps. First an image leaves the index: nobody can find
// it any more. Then a sweep deletes the blobs and layers that nothing needs,
// one by one and without the lock of the store, so that pulls and starts go on
// meanwhile. Whatever a pull pins from then on is spared; what is being
// deleted at that very moment the pull waits for, and finds it gone.

// sweeping is the part of the store that deletes.
type sweeping struct {
	collect sync.Mutex // held by a collection
	sweep   sync.Mutex // held by a sweep

	// Below the lock of the store:
	doomed map[string]chan struct{} // being deleted; closed when it is gone
	asked  map[string]bool          // images somebody asked for during a collection
	uses   uint64                   // counts changes of leases
}

// pinNames keeps blobs and layers from being deleted until unpinNames. When it
// returns, what is there stays.
func (s *Store) pinNames(names []string) {
	var gone []chan struct{}
	s.mu.Lock()
	for _, name := range names {
		s.pins[name]++
		if c := s.gc.doomed[name]; c != nil {
			gone = append(gone, c)
		}
	}
	s.mu.Unlock()
	for _, c := range gone {
		<-c
	}
}

func (s *Store) unpinNames(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if s.pins[name]--; s.pins[name] == 0 {
			delete(s.pins, name)
		}
	}
}

// setLeaseLocked takes a lease, which is a use of the image.
func (s *Store) setLeaseLocked(l index.Lease) error {
	s.gc.uses++
	if err := s.idx.SetLease(l); err != nil {
		return err
	}
	s.touchLocked(l.Digest)
	return nil
}

// dropLeaseLocked ends a lease. Until now the image was in use.
func (s *Store) dropLeaseLocked(id string) error {
	s.gc.uses++
	if l, ok := s.idx.Lease(id); ok {
		s.touchLocked(l.Digest)
	}
	return s.idx.DropLease(id)
}

// touchLocked notes when an image was used. If that cannot be noted, it only
// seems less used than it is.
func (s *Store) touchLocked(digest string) {
	if _, ok := s.idx.Images[digest]; !ok {
		return
	}
	if err := s.idx.Touch(digest, s.now()); err != nil {
		s.log.Warn("last use of an image not noted", "image", digest, "err", err)
	}
}

// needed is the mark phase: the blobs and layer keys that must stay.
func needed(x *index.Index, leases []index.Lease, pins map[string]int) map[string]bool {
	keep := map[string]bool{}
	for _, rec := range x.Images {
		keep[rec.Digest], keep[rec.ConfigID] = true, true
		for _, l := range rec.Layers {
			keep[l.Digest], keep[l.Key] = true, true
		}
	}
	for _, l := range leases {
		for _, key := range l.Keys {
			keep[key] = true
		}
	}
	for name := range pins {
		keep[name] = true
	}
	return keep
}

// marks is the mark phase, done anew whenever it could come out differently.
type marks struct {
	idx  *index.Index // as it was: an index that is in use never changes
	uses uint64
	keep map[string]bool
}

func (m *marks) neededLocked(s *Store, name string) (bool, error) {
	if m.idx != s.idx || m.uses != s.gc.uses {
		leases, err := s.leasesLocked()
		if err != nil {
			return false, err
		}
		m.idx, m.uses, m.keep = s.idx, s.gc.uses, needed(s.idx, leases, nil)
	}
	return m.keep[name] || s.pins[name] > 0, nil
}

// item is a blob or a layer.
type item struct {
	name   string // as the index has it
	digest string // for people
	layer  bool
}

// items lists all blobs and layers there are.
func (s *Store) items() ([]item, error) {
	keys, err := s.layers.List()
	if err != nil {
		return nil, err
	}
	blobs, err := s.blobs.List()
	if err != nil {
		return nil, err
	}
	known, err := s.blobs.Known()
	if err != nil {
		return nil, err
	}
	var all []item
	for _, key := range keys {
		all = append(all, item{key, digestOfPart(key), true})
	}
	blobs = append(blobs, known...)
	slices.Sort(blobs)
	for _, digest := range slices.Compact(blobs) {
		all = append(all, item{digest, digest, false})
	}
	return all, nil
}

// sweep deletes what nothing needs.
func (s *Store) sweep(ctx context.Context, res *RemoveResult) error {
	s.gc.sweep.Lock()
	defer s.gc.sweep.Unlock()
	all, err := s.items()
	if err != nil {
		return err
	}
	var m marks
	for _, it := range all {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
			break
		}
		var n int64
		gone, rerr := s.doom(it.name, func() (bool, error) { return m.neededLocked(s, it.name) }, func() (err error) {
			n, err = s.delete(it)
			return err
		})
		err = errors.Join(err, rerr)
		if gone {
			res.Deleted = append(res.Deleted, it.digest)
			res.Freed += n
		}
	}
	res.tidy()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.idx.ForgetUse())
}

// tidy sorts what was deleted; a layer and its blob can have the same digest.
func (r *RemoveResult) tidy() {
	slices.Sort(r.Deleted)
	r.Deleted = slices.Compact(r.Deleted)
}

// digestOfPart is the name of a blob or layer for people.
func digestOfPart(name string) string {
	if strings.HasPrefix(name, "sha256:") {
		return name
	}
	return "sha256:" + name
}

// doom deletes a blob or layer, unless it is needed. Who pins it meanwhile waits.
func (s *Store) doom(name string, neededLocked func() (bool, error), del func() error) (gone bool, err error) {
	s.mu.Lock()
	need, err := neededLocked()
	if need || err != nil {
		s.mu.Unlock()
		return false, err
	}
	over := make(chan struct{})
	s.gc.doomed[name] = over
	s.mu.Unlock()
	defer close(over)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.gc.doomed, name)
	}()
	err = del()
	return err == nil, err
}

func (s *Store) delete(it item) (int64, error) {
	if !it.layer {
		n, err := s.blobs.Remove(it.name)
		return onDisk(n), errors.Join(err, s.blobs.Forget(it.name))
	}
	n, err := s.layers.Remove(it.name)
	if t, ok := s.sizes.take(it.name); ok {
		n = t.Bytes
	}
	return n, err
}
