package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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

// mountRootfs performs mounts at dir, the first one at dir itself. The calling
// thread has private mounts.
func mountRootfs(dir string, mounts []specs.Mount) error {
	if len(mounts) == 0 || filepath.Clean(mounts[0].Destination) != "/" {
		return errors.New("no mount for /")
	}
	if err := mountAt(dir, mounts[0]); err != nil {
		return fmt.Errorf("mount /: %w", err)
	}
	for _, m := range mounts[1:] {
		if err := mountBelow(dir, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return nil
}

// mountBelow mounts m at its place inside dir, wherever links of the image
// point to.
func mountBelow(dir string, m specs.Mount) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := openInRoot(root, m.Destination, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	return mountAt(fmt.Sprintf("/proc/thread-self/fd/%d", f.Fd()), m)
}

func mountAt(dir string, m specs.Mount) error {
	if m.Type == "overlay" {
		err := mountOverlay(dir, m)
		if !errors.Is(err, errOldOverlay) {
			return err
		}
		return mountOldOverlay(dir, m)
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

// errOldOverlay: the kernel has no overlay that takes its layers one by one
// (before 6.7), or no new mount API at all.
var errOldOverlay = errors.New("overlay without lowerdir+")

var mountAttrs = map[string]int{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME,
}

// mountOverlay hands the layers over one by one: no limit of a page for all
// their paths together, and no characters that need escaping.
func mountOverlay(dir string, m specs.Mount) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return errOldOverlay
	}
	if err != nil {
		return fmt.Errorf("overlay: fsopen: %w", err)
	}
	defer unix.Close(fs)
	attrs := 0
	for _, o := range m.Options {
		key, value, hasValue := strings.Cut(o, "=")
		attr, isAttr := mountAttrs[o]
		switch {
		case isAttr:
			attrs |= attr
			continue
		case isMountFlag(o):
			continue // a flag that says what is the case anyway
		case hasValue:
			err = unix.FsconfigSetString(fs, key, value)
		default:
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil && key == "lowerdir+" && errors.Is(err, unix.EINVAL) && !exists(value) {
			return fmt.Errorf("overlay: layer %s: %w", value, unix.ENOENT)
		}
		if err != nil && key == "lowerdir+" && errors.Is(err, unix.EINVAL) {
			return errOldOverlay
		}
		if err != nil {
			return fmt.Errorf("overlay: %s: %w%s", o, err, fsMessages(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); errors.Is(err, unix.EINVAL) {
		return errOldOverlay // before 6.5 unknown options are refused only here; mount(2) knows the reason if it is another
	} else if err != nil {
		return fmt.Errorf("overlay: %w%s", err, fsMessages(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return fmt.Errorf("overlay: fsmount: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return fmt.Errorf("overlay: move_mount: %w", err)
	}
	return nil
}

func isMountFlag(o string) bool { _, ok := mountFlags[o]; return ok }

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// fsMessages is what the file system has to say about its failure.
func fsMessages(fs int) string {
	var out string
	b := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(fs, b)
		if err != nil || n <= 0 {
			break
		}
		_, text, _ := strings.Cut(string(b[:n]), " ")
		out += " (" + strings.TrimSpace(text) + ")"
	}
	return out
}

// mountOldOverlay uses mount(2). All options together must fit a page, so the
// layers are named relative to the folder they share: the thread's working
// directory is its own.
func mountOldOverlay(dir string, m specs.Mount) error {
	flags, data, base, err := oldOverlayOptions(m.Options)
	if err != nil {
		return err
	}
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("overlay: too many layers for this kernel (before 6.7): the options take %d bytes", len(data))
	}
	if err := unix.Chdir(base); err != nil {
		return fmt.Errorf("overlay: %s: %w", base, err)
	}
	defer unix.Chdir("/")
	if err := unix.Mount("overlay", dir, "overlay", flags, data); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	return nil
}

func oldOverlayOptions(options []string) (flags uintptr, data, base string, err error) {
	var lowers, rest []string
	for _, o := range options {
		if lower, ok := strings.CutPrefix(o, "lowerdir+="); ok {
			lowers = append(lowers, lower)
		} else {
			rest = append(rest, o)
		}
	}
	flags, rest = mountOptions(rest)
	base = "/"
	if len(lowers) > 0 {
		base = commonDir(lowers)
		for i, l := range lowers {
			rel, err := filepath.Rel(base, l)
			if err != nil {
				return 0, "", "", err
			}
			lowers[i] = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(rel)
		}
		rest = append([]string{"lowerdir=" + strings.Join(lowers, ":")}, rest...)
	}
	return flags, strings.Join(rest, ","), base, nil
}

// commonDir is the deepest folder above all of paths.
func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
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
