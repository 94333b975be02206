package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// privateMounts gives the calling thread a mount namespace of its own, in
// which what happens on the host is still seen, but nothing goes back. The
// caller holds the thread and lets it die afterwards.
func privateMounts() error {
	// Threads share their working directory and root; one that changes its mount namespace must not.
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// rootfs is the root file system of one container, being mounted by a thread with
// private mounts.
type rootfs struct {
	dir       string
	container string
	layers    *layers
	users     *os.File       // user namespace whose ids the layers are shown with; nil: the host's
	ids       *runtime.IDMap // its map

	lower   map[string]*layer   // by the folder where it is to be mounted
	shifted map[string]*os.File // mounts of layers in users, by their folder
}

// mount performs mounts: the one for "/" at dir, those before it for the layers that
// it is made of, those after it inside.
func (r *rootfs) mount(mounts []specs.Mount) error {
	root := slices.IndexFunc(mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == "/" })
	if root < 0 {
		return errors.New("no mount for /")
	}
	r.lower = map[string]*layer{}
	for _, m := range mounts[:root] {
		if err := r.mountLower(m); err != nil {
			return err
		}
	}
	top, err := r.shift(mounts[root])
	defer r.closeShifted()
	if err != nil {
		return fmt.Errorf("mount /: %w", err)
	}
	if f := r.shifted[""]; f != nil {
		err = r.attachRoot(f, top)
	} else {
		err = r.mountAt(r.dir, top)
	}
	if err != nil {
		return fmt.Errorf("mount /: %w", err)
	}
	for _, m := range mounts[root+1:] {
		if err := r.mountBelow(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return nil
}

// mountLower mounts what the root is made of. Layers are only put at their
// folders if the overlay does not take them by descriptor.
func (r *rootfs) mountLower(m specs.Mount) error {
	if m.Type != "erofs" {
		if err := r.mountAt(m.Destination, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		return nil
	}
	l, err := r.layers.hold(r.container, m.Source)
	if err != nil {
		return err
	}
	if l.mount == nil {
		return l.attach(m.Destination)
	}
	r.lower[m.Destination] = l
	return nil
}

// mountBelow mounts m at its place inside the root, wherever links of the image
// point to.
func (r *rootfs) mountBelow(m specs.Mount) error {
	root, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := openInRoot(root, m.Destination, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.mountAt(fmt.Sprintf("/proc/thread-self/fd/%d", f.Fd()), m)
}

func (r *rootfs) mountAt(dir string, m specs.Mount) error {
	if m.Type == "overlay" {
		return r.mountOverlay(dir, m)
	}
	flags, data := mountOptions(m.Options)
	if err := unix.Mount(m.Source, dir, m.Type, flags, strings.Join(data, ",")); err != nil {
		return fmt.Errorf("%s %s: %w", m.Type, m.Source, err)
	}
	if flags&unix.MS_BIND != 0 && flags&^(unix.MS_BIND|unix.MS_REC) != 0 {
		// A bind mount takes its other flags only in a second step.
		if err := unix.Mount("", dir, "", flags|unix.MS_REMOUNT, ""); err != nil {
			return fmt.Errorf("remount %s: %w", m.Source, err)
		}
	}
	return nil
}

var mountFlags = map[string]uintptr{
	"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "ro": unix.MS_RDONLY, "rw": 0,
	"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "suid": 0, "dev": 0, "exec": 0,
	"noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "nodiratime": unix.MS_NODIRATIME, "defaults": 0,
}

// mountOptions splits what mount(2) takes as flags from what the file system
// gets to read.
func mountOptions(options []string) (flags uintptr, data []string) {
	for _, o := range options {
		if f, ok := mountFlags[o]; ok {
			flags |= f
		} else {
			data = append(data, o)
		}
	}
	return flags, data
}

// openInRoot opens path as if root were "/": symbolic links of an image, also
// absolute ones and those with "..", stay inside.
func openInRoot(root *os.File, path string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(root.Fd()), path, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue // EAGAIN: something was renamed on the way
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}
