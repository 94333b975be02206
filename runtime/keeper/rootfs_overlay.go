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

// errOldOverlay: the kernel has no overlay that takes its layers one by one
// (before 6.7), or no new mount API at all.
var errOldOverlay = errors.New("overlay without lowerdir+")

var mountAttrs = map[string]int{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME,
}

// mountOverlay mounts an overlay, the old way if need be. That takes paths, so the
// layers have to have some then.
func (r *rootfs) mountOverlay(dir string, m specs.Mount) error {
	restore, err := asContainersWrite()
	if err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	defer restore()
	err = r.mountNewOverlay(dir, m)
	if !errors.Is(err, errOldOverlay) {
		return err
	}
	for folder, l := range r.lower {
		if err := l.attach(folder); err != nil {
			return err
		}
	}
	r.lower = nil
	return mountOldOverlay(dir, m)
}

// mountNewOverlay hands the layers over one by one: no limit of a page for all
// their paths together, and no characters that need escaping.
func (r *rootfs) mountNewOverlay(dir string, m specs.Mount) error {
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
		case key == "lowerdir+" && r.shifted[value] != nil:
			err = unix.FsconfigSetFd(fs, key, int(r.shifted[value].Fd()))
		case key == "lowerdir+" && r.lower[value] != nil:
			err = unix.FsconfigSetFd(fs, key, int(r.lower[value].mount.Fd()))
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
// layers are named relative to the folder they share, or by links with short names
// if they are too many: the thread's working directory is its own.
func mountOldOverlay(dir string, m specs.Mount) error {
	flags, data, base, err := oldOverlayOptions(m.Options)
	if err == nil && len(data) >= os.Getpagesize() {
		var short []string
		if short, err = shortNames(dir, m.Options); err != nil {
			return fmt.Errorf("overlay: short names for layers: %w", err)
		}
		flags, data, base, err = oldOverlayOptions(short)
	}
	if err != nil {
		return err
	}
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("overlay: the options take %d bytes, which is too much for this kernel (before 6.7)", len(data))
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

// shortNames gives the layers links with names of one or two characters, in a tmpfs
// that the overlay is then mounted over.
func shortNames(dir string, options []string) ([]string, error) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return nil, err
	}
	short := slices.Clone(options)
	for i, o := range options {
		lower, ok := strings.CutPrefix(o, "lowerdir+=")
		if !ok {
			continue
		}
		link := filepath.Join(dir, strconv.FormatInt(int64(i), 36))
		if err := os.Symlink(lower, link); err != nil {
			return nil, err
		}
		short[i] = "lowerdir+=" + link
	}
	return short, nil
}

func oldOverlayOptions(options []string) (flags uintptr, data, base string, err error) {
	var lowers, rest []string
	for _, o := range options {
		if lower, ok := strings.CutPrefix(o, "lowerdir+="); ok {
			lowers = append(lowers, lower)
		} else if label, ok := strings.CutPrefix(o, "context="); ok {
			rest = append(rest, `context="`+label+`"`) // SELinux's: its categories have a comma between them
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
