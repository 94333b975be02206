package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/wherry-run/wherry/image/internal/index"
)

// VerifyOptions configure one Verify.
type VerifyOptions struct {
	Repair   bool
	Progress func(Progress) // Step "verify" or "repair", bytes of layers
}

// What Progress.Step says during a Verify.
const (
	ProgressVerify = "verify"
	ProgressRepair = "repair"
)

// Verification is what Verify found.
type Verification struct {
	Image  string   `json:"image"` // first name, or the digest
	Digest string   `json:"digest"`
	Layers int      `json:"layers"`
	Files  int      `json:"files"`  // that were compared
	Bytes  int64    `json:"bytes"`  // that were read
	Damage []Damage `json:"damage"` // empty: all is as it was unpacked
}

// Damage is one thing that is not as it was stored.
type Damage struct {
	Layer    string `json:"layer,omitempty"` // diff ID
	Blob     string `json:"blob,omitempty"`  // digest
	Path     string `json:"path,omitempty"`  // in the layer
	What     string `json:"what"`            // "content differs", "missing", ...
	Repaired bool   `json:"repaired"`
}

// Verify compares every file of the image's layers with the manifest that was
// stored when the layer was unpacked, and its blobs with their digests; ref "" means all
// images. Each layer and blob is read once, however many images have it. A
// compressed layer that has gone to make room is no damage.
//
// With Repair a damaged layer is made again from its blob, beside the damaged one,
// and takes its place in one step when it is whole and on the disk; a damaged blob
// is fetched again from the registries of the image's names. What cannot be
// repaired stays as it is. A running container goes on with the layer that it was
// started with, damage included: its files stay until it ends, and its next
// start uses the repaired one.
//
// Damage that is left makes the error ErrCorrupt, and the result says which.
func (s *Store) Verify(ctx context.Context, ref string, o VerifyOptions) ([]Verification, error) {
	s.verifying.Lock() // two at a time would repair the same layer twice
	defer s.verifying.Unlock()
	recs, unpin, err := s.toVerify(ref)
	if err != nil {
		return nil, err
	}
	defer unpin()
	v := newVerifier(s, recs, o)
	if err := v.inspect(ctx); err != nil {
		return nil, fmt.Errorf("verify %s: %w", cmp.Or(ref, "images"), err)
	}
	if o.Repair {
		err = v.repair(ctx)
	}
	if derr := s.dropRetired(); derr != nil {
		s.log.Warn("replaced layers stay on the disk", "err", derr)
	}
	found, left := v.results()
	if left > 0 {
		err = errors.Join(fmt.Errorf("%w: damage is left in %d %s", ErrCorrupt, left, map[bool]string{true: "image", false: "images"}[left == 1]), err)
	}
	if err != nil {
		err = fmt.Errorf("verify %s: %w", cmp.Or(ref, "images"), err)
	}
	return found, err
}

// toVerify finds the images and keeps all that they have from being deleted.
func (s *Store) toVerify(ref string) (recs []index.Image, unpin func(), err error) {
	s.mu.Lock()
	if ref != "" {
		var rec index.Image
		if rec, _, err = s.findLocked(ref); err != nil {
			s.mu.Unlock()
			return nil, nil, err
		}
		recs = append(recs, rec)
	} else {
		for _, rec := range s.idx.Images {
			recs = append(recs, rec)
		}
		slices.SortFunc(recs, func(a, b index.Image) int {
			return cmp.Or(cmp.Compare(s.titleLocked(a), s.titleLocked(b)), cmp.Compare(a.Digest, b.Digest))
		})
	}
	s.mu.Unlock()
	var parts []string
	for _, rec := range recs {
		parts = append(parts, partsOf(rec)...)
	}
	s.pinNames(parts)
	return recs, func() { s.unpinNames(parts) }, nil
}

// titleLocked is what an image is called in lists.
func (s *Store) titleLocked(rec index.Image) string {
	if names := s.idx.NamesOf(rec.Digest); len(names) > 0 {
		return names[0]
	}
	return rec.Digest
}

// verifier is one Verify.
type verifier struct {
	s      *Store
	o      VerifyOptions
	recs   []index.Image
	titles []string

	parts map[string]*part // blobs by digest, layers by key
	order []*part

	mu   sync.Mutex // of what follows, and of the parts' findings; Progress is called with it held
	done []int64    // bytes by image
	size []int64
	told []int64
}

// part is a blob or a layer that is verified.
type part struct {
	name   string
	image  int // the first that has it
	images []int
	layer  int // its place in that image, from 0 at the bottom; -1: a blob
	small  bool

	files  int
	bytes  int64
	damage []Damage
	more   int   // damages that were not kept
	fixed  bool  // all of it
	err    error // why not
}

// maxDamages is how many are kept of one layer.
const maxDamages = 1000

func (p *part) damaged() bool { return len(p.damage) > 0 && !p.fixed }

func newVerifier(s *Store, recs []index.Image, o VerifyOptions) *verifier {
	v := &verifier{s: s, o: o, recs: recs, parts: map[string]*part{}}
	v.done, v.size, v.told = make([]int64, len(recs)), make([]int64, len(recs)), make([]int64, len(recs))
	s.mu.Lock()
	for _, rec := range recs {
		v.titles = append(v.titles, s.titleLocked(rec))
	}
	s.mu.Unlock()
	for i, rec := range recs {
		v.add(part{name: rec.Digest, layer: -1, small: true}, i)
		v.add(part{name: rec.ConfigID, layer: -1, small: true}, i)
		for k, l := range rec.Layers {
			v.add(part{name: l.Digest, layer: -1}, i)
			v.add(part{name: l.Key, layer: k}, i)
		}
	}
	return v
}

func (v *verifier) add(p part, image int) {
	at := v.parts[p.name]
	if at == nil {
		p.image = image
		at = &p
		v.parts[p.name] = at
		v.order = append(v.order, at)
	}
	if slices.Contains(at.images, image) {
		return
	}
	at.images = append(at.images, image)
	if p.layer < 0 {
		n, _ := v.s.blobs.Size(p.name)
		v.size[image] += n
		return
	}
	info, _ := v.s.layers.Get(p.name)
	v.size[image] += info.Size
}

// rec is the layer of a part, and the image it was found in.
func (v *verifier) rec(p *part) (index.Image, index.Layer) {
	rec := v.recs[p.image]
	if p.layer < 0 {
		return rec, index.Layer{}
	}
	return rec, rec.Layers[p.layer]
}

// read counts bytes of a part towards its images.
func (v *verifier) read(p *part, step string, n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p.bytes += n
	if v.o.Progress == nil {
		return
	}
	const every = 4 << 20
	for _, i := range p.images {
		v.done[i] = min(v.done[i]+n, v.size[i])
		if v.done[i]-v.told[i] < every && v.done[i] < v.size[i] {
			continue
		}
		v.told[i] = v.done[i]
		v.o.Progress(Progress{Image: v.titles[i], Step: step, Done: v.done[i], Total: v.size[i]})
	}
}

func (v *verifier) found(p *part, d Damage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(p.damage) == maxDamages {
		p.more++
		return
	}
	p.damage = append(p.damage, d)
}

// results is what is said of each image, and in how many damage is left.
func (v *verifier) results() (all []Verification, left int) {
	for i, rec := range v.recs {
		r := Verification{Image: v.titles[i], Digest: rec.Digest, Layers: len(rec.Layers), Damage: []Damage{}}
		bad := false
		for _, p := range v.order {
			if !slices.Contains(p.images, i) {
				continue
			}
			r.Files += p.files
			r.Bytes += p.bytes
			bad = bad || p.damaged()
			for _, d := range p.damage {
				d.Repaired = p.fixed
				r.Damage = append(r.Damage, d)
			}
			if p.more > 0 {
				last := p.damage[0]
				last.Path, last.What, last.Repaired = "", fmt.Sprintf("and %d more", p.more), p.fixed
				r.Damage = append(r.Damage, last)
			}
		}
		if bad {
			left++
		}
		all = append(all, r)
	}
	return all, left
}
