package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// layers are the EROFS layers that containers use. A layer is mounted once for
// all of them, as each mount of a file has a page cache of its own. The mount is
// in no namespace: the descriptor holds it. Overlays have their own reference, so
// a keeper's death takes nothing from running containers; the next keeper
// mounts a layer anew for those that it starts itself.
type layers struct {
	detached func() bool // whether overlays take such mounts

	mu    sync.Mutex
	held  map[layerKey]*layer
	users map[string][]*layer // by container
}

// layerKey is a layer's file. Not its path: one that was repaired is another one.
type layerKey struct{ dev, ino uint64 }

// layer is one mounted layer.
type layer struct {
	key   layerKey
	file  string
	mount *os.File // nil if this kernel wants it at a path
	loop  *os.File // its loop device if the kernel mounts no files
	users int      // containers; 0: it stays mounted until the burst of work is over
}

func newLayers() *layers {
	return &layers{
		detached: sync.OnceValue(overlaysTakeDetached),
		held:     map[layerKey]*layer{}, users: map[string][]*layer{},
	}
}

// hold mounts the layer in file, or finds it mounted, for a container until
// release.
func (ls *layers) hold(container, file string) (*layer, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return nil, fmt.Errorf("layer %s: %w", file, err)
	}
	key := layerKey{uint64(st.Dev), st.Ino}
	if l := ls.use(container, key, nil); l != nil {
		return l, nil
	}
	l, err := openLayer(file, ls.detached()) // without the lock: a disk may be slow
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", file, err)
	}
	l.key = key
	used := ls.use(container, key, l)
	if used != l {
		l.close() // another start was faster
	}
	return used, nil
}

// use notes that a container uses the layer with that key; if nobody does yet, l.
func (ls *layers) use(container string, key layerKey, l *layer) *layer {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if held := ls.held[key]; held != nil {
		l = held
	}
	if l == nil {
		return nil
	}
	ls.held[key] = l
	l.users++
	ls.users[container] = append(ls.users[container], l)
	return l
}

// release lets go of what a container used. It may be repeated. A mounted layer that nobody
// uses now stays until dropIdle: whoever has just run an image often runs it again, and
// a mount and its end take a millisecond. A loop device goes at once, as it can be seen.
func (ls *layers) release(container string) {
	ls.mu.Lock()
	var unused []*layer
	for _, l := range ls.users[container] {
		if l.users--; l.users == 0 && (l.mount == nil || l.loop != nil) {
			delete(ls.held, l.key)
			unused = append(unused, l)
		}
	}
	delete(ls.users, container)
	ls.mu.Unlock()
	for _, l := range unused {
		l.close()
	}
}

// dropIdle unmounts the layers that no container uses.
func (ls *layers) dropIdle() {
	ls.mu.Lock()
	var unused []*layer
	for key, l := range ls.held {
		if l.users == 0 {
			delete(ls.held, key)
			unused = append(unused, l)
		}
	}
	ls.mu.Unlock()
	for _, l := range unused {
		l.close()
	}
}

func (l *layer) close() {
	for _, f := range []*os.File{l.mount, l.loop} {
		if f != nil {
			f.Close()
		}
	}
}

// openLayer mounts a layer: from its file on Linux 6.12 and newer, else through a
// loop device. Where overlays want paths (before 6.15) it only gets a loop
// device: all mounts of one device share their pages.
func openLayer(file string, detached bool) (*layer, error) {
	l := &layer{file: file}
	if detached {
		var err error
		l.mount, err = mountErofs(file)
		if !errors.Is(err, unix.ENOTBLK) {
			return l, err
		}
	}
	var err error
	if l.loop, err = openLoop(file); err != nil {
		if !detached {
			return l, nil // the file may do, if nothing shares it
		}
		return nil, err
	}
	if detached {
		if l.mount, err = mountErofs(l.loop.Name()); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// attach mounts the layer at dir in the calling thread's namespace.
func (l *layer) attach(dir string) error {
	if l.mount == nil {
		source := l.file
		if l.loop != nil {
			source = l.loop.Name()
		}
		if err := unix.Mount(source, dir, "erofs", unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("layer %s: %w", l.file, explainErofs(err))
		}
		return nil
	}
	tree, err := unix.OpenTree(int(l.mount.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("layer %s: open_tree: %w", l.file, err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("layer %s: move_mount to %s: %w", l.file, dir, err)
	}
	return nil
}

// mountErofs makes a mount that is in no namespace.
//
// Pages are cached twice, in the mount and in the file behind it, unless the
// mount has the option directio. It stays off: the file's own pages are what a pull
// has just written and what is read ahead across small files. A tree of 50,000 of
// them is read four times as fast so; the kernel drops pages that were read once before others.
func mountErofs(source string) (*os.File, error) {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, explainErofs(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("%w%s", explainErofs(err), fsMessages(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(mnt), source), nil
}

// explainErofs adds to an error of the kernel what it means for a layer.
func explainErofs(err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.ENODEV):
		hint = "this kernel has no EROFS; load its module, or keep layers as folders and pull the image again"
	case errors.Is(err, unix.EUCLEAN), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EIO), errors.Is(err, unix.EBADMSG):
		hint = "it may be damaged; verify and repair the image"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// overlaysTakeDetached tries whether an overlay can be made of mounts that are in no
// namespace: Linux 6.15.
func overlaysTakeDetached() bool {
	overlay, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(overlay)
	for range 2 {
		lower, err := detachedTmpfs()
		if err != nil {
			return false
		}
		defer unix.Close(lower)
		if err := unix.FsconfigSetFd(overlay, "lowerdir+", lower); err != nil {
			return false
		}
	}
	return unix.FsconfigCreate(overlay) == nil
}

func detachedTmpfs() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}
