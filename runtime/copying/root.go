package copying

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Root is a folder that nothing leaves.
type Root struct {
	Dir *os.File // stays the caller's
	IDs *IDs     // the owners below it are shifted; nil: they are what they are
}

// IDs say that the ids 0 to Size-1 inside stand on the host from Host on.
type IDs struct{ Host, Size uint32 }

// inside is what an owner on the host is inside; what is not mapped is nobody.
func (i *IDs) inside(id uint32) int {
	switch {
	case i == nil:
		return int(id)
	case id < i.Host || id-i.Host >= i.Size:
		return overflowID
	}
	return int(id - i.Host)
}

// outside is the owner on the host.
func (i *IDs) outside(id int) (int, error) {
	switch {
	case i == nil:
		return id, nil
	case id < 0 || uint32(id) >= i.Size:
		return 0, fmt.Errorf("owner %d is not one of the container's %d", id, i.Size)
	}
	return int(i.Host) + id, nil
}

// overflowID is how the kernel shows an owner that a namespace has no id for.
const overflowID = 65534

// Info is what a path leads to.
type Info struct {
	Name    string      `json:"name"` // of the path's last part
	Mode    fs.FileMode `json:"mode"`
	Size    int64       `json:"size"`
	ModTime time.Time   `json:"mtime"`
	Link    string      `json:"link,omitempty"` // of a symbolic link
}

// ErrReadOnly says that nothing can be written there.
var ErrReadOnly = errors.New("read-only file system")

// Stat looks at path. Links on the way are followed inside the root, the last part only with follow.
func (r Root) Stat(name string, follow bool) (Info, error) {
	f, err := r.open(name, unix.O_PATH|nofollow(follow))
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, explain(name, err)
	}
	i := Info{Name: path.Base(path.Clean("/" + name)), Mode: st.Mode(), Size: st.Size(), ModTime: st.ModTime()}
	if i.Mode&fs.ModeSymlink != 0 {
		i.Link, err = readlink(f)
	}
	return i, err
}

func nofollow(follow bool) int {
	if follow {
		return 0
	}
	return unix.O_NOFOLLOW
}

// open opens a path as if the root were "/".
func (r Root) open(name string, flags int) (*os.File, error) {
	f, err := openat2(int(r.Dir.Fd()), name, flags)
	return f, explain(name, err)
}

// openTries bounds how often an open is tried again that a rename at the same time has disturbed.
const openTries = 128

func openat2(dir int, name string, flags int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if name == "" {
		name = "."
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN) && try < openTries:
			continue
		}
		return nil, err
	}
}

// openat opens an entry of a folder, never through a link.
func openat(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// reopen opens what an O_PATH descriptor stands for, which its holder has seen to be harmless.
func reopen(f *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(self(f), flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// self is a path to exactly this file, also to a link itself.
func self(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func readlink(f *os.File) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// explain says what an error was about.
func explain(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: %w", name, ErrReadOnly)
	}
	return fmt.Errorf("%s: %w", name, err)
}
