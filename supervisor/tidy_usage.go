package supervisor

import (
	"context"
	"maps"
	"path/filepath"
	"slices"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// DiskUsage measures what takes the space. It may take seconds.
func (s *Supervisor) DiskUsage(ctx context.Context) (api.DiskUsage, error) {
	of, err := s.img.Usage(ctx)
	if err != nil {
		return api.DiskUsage{}, err
	}
	d, err := s.img.Disk()
	if err != nil {
		return api.DiskUsage{}, err
	}
	s.pressure.mu.Lock()
	text := s.pressure.text
	s.pressure.mu.Unlock()
	u := api.DiskUsage{Images: []api.ImageUsage{}, Units: []api.UnitUsage{},
		Blobs: of.Blobs, Layers: of.Layers, Trash: of.Trash, Partial: of.Partial,
		Disk: api.Disk{Path: d.Path, Total: d.Total, Free: d.Free, Reserve: d.Reserve, Used: d.Used, Inodes: d.Inodes, InodesFree: d.InodesFree, Pressure: text}}
	if u.Volumes, err = image.FolderSize(ctx, filepath.Join(s.paths.root, "volumes")); err != nil {
		return api.DiskUsage{}, err
	}
	sizes := map[string]int64{}
	for _, i := range of.Images {
		sizes[i.Digest] = i.Size
	}
	units, err := s.unitUsage(ctx, of, sizes)
	if err != nil {
		return api.DiskUsage{}, err
	}
	u.Units = units
	for _, i := range of.Images {
		w := api.ImageUsage{Digest: i.Digest, Names: i.Names, Size: i.Size, Unique: i.Unique, Units: []string{}}
		for _, un := range units {
			if slices.Contains(un.Images, i.Digest) {
				w.Units = append(w.Units, un.Unit)
			}
		}
		u.Images = append(u.Images, w)
	}
	return u, nil
}

// unitUsage joins what the store says with the units and their runs. Only
// images that are here count.
func (s *Supervisor) unitUsage(ctx context.Context, of image.Usage, sizes map[string]int64) ([]api.UnitUsage, error) {
	records, err := readRecords(s.paths)
	if err != nil {
		return nil, err
	}
	snap := s.snap.Load()
	all := map[string]*api.UnitUsage{}
	unitOf := func(name string) *api.UnitUsage {
		if all[name] == nil {
			all[name] = &api.UnitUsage{Unit: name, Images: []string{}, Containers: []api.ContainerUsage{}}
		}
		return all[name]
	}
	live := map[string]bool{}
	for _, e := range snap.entries {
		u := unitOf(e.unit.Name)
		for _, h := range holdsOf(e, s.opts.Load().GC.KeepRevisions) {
			addUnitImage(u, s.digestOf(h), sizes)
		}
		for _, i := range e.unit.Instances {
			live[i.Run] = i.EndedAt.IsZero()
		}
	}
	for _, id := range slices.Sorted(maps.Keys(records)) {
		rec := records[id]
		if rec.Run == "" {
			continue
		}
		u := unitOf(rec.Unit.Name)
		for i := range rec.Revision.Definition.Containers {
			c, err := s.containerUsage(ctx, rec, &rec.Revision.Definition.Containers[i], of)
			if err != nil {
				return nil, err
			}
			c.Ended = !live[id]
			addUnitImage(u, c.Image, sizes)
			u.Writable, u.Volumes = u.Writable+c.Writable, u.Volumes+c.Volumes
			u.Containers = append(u.Containers, c)
		}
	}
	list := []api.UnitUsage{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		if u.Logs, err = image.FolderSize(ctx, s.paths.unitLogs(name)); err != nil {
			return nil, err
		}
		list = append(list, *u)
	}
	return list, nil
}

// digestOf is the image that a hold means; "" if it is not here.
func (s *Supervisor) digestOf(h image.Hold) string {
	if h.Digest != "" {
		return h.Digest
	}
	img, err := s.img.Get(h.Name)
	if err != nil {
		return ""
	}
	return img.Digest
}

func (s *Supervisor) containerUsage(ctx context.Context, rec record, def *unit.Container, of image.Usage) (api.ContainerUsage, error) {
	c := api.ContainerUsage{Instance: rec.Instance, Run: rec.Run, Image: rec.Revision.ImageDigest(def.Name)}
	if len(rec.Revision.Definition.Containers) > 1 {
		c.Container = def.Name
	}
	dir := s.paths.container(rec.Run, def.Name)
	written, leased := of.Leases[containerID(rec.Run, def.Name)]
	var err error
	if !leased {
		if written, err = image.FolderSize(ctx, filepath.Join(dir, "upper")); err != nil {
			return c, err
		}
	}
	c.Writable = written
	c.Volumes, err = image.FolderSize(ctx, filepath.Join(dir, "volumes"))
	return c, err
}

// addUnitImage counts an image of the unit once.
func addUnitImage(u *api.UnitUsage, digest string, sizes map[string]int64) {
	size, here := sizes[digest]
	if !here || slices.Contains(u.Images, digest) {
		return
	}
	u.Images = append(u.Images, digest)
	u.ImageSize += size
}
