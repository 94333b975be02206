package keeper

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// share gives the groups above containers what their shares and reservations
// need there: the kernel divides level by level, so that a weight, or memory
// that is kept, would count for nothing if the groups above had none. Run is the
// group of a run of which something has changed. Where v1 is, weights count
// within a run only.
func (k *Keeper) share(ctx context.Context, run string) error {
	if !cgroupUnified() {
		return nil
	}
	k.scopes.sharing.Lock()
	defer k.scopes.sharing.Unlock()
	if !stands(run) {
		return k.shareMemory(ctx, run, cgroup.Share{})
	}
	g := cgroup.Group{Path: run}
	was, err := g.Share()
	if err != nil {
		return err
	}
	sum, err := g.Sum(nil)
	if err != nil {
		return err
	}
	if err := k.setShare(ctx, g, was, sum); err != nil || sum.MemoryLow == was.MemoryLow {
		return err
	}
	return k.shareMemory(ctx, run, sum)
}

// stands tells whether the group of a run is there. A scope without the process that keeps it is just going.
func stands(run string) bool {
	if isScope(run) {
		kept, err := scopeKept(run)
		return err == nil && kept
	}
	_, err := os.Stat(groupTree + run)
	return err == nil
}

// shareMemory has memory kept in the groups above one, as far as they are ours.
func (k *Keeper) shareMemory(ctx context.Context, group string, share cgroup.Share) error {
	for child := group; ; child = group {
		group = path.Dir(child)
		if !k.ours(group) {
			if group != "/" && share.MemoryLow > 0 {
				k.logger.Warn("a reservation of memory holds as far as this group has one, which is not ours to set", "group", group)
			}
			return nil
		}
		g := cgroup.Group{Path: group}
		was, err := g.Share()
		if err != nil {
			return err
		}
		if share.MemoryLow == 0 && was.MemoryLow == 0 { // as nearly always, and the sum reads the files of all runs
			return nil
		}
		// systemd may not have come to write what it was told a moment ago.
		sum, err := g.Sum(map[string]cgroup.Share{path.Base(child): share})
		if err != nil {
			return err
		}
		if sum.MemoryLow == was.MemoryLow {
			return nil
		}
		share = was
		share.MemoryLow = sum.MemoryLow
		if err := k.setShare(ctx, g, was, share); err != nil {
			return err
		}
	}
}

// shareOf is share where nothing depends on it.
func (k *Keeper) shareOf(ctx context.Context, st *state) {
	if err := k.share(ctx, path.Dir(st.Cgroup)); err != nil {
		k.logger.Warn("shares and reservations may not hold", "unit", st.Unit, "container", st.ID, "err", err)
	}
}

// ours tells whether a group is there for our containers alone.
func (k *Keeper) ours(group string) bool {
	if group == "/" {
		return false
	}
	return group == k.cgroupParent || path.Base(group) == bundle.SliceOf(k.cgroupParent) && !sharedSlice(path.Base(group)) ||
		strings.HasPrefix(k.cgroupParent, group+"/") && isUnit(group) && !strings.HasSuffix(group, ".slice")
}

// sharedSlice tells whether systemd puts others' units there, too.
func sharedSlice(name string) bool {
	switch name {
	case "system.slice", "user.slice", "machine.slice":
		return true
	}
	return false
}

// isUnit tells whether systemd made the group.
func isUnit(group string) bool {
	for _, suffix := range []string{".scope", ".service", ".slice"} {
		if strings.HasSuffix(group, suffix) {
			st, err := os.Lstat("/run/systemd/system")
			return err == nil && st.IsDir()
		}
	}
	return false
}

// setShare writes the files, or asks systemd where it would write over them.
func (k *Keeper) setShare(ctx context.Context, g cgroup.Group, was, s cgroup.Share) error {
	if !isUnit(g.Path) {
		return g.SetShare(s)
	}
	values := map[string]uint64{}
	if s.CPUWeight != was.CPUWeight {
		values["CPUWeight"] = s.CPUWeight
	}
	if s.IOWeight != was.IOWeight {
		values["IOWeight"] = s.IOWeight
	}
	if s.MemoryLow != was.MemoryLow {
		values["MemoryLow"] = uint64(s.MemoryLow)
	}
	if len(values) == 0 {
		return nil
	}
	if err := k.scopes.manager.setProperties(ctx, path.Base(g.Path), values); err != nil {
		return fmt.Errorf("%s: %w", path.Base(g.Path), err)
	}
	return nil
}
