package layer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNeedsLower says that a layer can only be unpacked with the layers below it
// at hand.
var ErrNeedsLower = errors.New("layer refers to the layers below it")

// Lower is the merged view of layers, as overlayfs would show it, for looking
// up single names. The zero value is an empty stack: there is nothing below.
type Lower struct{ roots []int }

// OpenLower opens layer folders, the topmost first.
func OpenLower(dirs []string) (*Lower, error) {
	l := &Lower{}
	for _, d := range dirs {
		fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			l.Close()
			return nil, &fs.PathError{Op: "open", Path: d, Err: err}
		}
		l.roots = append(l.roots, fd)
	}
	return l, nil
}

// Close closes the folders.
func (l *Lower) Close() {
	for _, fd := range l.roots {
		unix.Close(fd)
	}
	l.roots = nil
}

// lookup finds p, a path without symlinks, and returns the root of the layer
// that provides it.
func (l *Lower) lookup(p string) (root int, st unix.Stat_t, err error) {
	for _, root := range l.roots {
		st, hidden, err := lookupIn(root, p)
		if err == nil || hidden {
			return root, st, err
		}
	}
	return -1, st, fs.ErrNotExist
}

// lookupIn looks for p in one layer. hidden: the layers below do not count.
func lookupIn(root int, p string) (st unix.Stat_t, hidden bool, err error) {
	dir := root
	defer func() {
		if dir != root {
			unix.Close(dir)
		}
	}()
	for name, rest := "", p; rest != ""; {
		name, rest, _ = strings.Cut(rest, "/")
		if st, err = lstatAt(dir, name); err != nil {
			return st, hidden, fs.ErrNotExist
		}
		if isWhiteout(&st) {
			return st, true, fs.ErrNotExist
		}
		if rest == "" {
			return st, true, nil
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return st, true, fs.ErrNotExist
		}
		next, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return st, true, err
		}
		if dir != root {
			unix.Close(dir)
		}
		dir = next
		hidden = hidden || isOpaque(dir)
	}
	return st, hidden, fs.ErrNotExist
}

// folderMeta reads the attributes of the lower folder p.
func folderMeta(root int, p string) (meta, error) {
	fd, err := openBeneath(root, p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return meta{}, err
	}
	defer unix.Close(fd)
	return readMeta(fd)
}

func readMeta(fd int) (meta, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return meta{}, err
	}
	m := meta{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), mtime: time.Unix(st.Mtim.Unix()), atime: time.Unix(st.Atim.Unix())}
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, names)
	if err != nil {
		n = 0 // the file system has none
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		value := make([]byte, 64<<10)
		if !allowedXattr(name) {
			continue
		}
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			if m.xattrs == nil {
				m.xattrs = map[string]string{}
			}
			m.xattrs[name] = string(value[:n])
		}
	}
	return m, nil
}

// Adopt gives the implicit folders of an unpacked layer the attributes that
// the same folders have below. It returns ErrNeedsLower if one of them is a
// symlink there, which the archive's entries have to follow.
func Adopt(dir string, implicit []string, lower *Lower) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	id := identity{os.Geteuid(), os.Getegid()}
	slices.Sort(implicit)
	for _, p := range implicit {
		_, st, err := lower.lookup(p)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return ErrNeedsLower
		}
	}
	for _, p := range slices.Backward(implicit) { // children first: see folder
		from, st, err := lower.lookup(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if err != nil {
			return err
		}
		m, err := folderMeta(from, p)
		if err != nil {
			return fmt.Errorf("folder %s: %w", p, err)
		}
		if err := adoptOne(id, int(root.Fd()), p, &m); err != nil {
			return fmt.Errorf("folder %s: %w", p, err)
		}
	}
	return nil
}

func adoptOne(id identity, root int, p string, m *meta) error {
	fd, err := openBeneath(root, p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setTimes(fd, ".", m); err != nil {
		return err
	}
	return id.setOpen(fd, m)
}

// open opens the lower file p for a copy of it, with its attributes.
func (l *Lower) open(root int, p string) (io.ReadCloser, meta, error) {
	fd, err := openBeneath(root, p, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, meta{}, err
	}
	f := os.NewFile(uintptr(fd), filepath.Base(p))
	m, err := readMeta(fd)
	if err != nil {
		f.Close()
		return nil, meta{}, err
	}
	return f, m, nil
}
