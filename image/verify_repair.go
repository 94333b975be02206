package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// StepRepair is the step of errors of a repair.
const StepRepair Step = "repair"

// repair makes right what inspect has found, blobs before the layers that are made
// of them, and of an image's layers the lowest first, as others may be made for
// the ones below them. It goes on after an error: what can be repaired, is.
func (v *verifier) repair(ctx context.Context) (err error) {
	for _, layers := range []bool{false, true} {
		for _, p := range v.order {
			if !p.damaged() || p.layer >= 0 != layers {
				continue
			}
			if ctx.Err() != nil {
				return errors.Join(err, context.Cause(ctx))
			}
			rec, l := v.rec(p)
			object, kind := p.name, "blob"
			if layers {
				object, kind = l.DiffID, "layer"
				p.err = v.repairLayer(ctx, p, rec)
			} else {
				p.err = v.s.repairBlob(ctx, p, v.images(p))
			}
			if p.fixed = p.err == nil; p.fixed {
				v.s.log.Info("repaired", "image", v.titles[p.image], kind, object, "damages", len(p.damage)+p.more)
				continue
			}
			err = errors.Join(err, &StepError{Step: StepRepair, Object: object, Image: v.titles[p.image], Err: p.err})
		}
	}
	return err
}

// images are the records of all images that have the part.
func (v *verifier) images(p *part) []index.Image {
	var all []index.Image
	for _, i := range p.images {
		all = append(all, v.recs[i])
	}
	return all
}

func (v *verifier) repairLayer(ctx context.Context, p *part, rec index.Image) error {
	s, l := v.s, rec.Layers[p.layer]
	for _, below := range rec.Layers[:p.layer] {
		if q := v.parts[below.Key]; q.damaged() {
			return fmt.Errorf("the layer %s below it is damaged", below.DiffID)
		}
	}
	// The blob: bad ones that could not be fetched again are of no use.
	if q := v.parts[l.Digest]; q.damaged() {
		return fmt.Errorf("its compressed layer is damaged too: %w", q.err)
	}
	v.read(p, ProgressRepair, 0)
	if _, ok := s.blobs.Size(l.Digest); !ok {
		if err := s.refetchLayers(ctx, v.images(p), l); err != nil {
			return err
		}
	}
	return s.remake(ctx, rec, p.layer)
}

// remake unpacks a layer again from its stored blob and puts it in the place of
// the one that is there.
func (s *Store) remake(ctx context.Context, rec index.Image, at int) error {
	l := rec.Layers[at]
	form := s.form()
	if old, ok := s.layers.Get(l.Key); ok {
		form = old.Form
	}
	release, err := s.room.claim([]want{{key: "repair " + l.Key, unpacked: s.sizeOfLayer(l)}})
	if err != nil {
		return err
	}
	defer release()
	stage, info, err := s.again(ctx, rec, at, form)
	if err != nil {
		return err
	}
	keep, err := s.leased(l.Key)
	if err == nil {
		err = stage.Replace(l.Key, info, s.sync.Sync, keep)
	}
	if err != nil {
		return s.stepFailed(StepCommit, l.DiffID, errors.Join(err, stage.Discard()))
	}
	s.seals.drop(l.Key)
	return nil
}

// sizeOfLayer is what a layer will take when it is unpacked.
func (s *Store) sizeOfLayer(l index.Layer) int64 {
	if info, ok := s.layers.Get(l.Key); ok {
		return info.Size
	}
	return int64(ratioGzip * float64(l.Size))
}

// again unpacks the layer of an image from its stored blob, as it has to be above
// those below it, into a stage that is complete.
func (s *Store) again(ctx context.Context, rec index.Image, at int, form layer.Form) (*layer.Stage, layer.Info, error) {
	l, chain := rec.Layers[at], ""
	var below []string
	for _, b := range rec.Layers[:at+1] {
		chain = chainID(chain, b.DiffID)
	}
	for _, b := range slices.Backward(rec.Layers[:at]) {
		below = append(below, b.Key)
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, layer.Info{}, context.Cause(ctx)
	}
	defer func() { <-s.slots }()
	lower, err := s.layers.Lower(below...)
	if err != nil {
		return nil, layer.Info{}, s.stepFailed(StepUnpack, l.DiffID, err)
	}
	defer lower.Close()
	for {
		stage, res, err := s.unpackStored(ctx, l, form, lower)
		if err != nil {
			return nil, layer.Info{}, s.stepFailed(StepUnpack, l.DiffID, err)
		}
		if !res.NeedsLower {
			return stage, infoOf(res, chain), nil
		}
		if form = stage.RetryForm(); form == layer.EROFS {
			return nil, layer.Info{}, s.stepFailed(StepUnpack, l.DiffID, errors.Join(layer.ErrNeedsLower, stage.Discard()))
		}
		if err := stage.Discard(); err != nil {
			return nil, layer.Info{}, s.stepFailed(StepUnpack, l.DiffID, err)
		}
	}
}

// unpackStored unpacks once. NeedsLower: the form cannot hold the layer.
func (s *Store) unpackStored(ctx context.Context, l index.Layer, form layer.Form, lower *layer.Lower) (*layer.Stage, layer.Result, error) {
	file, err := s.blobs.Open(l.Digest)
	if err != nil {
		return nil, layer.Result{}, err
	}
	defer file.Close()
	stage, err := s.layers.Stage(form)
	if err != nil {
		return nil, layer.Result{}, err
	}
	res, err := stage.Unpack(ctx, &checkedReader{ctx: ctx, r: file}, layer.Options{Lower: lower, Room: s.roomAlone})
	if err == nil && res.DiffID != l.DiffID {
		err = fmt.Errorf("%w: the stored blob unpacks to %s", ErrCorrupt, res.DiffID)
	}
	if err != nil {
		return nil, layer.Result{}, errors.Join(err, stage.Discard())
	}
	return stage, res, nil
}

// leased tells whether a container uses the layer.
func (s *Store) leased(key string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases, err := s.leasesLocked()
	return err == nil && slices.ContainsFunc(leases, func(l index.Lease) bool { return slices.Contains(l.Keys, key) }), err
}

// dropRetired deletes replaced layers whose containers have ended.
func (s *Store) dropRetired() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases, err := s.leasesLocked()
	if err != nil {
		return err
	}
	return s.layers.DropRetired(func(key string) bool {
		return slices.ContainsFunc(leases, func(l index.Lease) bool { return slices.Contains(l.Keys, key) })
	})
}

// repairBlob fetches a blob again. The damaged one gives way only to a good one.
func (s *Store) repairBlob(ctx context.Context, p *part, recs []index.Image) (err error) {
	if p.small {
		return s.repairSmall(ctx, p.name, recs)
	}
	restore, err := s.blobs.SetAside(p.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	for _, l := range recs[0].Layers {
		if l.Digest == p.name {
			return s.refetchLayers(ctx, recs, l)
		}
	}
	return ErrNotFound
}

// repairSmall fetches a manifest or config.
func (s *Store) repairSmall(ctx context.Context, digest string, recs []index.Image) error {
	err := s.eachRegistry(s.namesOf(recs), func(r *repository) error {
		b, err := s.small(ctx, r, digest, recs)
		if err != nil {
			return err
		}
		return s.blobs.Put(digest, b)
	})
	return s.stepFailed(StepFetch, digest, err)
}

// small asks a registry for a manifest, or for the config that one names.
func (s *Store) small(ctx context.Context, r *repository, digest string, recs []index.Image) ([]byte, error) {
	for _, rec := range recs {
		if digest != rec.Digest && digest != rec.ConfigID {
			continue
		}
		m, err := r.Manifest(ctx, rec.Digest)
		if err != nil {
			return nil, err
		}
		if digest == rec.Digest {
			return m.Body, nil
		}
		man, err := parseManifest(m)
		if err != nil {
			return nil, err
		}
		return r.Small(ctx, man.Config, maxConfig)
	}
	return nil, ErrNotFound
}
