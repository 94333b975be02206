package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shift prepares the root's mount for a container in a user namespace. An overlay
// itself cannot be mounted with shifted ids; its layers can, since Linux 5.19. The
// writable one belongs to root of the namespace instead.
func (r *rootfs) shift(m specs.Mount) (specs.Mount, error) {
	if r.users == nil {
		return m, nil
	}
	if m.Type != "overlay" {
		return m, r.shiftBind(m)
	}
	r.shifted = map[string]*os.File{}
	for _, o := range m.Options {
		key, value, _ := strings.Cut(o, "=")
		var err error
		switch key {
		case "lowerdir+":
			r.shifted[value], err = r.shiftLayer(value)
		case "upperdir", "workdir":
			err = r.giveAway(value)
		}
		if err != nil {
			return m, fmt.Errorf("overlay: %w", err)
		}
	}
	if r.layers.detached() {
		return m, nil
	}
	return r.attachShifted(m)
}

// shiftLayer mounts a layer once more, with the ids of the user namespace.
func (r *rootfs) shiftLayer(dir string) (*os.File, error) {
	var f *os.File
	var err error
	if l := r.lower[dir]; l != nil {
		f, err = idMapped(int(l.mount.Fd()), "", r.users, false)
	} else {
		f, err = idMapped(unix.AT_FDCWD, dir, r.users, false)
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", dir, err)
	}
	return f, nil
}

// shiftBind is for a root that is a folder.
func (r *rootfs) shiftBind(m specs.Mount) error {
	if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
		return fmt.Errorf("%s %s: a root of this type cannot be in a user namespace", m.Type, m.Source)
	}
	f, err := idMapped(unix.AT_FDCWD, m.Source, r.users, false)
	if err != nil {
		return fmt.Errorf("bind %s: %w", m.Source, err)
	}
	r.shifted = map[string]*os.File{"": f}
	return nil
}

// attachRoot mounts such a root.
func (r *rootfs) attachRoot(f *os.File, m specs.Mount) error {
	var attr unix.MountAttr
	for _, o := range m.Options {
		attr.Attr_set |= uint64(mountAttrs[o])
	}
	if attr.Attr_set != 0 {
		if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
	}
	if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, r.dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// idMapped is a detached mount of what is at path, with the ids of users.
func idMapped(dir int, path string, users *os.File, recursive bool) (*os.File, error) {
	flags, attrs := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
		attrs |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	if err := unix.MountSetattr(fd, "", attrs, &attr); err != nil {
		f.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w (this file system cannot be mounted with shifted ids)", err)
		}
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	return f, nil
}

// giveAway makes a folder of the writable layer the user namespace's, with the
// ids that it has inside. What belongs to it already stays.
func (r *rootfs) giveAway(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	uid, gid := hostID(r.ids, int(st.Uid)), hostID(r.ids, int(st.Gid))
	if uid == int(st.Uid) && gid == int(st.Gid) {
		return nil
	}
	return os.Lchown(dir, uid, gid)
}

// attachShifted puts the shifted layers below a folder of the root's place, for
// kernels whose overlay wants paths (before 6.15). The overlay will cover them.
func (r *rootfs) attachShifted(m specs.Mount) (specs.Mount, error) {
	if err := unix.Mount("tmpfs", r.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=711"); err != nil {
		return m, fmt.Errorf("overlay: places for layers: %w", err)
	}
	m.Options = slices.Clone(m.Options)
	for i, o := range m.Options {
		lower, ok := strings.CutPrefix(o, "lowerdir+=")
		if !ok {
			continue
		}
		place := filepath.Join(r.dir, strconv.Itoa(i))
		if err := os.Mkdir(place, 0o700); err != nil {
			return m, err
		}
		if err := unix.MoveMount(int(r.shifted[lower].Fd()), "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return m, fmt.Errorf("overlay: layer %s: move_mount: %w", lower, err)
		}
		m.Options[i] = "lowerdir+=" + place
	}
	r.closeShifted()
	return m, nil
}

func (r *rootfs) closeShifted() {
	for _, f := range r.shifted {
		if f != nil {
			f.Close()
		}
	}
	r.shifted = nil
}
