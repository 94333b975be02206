package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
)

const groupTree = "/sys/fs/cgroup"

// prepareParent makes the group that all containers stand under, and sees to
// it that nothing above it is changed from then on. The result must stay open.
func (k *Keeper) prepareParent() (*os.File, error) {
	err := k.parent().Prepare()
	ns, ferr := fenceGroups(k.cgroupParent) // all the more if it is not as it should be
	return ns, errors.Join(err, ferr)
}

// parent is our parent group. If it stands below a systemd unit's own group, delegated to
// us, then the processes of that unit move into a group beside it: v2 wants
// processes in leaves only.
func (k *Keeper) parent() cgroup.Parent {
	return cgroup.Parent{Path: k.cgroupParent, Subgroup: "daemon"}
}

// fenceGroups keeps libcontainer from writing above our parent. Its driver for
// v2 enables every controller that the kernel has from the root down, for all
// of the host's groups. It opens group files below the first handle it gets of
// the tree, and crosses no mount there. So that handle is one in a mount
// namespace of our own, in which the files it should leave alone are mounts;
// their failure does not trouble it, as prepareParent did the work. The
// namespace, which the result holds, keeps no other mount.
func fenceGroups(parent string) (*os.File, error) {
	if !cgroupUnified() {
		openGroupTree()
		return nil, nil
	}
	type result struct {
		ns  *os.File
		err error
	}
	done := make(chan result)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with its namespace
		ns, err := fence(parent)
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

func fence(parent string) (*os.File, error) {
	if err := privateMounts(); err != nil {
		return nil, err
	}
	if err := dropMounts(groupTree); err != nil {
		return nil, err
	}
	for dir := path.Dir(parent); ; dir = path.Dir(dir) {
		if err := fenceOff(dir); err != nil {
			return nil, err
		}
		if dir == "/" {
			break
		}
	}
	openGroupTree()
	return os.Open("/proc/thread-self/ns/mnt")
}

// fenceOff makes a mount of the file by which libcontainer would share out
// controllers of a group. A group that is not there yet is none that it will make.
func fenceOff(group string) error {
	file := filepath.Join(groupTree, group, "cgroup.subtree_control")
	if err := unix.Mount(file, file, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("fence %s: %w", file, err)
	}
	return nil
}

// fenceAbove does the same for the slices that a scope stands in, which were
// perhaps not there when the keeper began.
func (k *Keeper) fenceAbove(scope string) error {
	k.scopes.mu.Lock()
	defer k.scopes.mu.Unlock()
	var todo []string
	for dir := path.Dir(scope); dir != "/"; dir = path.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(groupTree, dir), &st); err != nil {
			return fmt.Errorf("group %s: %w", dir, err)
		}
		if k.scopes.fenced[dir] != st.Ino { // it is another one if it was gone meanwhile
			k.scopes.fenced[dir] = st.Ino
			todo = append(todo, dir)
		}
	}
	if len(todo) == 0 || k.groups == nil {
		return nil
	}
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // never unlocked
		done <- k.fenceThere(todo)
	}()
	return <-done
}

func (k *Keeper) fenceThere(groups []string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // or the kernel lets no thread change its mounts
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(int(k.groups.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the namespace of groups: %w", err)
	}
	for _, g := range groups {
		if err := fenceOff(g); err != nil {
			return err
		}
	}
	return nil
}

// dropMounts takes everything out of the calling thread's mount namespace that
// does not lie on the way to keep, or below it: what somebody unmounts on the
// host must not live on in here.
func dropMounts(keep string) error {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		at := mounts[i].Mountpoint
		onTheWay := at == "/" || at == keep || strings.HasPrefix(keep, at+"/") || strings.HasPrefix(at, keep+"/")
		if !onTheWay && at != "/proc" {
			unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // gone already with the one it stood on, perhaps
		}
	}
	return nil
}

// openGroupTree makes libcontainer open the handle that it keeps, which must not
// be one in a starting thread's mount namespace. A tree that it cannot open so, it finds by
// other ways.
func openGroupTree() {
	if f, err := cgroups.OpenFile(groupTree, ".", os.O_RDONLY); err == nil {
		f.Close()
	}
}

// fitLimits refuses limits that the host has no controller for, by name, and
// takes out a limit on swap where v1 was booted without: asking for it would fail
// the start.
func (k *Keeper) fitLimits(r *specs.LinuxResources, parent cgroup.Parent, log *slog.Logger) error {
	if err := parent.Require(cgroup.FromResources(r)); err != nil {
		return err
	}
	if len(r.Unified) == 0 {
		r.Unified = nil // libcontainer takes an empty one for a wish that v1 cannot grant
	}
	if r.Memory == nil || r.Memory.Swap == nil {
		return nil
	}
	if ok, err := cgroup.SwapAccounting(); err != nil || ok {
		return err
	}
	log.Warn("swap cannot be limited on this host: boot it with swapaccount=1")
	r.Memory.Swap = nil
	return nil
}
