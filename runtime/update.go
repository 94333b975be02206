package runtime

import (
	"context"
	"path"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Update gives a running container other limits, all of them at once: a limit
// that is not in l is lifted. If one cannot be set, the former ones are back in place.
func (r *Runtime) Update(ctx context.Context, id string, l cgroup.Limits) error {
	return r.repeat(ctx, wire.Update, wire.UpdateRequest{ID: id, Limits: l}, nil)
}

// Pause freezes all processes of a container; it returns when they stand still.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	return r.repeat(ctx, wire.Pause, wire.ContainerRequest{ID: id}, nil)
}

// Resume lets a paused container go on.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	return r.repeat(ctx, wire.Resume, wire.ContainerRequest{ID: id}, nil)
}

// CheckLimits tells what is wrong with limits on this host, before a container is
// made: a controller that is not there is named. On a host without control groups it
// knows nothing.
func (r *Runtime) CheckLimits(l cgroup.Limits) error {
	if _, err := cgroup.Detect(); err != nil {
		return nil
	}
	parent := cgroup.Parent{Path: path.Clean("/" + r.options.CgroupParent)}
	if r.options.CgroupDriver == DriverSystemd {
		parent = cgroup.Parent{Path: "/" + bundle.SliceOf(parent.Path), Scopes: true}
	}
	if err := parent.Check(l); err != nil {
		return err
	}
	_, err := l.Resolve()
	return err
}
