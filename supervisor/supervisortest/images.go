package supervisortest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/image"
)

// Images is an image store and its registry, which has every image.
type Images struct {
	// Fail, if set, may make the n-th pull (from 1) of ref fail.
	Fail func(ref string, n int) error
	// Refuse, if set, is the trust policy for what is here.
	Refuse func(ref, digest string) error
	// Takes is how long a pull takes.
	Takes time.Duration
	// Config is that of every image.
	Config image.Config
	// Room is the disk; zero: one that never fills.
	Room Room

	mu     sync.Mutex
	local  map[string]image.Image // by name and by digest
	moved  map[string]int         // how often a tag was pushed anew
	leases map[string]string
	pulls  map[string]int
	sizes  map[string]int64 // by digest
	order  []string         // digests as they were pulled
	passes int              // of Collect
	told   image.GCOptions  // of the last Collect
	broken map[string]bool  // digests that Prepare finds damaged
	holds  func(context.Context) ([]image.Hold, error)
}

// NewImages makes an empty store.
func NewImages() *Images {
	return &Images{local: map[string]image.Image{}, moved: map[string]int{}, leases: map[string]string{}, pulls: map[string]int{}, sizes: map[string]int64{}, broken: map[string]bool{},
		Config: image.Config{Cmd: []string{"/bin/app"}}}
}

// Push lets a tag mean something new in the registry.
func (i *Images) Push(ref string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.moved[ref]++
}

// Pulls is how often the registry was asked for ref.
func (i *Images) Pulls(ref string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pulls[ref]
}

// Forget removes every image, leased or not.
func (i *Images) Forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.local)
	clear(i.sizes)
	i.order = nil
}

// Damage takes a layer of the image away: Prepare fails until it is pulled again.
func (i *Images) Damage(digest string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken[digest] = true
}

// whole finds an image of which nothing is damaged.
func (i *Images) whole(ref string) (image.Image, bool) {
	img, err := i.Get(ref)
	i.mu.Lock()
	defer i.mu.Unlock()
	return img, err == nil && !i.broken[img.Digest]
}

// Pull makes an image present.
func (i *Images) Pull(ctx context.Context, ref string, o image.PullOptions) (image.Image, error) {
	if o.Policy != image.Always {
		if img, ok := i.whole(ref); ok {
			return img, nil
		}
	}
	if o.Policy == image.Never {
		return image.Image{}, fmt.Errorf("%w: %s", image.ErrNotFound, ref)
	}
	i.mu.Lock()
	i.pulls[ref]++
	n, digest := i.pulls[ref], i.digest(ref)
	i.mu.Unlock()
	if o.Progress != nil {
		o.Progress(image.Progress{Image: ref, Step: "resolve"})
	}
	if i.Takes > 0 {
		select {
		case <-time.After(i.Takes):
		case <-ctx.Done():
			return image.Image{}, ctx.Err()
		}
	}
	if i.Fail != nil {
		if err := i.Fail(ref, n); err != nil {
			return image.Image{}, err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.takeLocked(ref, digest); err != nil {
		return image.Image{}, err
	}
	delete(i.broken, digest)
	img := image.Image{Names: []string{ref}, Digest: digest, Config: i.Config}
	i.local[ref], i.local[digest] = img, img
	return img, nil
}

func (i *Images) digest(ref string) string {
	if _, digest, ok := strings.Cut(ref, "@"); ok {
		return digest
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", ref, i.moved[ref]))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Get finds an image by name or digest.
func (i *Images) Get(ref string) (image.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	img, ok := i.local[ref]
	if !ok {
		return image.Image{}, fmt.Errorf("%w: %s", image.ErrNotFound, ref)
	}
	return img, nil
}

// Admit asks Refuse.
func (i *Images) Admit(_ context.Context, ref, digest string, _ image.PullOptions) error {
	if i.Refuse == nil {
		return nil
	}
	return i.Refuse(ref, digest)
}

// Prepare takes a lease.
func (i *Images) Prepare(_ context.Context, digest, id, _ string, _ image.PrepareOptions) ([]specs.Mount, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.local[digest]; !ok {
		return nil, fmt.Errorf("%w: %s", image.ErrNotFound, digest)
	}
	if i.broken[digest] {
		return nil, fmt.Errorf("prepare %s: layer: %w", id, image.ErrDamaged)
	}
	i.leases[id] = digest
	return []specs.Mount{{Type: "overlay", Source: "overlay", Destination: "/"}}, nil
}

// Release ends a lease.
func (i *Images) Release(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.leases, id)
	return nil
}

// Leases lists the ids that hold images.
func (i *Images) Leases() ([]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(maps.Keys(i.leases)), nil
}

// Close does nothing: the store outlives the supervisor.
func (i *Images) Close() error { return nil }
