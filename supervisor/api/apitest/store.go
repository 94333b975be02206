package apitest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// operation is a pretended pull under way.
type operation struct {
	api.Operation
	abort context.CancelCauseFunc
}

// StartPull begins a pretended pull.
func (d *Daemon) StartPull(ref string, o image.PullOptions, by string) (string, func(context.Context) (image.Image, error), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made++
	id := fmt.Sprintf("pull-%d", d.made)
	ctx, abort := context.WithCancelCause(context.Background())
	d.operations[id] = &operation{abort: abort, Operation: api.Operation{ID: id, Kind: "pull", Object: ref, By: by, StartedAt: time.Now(),
		Step: "fetch", Done: 500_000, Total: 2_000_000, Rate: 100_000, Left: 15 * time.Second}}
	var img image.Image
	var err error
	done := make(chan struct{})
	go func() { // ends by itself or with AbortOperation
		defer close(done)
		img, err = d.pull(ctx, ref, o, by)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.operations, id)
		d.change()
	}()
	return id, func(ctx context.Context) (image.Image, error) {
		select {
		case <-done:
			return img, err
		case <-ctx.Done():
			return image.Image{}, ctx.Err()
		}
	}, nil
}

// AddOperation puts an operation there that never ends by itself.
func (d *Daemon) AddOperation(o api.Operation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.operations[o.ID] = &operation{Operation: o, abort: func(error) {}}
}

// Operations lists what is under way.
func (d *Daemon) Operations() []api.Operation {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []api.Operation{}
	for _, id := range slices.Sorted(maps.Keys(d.operations)) {
		list = append(list, d.operations[id].Operation)
	}
	return list
}

// AbortOperation ends an operation.
func (d *Daemon) AbortOperation(id, by string) (api.Abort, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.operations[id]
	if o == nil {
		return api.Abort{}, fmt.Errorf("%w: %s", api.ErrNoSuchOperation, id)
	}
	a := api.Abort{Operation: o.Operation}
	for _, other := range d.operations {
		a.GoesOn = a.GoesOn || other != o && other.Object == o.Object
	}
	o.abort(fmt.Errorf("%w by %s", api.ErrAborted, by))
	delete(d.operations, id)
	d.change()
	return a, d.called("Abort", id, by)
}

// Load reads a pretended archive: lines of "image NAME", or "nameless"; what
// begins otherwise is none, and "torn" in it makes it broken.
func (s *images) Load(_ context.Context, r io.Reader, o image.LoadOptions) ([]image.Image, error) {
	d := (*Daemon)(s)
	var names []string
	var size int64
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		size += int64(len(line))
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "image ")
		switch {
		case ok:
			names = append(names, name)
		case size == int64(len(line)) && line != "" && line != "nameless\n":
			return nil, fmt.Errorf("load: archive: %w: neither a docker archive nor an OCI layout", image.ErrCorrupt)
		case strings.HasPrefix(line, "torn"):
			o.Progress(image.Progress{Layer: layerOne, Step: "unpack", Done: size})
			return nil, fmt.Errorf("load: archive: %w: it ends in the middle of a file", image.ErrCorrupt)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("Load", fmt.Sprintf("%d bytes %s", size, o.Name), ""); err != nil {
		return nil, err
	}
	return d.loaded(names, o), nil
}

func (d *Daemon) loaded(names []string, o image.LoadOptions) []image.Image {
	if len(names) == 0 && o.Name != "" {
		names = []string{o.Name}
	}
	var all []image.Image
	for _, name := range names {
		o.Progress(image.Progress{Image: name, Layer: layerOne, Step: "done", Done: 1000, Total: 1000})
		all = append(all, storeImage(d.keep(name)))
	}
	if len(names) == 0 {
		i := d.keep("")
		i.Names = nil
		all = append(all, storeImage(i))
	}
	return all
}

// LoadFolder loads a folder that has an index.json.
func (s *images) LoadFolder(_ context.Context, dir string, o image.LoadOptions) ([]image.Image, error) {
	d := (*Daemon)(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("LoadFolder", dir, ""); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		return nil, fmt.Errorf("load %s: %w: no OCI layout", dir, image.ErrCorrupt)
	}
	return d.loaded([]string{"from-folder:1"}, o), nil
}

// Save writes what Load reads. The image "torn" breaks off in the middle.
func (s *images) Save(_ context.Context, w io.Writer, f image.Format, refs []string) error {
	d := (*Daemon)(s)
	if err := d.wanted("Save", string(f), refs); err != nil {
		return err
	}
	for _, ref := range refs {
		if _, err := fmt.Fprintf(w, "image %s\n", ref); err != nil {
			return err
		}
		if ref == "torn" {
			return fmt.Errorf("save torn: layer %s: %w", layerOne[:19], image.ErrCorrupt)
		}
	}
	return nil
}

// SaveFolder writes an index.json.
func (s *images) SaveFolder(_ context.Context, dir string, refs []string) error {
	if err := (*Daemon)(s).wanted("SaveFolder", dir, refs); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), []byte(strings.Join(refs, "\n")), 0o600)
}

func (d *Daemon) wanted(method, what string, refs []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called(method, what+" "+strings.Join(refs, " "), ""); err != nil {
		return err
	}
	for _, ref := range refs {
		if ref != "torn" && d.imageAt(ref) < 0 {
			return fmt.Errorf("save: %w: %s", image.ErrNotFound, ref)
		}
	}
	return nil
}

// Break damages an image.
func (d *Daemon) Break(digest string, damage ...image.Damage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.damage[digest] = damage
}

// Verify finds what Break has done. Damage of blobs can be repaired.
func (s *images) Verify(_ context.Context, ref string, o image.VerifyOptions) ([]image.Verification, error) {
	d := (*Daemon)(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("Verify", fmt.Sprint(ref, " ", o.Repair), ""); err != nil {
		return nil, err
	}
	var all []image.Verification
	left := false
	for n, i := range d.images {
		if ref != "" && n != d.imageAt(ref) {
			continue
		}
		o.Progress(image.Progress{Image: i.Names[0], Step: "verify", Done: 1000, Total: 2000})
		v := image.Verification{Image: i.Names[0], Digest: i.Digest, Layers: 2, Files: 120, Bytes: 2000}
		for _, x := range d.damage[i.Digest] {
			x.Repaired = o.Repair && x.Blob != ""
			left = left || !x.Repaired
			v.Damage = append(v.Damage, x)
		}
		all = append(all, v)
	}
	switch {
	case len(all) == 0 && ref != "":
		return nil, fmt.Errorf("%w: %s", image.ErrNotFound, ref)
	case left:
		return all, fmt.Errorf("verify: %w", image.ErrCorrupt)
	}
	return all, nil
}

// CollectImages deletes all images, and a compressed layer as if the disk were too full
// even then.
func (d *Daemon) CollectImages(_ context.Context, o image.GCOptions) (image.GCResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var r image.GCResult
	r.Disk = image.DiskState{Path: "/var/lib/wherry", Total: 100e9, Free: 40e9, Reserve: 1e9, Used: 60}
	if err := d.called("CollectImages", fmt.Sprintf("all %v dry %v", o.All, o.DryRun), ""); err != nil || !o.All {
		return r, err
	}
	for _, i := range d.images {
		r.Images = append(r.Images, i.Digest)
		r.Freed += i.Size
	}
	r.Deleted, r.Blobs = r.Images, []string{"sha256:00c0ffee"}
	if !o.DryRun {
		d.images = nil
	}
	return r, nil
}

// ExplainImage says that web needs the image.
func (d *Daemon) ExplainImage(_ context.Context, ref string) (image.Explanation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.imageAt(ref)
	if n < 0 {
		return image.Explanation{}, fmt.Errorf("%w: %s", image.ErrNotFound, ref)
	}
	i := d.images[n]
	return image.Explanation{Image: i.Names[0], Digest: i.Digest, Stays: true, Size: 3 * i.Size, Frees: i.Size, LastUse: i.PulledAt,
		Reasons: []string{"container web.1-7f3k uses it", "revision 3 of unit web"}}, nil
}

// DiskUsage is that of the images and units there are.
func (d *Daemon) DiskUsage(context.Context) (api.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := api.DiskUsage{Disk: api.Disk{Path: "/var/lib/wherry", Total: 100e9, Free: 12e9, Reserve: 1e9, Used: 88}, Volumes: 5e6}
	for _, i := range d.images {
		u.Images = append(u.Images, api.ImageUsage{Digest: i.Digest, Names: i.Names, Size: 3 * i.Size, Unique: i.Size, Units: []string{"web"}})
		u.Blobs, u.Layers = u.Blobs+i.Size, u.Layers+2*i.Size
	}
	for _, name := range d.sorted() {
		x := api.UnitUsage{Unit: name, ImageSize: 9e6, Logs: 3000}
		for _, i := range d.units[name].Instances {
			x.Containers = append(x.Containers, api.ContainerUsage{Instance: i.Name, Run: i.Run, Writable: 12_000})
			x.Writable += 12_000
		}
		u.Units = append(u.Units, x)
	}
	return u, d.called("DiskUsage", "", "")
}
