package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// images is the Daemon as an image store.
type images Daemon

// Layers of a pretended pull.
const (
	layerOne = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	layerTwo = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func pretendPull(ref string, progress func(image.Progress)) {
	progress(image.Progress{Image: ref, Step: "resolve"})
	progress(image.Progress{Image: ref, Layer: layerOne, Step: "exists", Done: 1000, Total: 1000})
	progress(image.Progress{Image: ref, Layer: layerTwo, Step: "fetch", Done: 500_000, Total: 2_000_000})
	progress(image.Progress{Image: ref, Layer: layerTwo, Step: "unpack", Done: 2_000_000, Total: 2_000_000})
	progress(image.Progress{Image: ref, Layer: layerTwo, Step: "done", Done: 2_000_000, Total: 2_000_000})
	progress(image.Progress{Image: ref, Step: "done"})
}

// pull pretends to pull; "missing" does not exist, "endless" never ends by
// itself.
func (d *Daemon) pull(ctx context.Context, ref string, o image.PullOptions, by string) (image.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("Pull", ref+" "+string(o.Policy), by); err != nil {
		return image.Image{}, err
	}
	switch ref {
	case "missing":
		return image.Image{}, fmt.Errorf("pull %s: resolve: %w", ref, image.ErrNotFound)
	case "endless":
		o.Progress(image.Progress{Image: ref, Layer: layerOne, Step: "exists", Done: 1000, Total: 1000})
		o.Progress(image.Progress{Image: ref, Layer: layerTwo, Step: "fetch", Done: 500_000, Total: 2_000_000})
		o.Progress(image.Progress{Image: ref, Step: "fetch", Done: 500_000, Total: 2_000_000, Rate: 100_000, Left: 15 * time.Second})
		_ = d.until(ctx, func() bool { return false })
		return image.Image{}, context.Cause(ctx)
	}
	pretendPull(ref, o.Progress)
	return storeImage(d.keep(ref)), nil
}

// keep puts an image into the store; mu is held.
func (d *Daemon) keep(ref string) api.Image {
	i := api.Image{Names: []string{ref}, Digest: layerTwo, ConfigID: layerOne, Platform: "linux/amd64", Size: 2_001_000, PulledAt: time.Now()}
	d.images = append(d.images, i)
	return i
}

// Get finds an image.
func (s *images) Get(ref string) (image.Image, error) {
	d := (*Daemon)(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.ContainsAny(ref, " \\") {
		return image.Image{}, fmt.Errorf("%w %q", image.ErrInvalid, ref)
	}
	n := d.imageAt(ref)
	if n < 0 {
		return image.Image{}, fmt.Errorf("%w: %s", image.ErrNotFound, ref)
	}
	return storeImage(d.images[n]), nil
}

func (d *Daemon) imageAt(ref string) int {
	return slices.IndexFunc(d.images, func(i api.Image) bool {
		return slices.Contains(i.Names, ref) || len(ref) >= 12 && strings.HasPrefix(strings.TrimPrefix(i.ConfigID, "sha256:"), ref)
	})
}

// List lists the images.
func (s *images) List() ([]image.Image, error) {
	d := (*Daemon)(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []image.Image
	for _, i := range d.images {
		all = append(all, storeImage(i))
	}
	return all, d.fail["List"]
}

// Remove takes a name away.
func (s *images) Remove(_ context.Context, ref string) (image.RemoveResult, error) {
	d := (*Daemon)(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("RemoveImage", ref, ""); err != nil {
		return image.RemoveResult{}, err
	}
	n := d.imageAt(ref)
	if n < 0 {
		return image.RemoveResult{}, fmt.Errorf("%w: %s", image.ErrNotFound, ref)
	}
	i := &d.images[n]
	res := image.RemoveResult{Untagged: []string{ref}}
	i.Names = slices.DeleteFunc(slices.Clone(i.Names), func(name string) bool { return name == ref })
	if len(i.Names) == 0 {
		res.Deleted, res.Freed = []string{i.Digest}, i.Size
		d.images = slices.Delete(d.images, n, n+1)
	}
	return res, nil
}

func storeImage(i api.Image) image.Image {
	out := image.Image{Names: i.Names, Digest: i.Digest, ConfigID: i.ConfigID, Platform: i.Platform, Size: i.Size,
		Created: i.Created, PulledAt: i.PulledAt, Config: image.Config(i.Config)}
	for _, l := range i.Layers {
		out.Layers = append(out.Layers, image.Layer(l))
	}
	return out
}
