package image

import (
	"slices"
	"time"

	"github.com/wherry-run/wherry/image/internal/index"
)

// commit stores manifest and config and gives the image its name.
func (p *pull) commit(res *resolved, keys []string) (Image, error) {
	s := p.s
	if err := s.blobs.Put(res.configID, res.config); err != nil {
		return Image{}, err
	}
	if err := s.blobs.Put(res.digest, res.manifest); err != nil {
		return Image{}, err
	}
	rec := index.Image{
		Digest: res.digest, ConfigID: res.configID, Size: res.size,
		Platform: res.platform.String(), Layers: []index.Layer{}, PulledAt: time.Now().UTC(), Indexes: res.indexes,
	}
	for i, j := range res.layers {
		rec.Layers = append(rec.Layers, index.Layer{Digest: j.desc.Digest.String(), DiffID: j.diffID, Size: j.desc.Size, Key: keys[i]})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.nameLocked(p.name, rec); err != nil {
		return Image{}, err
	}
	return s.imageLocked(s.idx.Images[res.digest]) // which may have been there, and then says since when
}

// nameLocked makes name stand for rec. An image that loses its last name to it
// stays until it is removed by digest, or by GC.
func (s *Store) nameLocked(name string, rec index.Image) error {
	s.askedLocked(rec.Digest)
	s.touchLocked(rec.Digest)
	old, ok := s.idx.Images[rec.Digest]
	for _, digest := range old.Indexes {
		if !slices.Contains(rec.Indexes, digest) {
			rec.Indexes = append(slices.Clip(rec.Indexes), digest)
		}
	}
	if ok && (name == "" || s.idx.Names[name] == rec.Digest) && sameLayers(old, rec) && len(old.Indexes) == len(rec.Indexes) {
		return nil
	}
	next := s.idx.Clone()
	next.Images[rec.Digest] = rec
	if name != "" { // a loaded image may be without
		next.Names[name] = rec.Digest
	}
	if err := next.Save(); err != nil {
		return err
	}
	s.idx = next
	s.seals.kick()
	return nil
}

func sameLayers(a, b index.Image) bool {
	if len(a.Layers) != len(b.Layers) {
		return false
	}
	for i := range a.Layers {
		if a.Layers[i] != b.Layers[i] {
			return false
		}
	}
	return true
}
