package image

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// Pull makes the image of ref present and returns it. ref is a name as Docker
// users write it: "nginx", "host:5000/a/b:tag", "a/b@sha256:...". Concurrent
// pulls of one blob share one download. Errors are *StepError, except for a
// name or a policy that is none.
//
// A pull that fails leaves what is whole, and what has come of the other blobs,
// for the next one. If it fails for lack of room, it leaves nothing that it brought.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	r, err := s.parseRef(ref)
	if err != nil {
		return Image{}, err
	}
	p := &pull{s: s, ref: r, name: r.String(), platform: o.Platform.or(s.platform), progress: o.Progress, credentials: o.Credentials}
	switch o.Policy {
	case Missing, Never, "":
		img, ok, err := p.local(ctx, o.Policy == Never)
		if ok || err != nil {
			return img, s.stepFailed(StepResolve, p.name, err)
		}
		if o.Policy == Never {
			return Image{}, s.stepFailed(StepResolve, p.name, fmt.Errorf("%w in the store, and the pull policy is never", ErrNotFound))
		}
	case Always, Newer:
		if r.digest() == "" {
			break
		}
		// Whatever the registry says, it cannot say anything else.
		img, ok, err := p.local(ctx, false)
		if ok || err != nil {
			return img, s.stepFailed(StepResolve, p.name, err)
		}
	default:
		return Image{}, fmt.Errorf("pull policy %q: want missing, always, never or newer", o.Policy)
	}
	run := p.run
	if o.Policy == Newer {
		run = p.newer
	}
	img, err := run(ctx)
	return img, ofImage(p.name, s.stepFailed(StepCommit, p.name, err))
}

// pull is one Pull that may need the registry.
type pull struct {
	s           *Store
	ref         reference
	name        string
	platform    Platform
	credentials *Credentials // the pull's own; nil: none

	mu       sync.Mutex // Progress is called by one goroutine at a time
	progress func(Progress)
	meter    *meter // nil if nothing is to be fetched
	pinned   []string
}

// local looks for the image in the store. A digest in the name is enough: no
// registry can have anything else under it.
func (p *pull) local(ctx context.Context, offline bool) (Image, bool, error) {
	s := p.s
	if err := p.trusted(ctx); err != nil {
		s.log.Warn("a layer that a power cut has damaged has to be pulled again", "image", p.name, "err", err)
	}
	s.mu.Lock()
	rec, ok := p.findLocked()
	s.mu.Unlock()
	if !ok {
		return Image{}, false, nil
	}
	// The policy may have changed since it was pulled.
	if err := p.admit(ctx, admission{digest: rec.Digest, indexes: rec.Indexes, offline: offline}); err != nil {
		return Image{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if again, ok := p.findLocked(); !ok || again.Digest != rec.Digest {
		return Image{}, false, nil // it went meanwhile
	}
	if err := s.nameLocked(p.name, rec); err != nil {
		return Image{}, false, err
	}
	img, err := s.imageLocked(rec)
	if !offline && errors.Is(err, ErrDamaged) {
		s.log.Warn("a damaged image has to be pulled again", "image", p.name, "err", err)
		return Image{}, false, nil
	}
	return img, err == nil, err
}

func (p *pull) findLocked() (index.Image, bool) {
	digest, ok := p.s.idx.Names[p.name]
	if !ok {
		digest = p.ref.digest()
	}
	rec, ok := p.s.idx.Images[digest]
	return rec, ok && p.satisfiedBy(rec)
}

// trusted looks at layers that a power cut may have damaged.
func (p *pull) trusted(ctx context.Context) error {
	p.s.mu.Lock()
	digest, ok := p.s.idx.Names[p.name]
	p.s.mu.Unlock()
	if !ok {
		digest = p.ref.digest()
	}
	return p.s.trusted(ctx, digest)
}

func (p *pull) satisfiedBy(rec index.Image) bool {
	have, err := ParsePlatform(rec.Platform)
	if err == nil && p.platform.rank(have) < 0 {
		return false
	}
	for _, l := range rec.Layers {
		if _, ok := p.s.layers.Get(l.Key); !ok {
			return false // somebody has deleted files: make it whole again
		}
	}
	return true
}

func (p *pull) run(ctx context.Context) (Image, error) {
	s := p.s
	p.report(Progress{Step: string(StepResolve)})
	if err := p.rejected(ctx); err != nil {
		return Image{}, err
	}
	repo := s.connect(p.ref, p.credentials)
	res, err := repo.resolve(ctx, p.ref.Identifier(), p.platform)
	if err != nil {
		return Image{}, s.stepFailed(StepResolve, p.name, err)
	}
	defer res.leave()
	if err := p.admit(ctx, admission{digest: res.digest, indexes: res.indexes, repo: repo}); err != nil {
		return Image{}, err
	}
	p.pin(res)
	defer p.unpin()
	keys, err := p.fetch(ctx, repo, res)
	if err != nil {
		return Image{}, err
	}
	p.report(Progress{Step: string(StepCommit)})
	img, err := p.commit(res, keys)
	if err == nil {
		p.report(Progress{Step: ProgressDone, Done: res.size, Total: res.size})
	}
	return img, err
}

// fetch makes the layers present, if there is room for them.
func (p *pull) fetch(ctx context.Context, repo *repository, res *resolved) (keys []string, err error) {
	s := p.s
	wants := s.wants(res)
	release, err := s.room.claim(wants)
	if err != nil {
		return nil, s.stepFailed(StepFetch, p.name, err)
	}
	defer release()
	if len(wants) > 0 {
		p.meter = newMeter(res, s.now())
	}
	keys, err = p.layers(ctx, repo, res)
	if isNoSpace(err) {
		release()
		err = errors.Join(err, p.withdraw(res, wants))
	}
	return keys, err
}

// withdraw deletes the layers that a pull brought and cannot use for lack of
// room, unless others need them.
func (p *pull) withdraw(res *resolved, wants []want) error {
	brought := map[string]bool{}
	for _, w := range wants {
		brought[w.key] = true
	}
	p.unpin()
	var items []item
	for _, j := range res.layers {
		if brought[j.key()] {
			digest := j.desc.Digest.String()
			items = append(items, item{digest, digest, false}, item{layer.Key(j.diffID), j.diffID, true}, item{layer.Key(j.chain), j.chain, true})
		}
	}
	return p.s.sweepThese(items)
}

// sweepThese deletes the given blobs and layers, unless something needs them.
func (s *Store) sweepThese(items []item) (err error) {
	s.gc.sweep.Lock()
	defer s.gc.sweep.Unlock()
	var m marks
	for _, it := range items {
		there := func() bool { _, ok := s.blobs.Size(it.name); return ok }
		if it.layer {
			there = func() bool { _, ok := s.layers.Get(it.name); return ok }
		}
		_, derr := s.doom(it.name, func() (bool, error) {
			need, err := m.neededLocked(s, it.name)
			return need || !there(), err
		}, func() error {
			_, err := s.delete(it)
			return err
		})
		err = errors.Join(err, derr)
	}
	return err
}

// layers makes all layers present and returns their keys, the lowest first.
func (p *pull) layers(ctx context.Context, repo *repository, res *resolved) ([]string, error) {
	keys := make([]string, len(res.layers))
	ready := make([]chan struct{}, len(res.layers))
	for i := range ready {
		ready[i] = make(chan struct{})
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, j := range res.layers {
		g.Go(func() error {
			key, err := p.layer(ctx, repo, j, func() ([]string, error) {
				below := make([]string, i)
				for k := range i {
					select {
					case <-ready[k]:
						below[i-1-k] = keys[k]
					case <-ctx.Done():
						return nil, context.Cause(ctx)
					}
				}
				return below, nil
			})
			if err != nil {
				return p.s.stepFailed(StepFetch, j.desc.Digest.String(), err)
			}
			keys[i] = key
			close(ready[i])
			return nil
		})
	}
	return keys, g.Wait()
}

// layer makes one layer present. below waits for the layers under it, which
// most layers can do without.
func (p *pull) layer(ctx context.Context, repo *repository, j layerJob, below func() ([]string, error)) (key string, err error) {
	s, digest := p.s, j.desc.Digest.String()
	if key, ok := s.have(j); ok {
		p.report(Progress{Layer: digest, Step: ProgressExists, Done: j.desc.Size, Total: j.desc.Size})
		p.count(digest, news{step: ProgressExists, done: j.desc.Size})
		return key, nil
	}
	f, err := p.fly(ctx, repo, j)
	if f != nil {
		defer func() { err = errors.Join(err, s.flights.leave(f)) }()
	}
	if err != nil {
		return "", err
	}
	if key, ok := s.layers.Find(j.diffID, j.chain); ok {
		p.report(Progress{Layer: digest, Step: ProgressDone, Done: j.desc.Size, Total: j.desc.Size})
		return key, nil
	}
	keys, err := below()
	if err != nil {
		return "", err
	}
	if key, err = s.settle(ctx, f.flight, j, keys); err != nil {
		return "", err
	}
	p.report(Progress{Layer: digest, Step: ProgressDone, Done: j.desc.Size, Total: j.desc.Size})
	return key, nil
}

// fly takes part in the layer's flight to its end. Where another pull's download
// has failed the own registry or credentials may still have the blob.
func (p *pull) fly(ctx context.Context, repo *repository, j layerJob) (*seat, error) {
	s := p.s
	for {
		f := s.flights.join(ctx, j.key(), p.listener(j), func(ctx context.Context, f *flight) error {
			return s.fly(ctx, f, repo, j)
		})
		err := f.wait(ctx)
		var step *StepError
		if err == nil || f.own || ctx.Err() != nil || isNoSpace(err) || !errors.As(err, &step) || step.Step != StepFetch {
			return f, err
		}
		if err := s.flights.leave(f); err != nil {
			return nil, err
		}
	}
}

// listener reports how far a layer is, and the image with it.
func (p *pull) listener(j layerJob) func(news) {
	before, last := int64(-1), news{}
	return func(n news) {
		if before < 0 {
			before = n.fetched // somebody else's, so far
		}
		n.fetched -= before
		if n.fetched < 0 { // the next try
			before, n.fetched = 0, 0
		}
		digest := j.desc.Digest.String()
		if n.step != last.step || n.done != last.done {
			p.report(Progress{Layer: digest, Step: string(n.step), Done: n.done, Total: j.desc.Size})
		}
		last = n
		p.count(digest, n)
	}
}

// pin keeps everything the pull will need from being deleted, from before it
// looks whether it is there.
func (p *pull) pin(res *resolved) {
	p.pinned = append(p.pinned, res.digest, res.configID)
	for _, j := range res.layers {
		p.pinned = append(p.pinned, j.desc.Digest.String(), layer.Key(j.diffID))
		if layer.Key(j.chain) != layer.Key(j.diffID) {
			p.pinned = append(p.pinned, layer.Key(j.chain))
		}
	}
	p.s.pinNames(p.pinned)
}

func (p *pull) unpin() {
	p.s.unpinNames(p.pinned)
	p.pinned = nil
}

func (p *pull) report(pr Progress) {
	if p.progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pr.Image = p.name
	p.progress(pr)
}

// count adds a layer's news to the image's progress and reports that now and then.
func (p *pull) count(digest string, n news) {
	if p.progress == nil || p.meter == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.s.now()
	p.meter.set(digest, n, now)
	if !p.meter.due(now) {
		return
	}
	pr := p.meter.progress()
	pr.Image = p.name
	p.progress(pr)
}
