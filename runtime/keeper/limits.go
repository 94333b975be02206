package keeper

import (
	"context"
	"errors"

	"github.com/wherry-run/wherry/cgroup"
)

// setLimits gives a running container other limits.
func (k *Keeper) setLimits(id string, l cgroup.Limits) error { return errors.ErrUnsupported }

// pause freezes a container's processes.
func (k *Keeper) pause(ctx context.Context, id string) error { return errors.ErrUnsupported }

// resume lets them go on.
func (k *Keeper) resume(id string) error { return errors.ErrUnsupported }
