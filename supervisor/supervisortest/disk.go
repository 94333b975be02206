package supervisortest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/wherry-run/wherry/image"
)

// Room is a disk that images fill.
type Room struct {
	Total   int64
	Reserve int64
	Image   int64 // what each image takes
	Other   int64 // what is taken by others
}

// Fill sets what others take of the disk.
func (i *Images) Fill(other int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Room.Other = other
}

// Collections is how often Collect was called.
func (i *Images) Collections() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.passes
}

// LastCollection is what the last one was told.
func (i *Images) LastCollection() image.GCOptions {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.told
}

// HeldBy sets what Collect asks for what must stay, as image.Options.Holds.
func (i *Images) HeldBy(holds func(context.Context) ([]image.Hold, error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.holds = holds
}

// Has tells whether the image is here.
func (i *Images) Has(ref string) bool {
	_, err := i.Get(ref)
	return err == nil
}

func (i *Images) freeLocked() int64 {
	free := i.Room.Total - i.Room.Other
	for _, n := range i.sizes {
		free -= n
	}
	return free
}

// takeLocked finds room for an image.
func (i *Images) takeLocked(ref, digest string) error {
	if _, here := i.sizes[digest]; here {
		return nil
	}
	if free := i.freeLocked(); i.Room.Total > 0 && i.Room.Image > free-i.Room.Reserve {
		return fmt.Errorf("image %s: %w: %d needed, %d free, %d kept free", ref, image.ErrNoSpace, i.Room.Image, free, i.Room.Reserve)
	}
	i.sizes[digest] = i.Room.Image
	i.order = append(i.order, digest)
	return nil
}

// Disk is how full Room is.
func (i *Images) Disk() (image.DiskState, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.diskLocked(), nil
}

func (i *Images) diskLocked() image.DiskState {
	d := image.DiskState{Path: "/fake", Total: max(i.Room.Total, 1), Free: i.freeLocked(), Reserve: i.Room.Reserve}
	if i.Room.Total > 0 {
		d.Used = 100 * float64(d.Total-d.Free) / float64(d.Total)
	}
	return d
}

// Collect deletes what has no lease and no hold, the oldest first: with All
// everything, else from High on until Low.
func (i *Images) Collect(ctx context.Context, o image.GCOptions) (image.GCResult, error) {
	held := map[string]bool{}
	i.mu.Lock()
	ask := i.holds
	i.mu.Unlock()
	if ask != nil {
		holds, err := ask(ctx)
		if err != nil {
			return image.GCResult{}, err
		}
		for _, h := range holds {
			held[h.Digest], held[h.Name] = true, true
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.passes++
	i.told = o
	for _, digest := range i.leases {
		held[digest] = true
	}
	var res image.GCResult
	full := o.All || i.diskLocked().Used >= float64(o.High)
	for _, digest := range slices.Clone(i.order) {
		img := i.local[digest]
		if !full || held[digest] || slices.ContainsFunc(img.Names, func(n string) bool { return held[n] }) {
			continue
		}
		if !o.All && i.diskLocked().Used <= float64(o.Low) {
			break
		}
		res.Images = append(res.Images, digest)
		if o.DryRun {
			continue
		}
		maps.DeleteFunc(i.local, func(_ string, img image.Image) bool { return img.Digest == digest })
		res.Freed += i.sizes[digest]
		delete(i.sizes, digest)
		i.order = slices.DeleteFunc(i.order, func(d string) bool { return d == digest })
	}
	res.Disk = i.diskLocked()
	return res, nil
}

// Explain knows only whether the image is here.
func (i *Images) Explain(_ context.Context, ref string, _ image.GCOptions) (image.Explanation, error) {
	img, err := i.Get(ref)
	return image.Explanation{Image: ref, Digest: img.Digest, Stays: true}, err
}

// Usage counts what images take.
func (i *Images) Usage(context.Context) (image.Usage, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	u := image.Usage{Leases: map[string]int64{}}
	for _, digest := range i.order {
		u.Images = append(u.Images, image.ImageUsage{Digest: digest, Names: i.local[digest].Names, Size: i.sizes[digest], Unique: i.sizes[digest]})
	}
	return u, nil
}
