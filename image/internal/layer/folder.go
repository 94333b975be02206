package layer

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxOpen bounds the descriptors that one unpack keeps for folders.
const maxOpen = 128

// meta is what an entry says about its inode.
type meta struct {
	mode   uint32 // permission, setuid, setgid and sticky bits
	uid    int
	gid    int
	mtime  time.Time
	atime  time.Time
	xattrs map[string]string
}

// defaultMeta is a folder that no archive describes.
var defaultMeta = meta{mode: 0o755, mtime: time.Unix(0, 0), atime: time.Unix(0, 0)}

// folder is a folder of the layer being unpacked. Its path has no symlinks.
// Attributes are set at the very end: children change the times, and a mode
// without write permission would stop an unprivileged unpack.
type folder struct {
	parent   *folder
	name     string
	path     string // relative to the root, "" for the root
	meta     meta
	explicit bool // the archive has an entry for it
	opaque   bool

	fd   int          // -1: not open at the moment
	used bool         // since the last look of the evictor
	refs atomic.Int32 // writers that are using fd
}

// folders opens folders on demand and keeps the last ones open.
type folders struct {
	root   *folder
	byPath map[string]*folder
	open   []*folder // oldest first
}

func newFolders(rootFD int) *folders {
	root := &folder{meta: defaultMeta, fd: rootFD}
	return &folders{root: root, byPath: map[string]*folder{"": root}}
}

// make creates the folder name in parent.
func (fs *folders) make(parent *folder, name string) (*folder, error) {
	if err := fs.acquire(parent); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(parent.fd, name, 0o700); err != nil {
		return nil, err
	}
	f := &folder{parent: parent, name: name, path: path.Join(parent.path, name), meta: defaultMeta, fd: -1}
	fs.byPath[f.path] = f
	return f, nil
}

// acquire makes sure that f.fd is open until the next acquire of another folder.
func (fs *folders) acquire(f *folder) error {
	f.used = true
	if f.fd >= 0 {
		return nil
	}
	fs.evict()
	fd, err := openBeneath(fs.root.fd, f.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", f.path, err)
	}
	f.fd = fd
	fs.open = append(fs.open, f)
	return nil
}

func (fs *folders) evict() {
	for tries := 2 * len(fs.open); len(fs.open) >= maxOpen && tries > 0; tries-- {
		f := fs.open[0]
		fs.open = fs.open[1:]
		if f.used || f.refs.Load() > 0 {
			f.used = false
			fs.open = append(fs.open, f)
			continue
		}
		f.close()
	}
}

// forget drops f and all below it, which are no longer there. No writer may be
// at work.
func (fs *folders) forget(top string) {
	for p, f := range fs.byPath {
		if p == top || len(p) > len(top) && p[:len(top)] == top && p[len(top)] == '/' {
			f.close()
			delete(fs.byPath, p)
		}
	}
	fs.open = slices.DeleteFunc(fs.open, func(f *folder) bool { return f.fd < 0 })
}

func (f *folder) close() {
	if f.fd >= 0 && f.parent != nil {
		unix.Close(f.fd)
		f.fd = -1
	}
}

func (fs *folders) closeAll() {
	for _, f := range fs.open {
		f.close()
	}
	fs.open = nil
}

// deepestFirst returns all folders, children before their parents.
func (fs *folders) deepestFirst() []*folder {
	all := make([]*folder, 0, len(fs.byPath))
	for _, f := range fs.byPath {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *folder) int { return cmp.Compare(b.path, a.path) })
	return all
}

// openBeneath opens a path without symlinks below root.
func openBeneath(root int, p string, flags uint64) (int, error) {
	if p == "" {
		p = "."
	}
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(root, p, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
