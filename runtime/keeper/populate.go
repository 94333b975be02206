package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// populating serializes the filling of volumes: replicas share them.
var populating sync.Mutex

// populate copies the content of an image's folder into an empty volume. A
// marker beside the volume says that a copy is under way, so that one that a
// crash cut off is done again instead of passing for the user's data.
// Owners are stored as the container knows them, also if root shows shifted ones.
func populate(root *os.File, p runtime.Populate, ids *runtime.IDMap) error {
	populating.Lock()
	defer populating.Unlock()
	src, err := openInRoot(root, p.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // the image has nothing there
	}
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(p.Into)
	if err != nil {
		return err
	}
	defer dst.Close()
	marker := strings.TrimSuffix(p.Into, "/") + ".populating"
	_, err = os.Lstat(marker)
	interrupted := err == nil
	if names, err := dst.Readdirnames(1); err == nil && len(names) > 0 && !interrupted {
		return nil
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return err
	}
	c := copier{links: map[inode]string{}, ids: ids}
	if err := c.dir(src, dst, "."); err != nil {
		return err
	}
	return os.Remove(marker)
}

// maxDepth bounds the folders that are open at once: an image's tree may be of
// any depth, and the keeper's descriptors are for all containers.
const maxDepth = 256

// inode identifies a file with several names.
type inode struct{ dev, ino uint64 }

// copier copies a tree by descriptors: no path is resolved twice, so that a
// link in the tree can lead nowhere.
type copier struct {
	links map[inode]string // first place of each file with several names, below the top
	top   *os.File         // of the destination
	ids   *runtime.IDMap   // with which the source is shown; nil: the host's
}

// dir copies the content of src into dst, then src's own attributes.
func (c *copier) dir(src, dst *os.File, rel string) error {
	if c.top == nil {
		c.top = dst
	}
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := c.entry(src, dst, name, filepath.Join(rel, name)); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	return c.copyAttributes(src, dst, &st)
}

func (c *copier) entry(src, dst *os.File, name, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			unix.Unlinkat(int(dst.Fd()), name, 0)
			return wrapPath(rel, c.link(first, dst, name))
		}
		c.links[id] = rel
	}
	switch kind {
	case unix.S_IFDIR:
		return c.subdir(src, dst, name, rel)
	case unix.S_IFREG:
		return wrapPath(rel, c.file(src, dst, name, &st))
	case unix.S_IFLNK:
		return wrapPath(rel, c.symlink(src, dst, name, &st))
	case unix.S_IFIFO:
		unix.Unlinkat(int(dst.Fd()), name, 0)
		if err := unix.Mknodat(int(dst.Fd()), name, st.Mode, 0); err != nil {
			return wrapPath(rel, err)
		}
		return wrapPath(rel, unix.Fchownat(int(dst.Fd()), name, c.owner(st.Uid), c.owner(st.Gid), unix.AT_SYMLINK_NOFOLLOW))
	}
	return nil // sockets mean nothing without their server; a device must not get into a volume that others mount
}

// link gives the file at first, below the top, one more name. A container that
// has the volume already could have put a symbolic link to the host in the way.
func (c *copier) link(first string, dst *os.File, name string) error {
	parent, err := unix.Openat2(int(c.top.Fd()), filepath.Dir(first), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return unix.Linkat(parent, filepath.Base(first), int(dst.Fd()), name, 0)
}

func (c *copier) subdir(src, dst *os.File, name, rel string) error {
	if strings.Count(rel, "/") >= maxDepth {
		return fmt.Errorf("%s: %w: more than %d folders deep", name, unix.ENAMETOOLONG, maxDepth)
	}
	from, err := openAt(src, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return wrapPath(rel, err)
	}
	defer from.Close()
	if err := unix.Mkdirat(int(dst.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return wrapPath(rel, err)
	}
	to, err := openAt(dst, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return wrapPath(rel, err)
	}
	defer to.Close()
	return c.dir(from, to, rel)
}

func (c *copier) file(src, dst *os.File, name string, st *unix.Stat_t) error {
	from, err := openAt(src, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	unix.Unlinkat(int(dst.Fd()), name, 0) // what an interrupted copy left
	to, err := openAt(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return c.copyAttributes(from, to, st)
}

func (c *copier) symlink(src, dst *os.File, name string, st *unix.Stat_t) error {
	b := make([]byte, 4096)
	n, err := unix.Readlinkat(int(src.Fd()), name, b)
	if err != nil {
		return err
	}
	unix.Unlinkat(int(dst.Fd()), name, 0)
	if err := unix.Symlinkat(string(b[:n]), int(dst.Fd()), name); err != nil {
		return err
	}
	return unix.Fchownat(int(dst.Fd()), name, c.owner(st.Uid), c.owner(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

// copyAttributes sets owner, mode, extended attributes and times, in this
// order: a change of owner clears set-id bits and capabilities.
func (c *copier) copyAttributes(from, to *os.File, st *unix.Stat_t) error {
	fd := int(to.Fd())
	if err := unix.Fchown(fd, c.owner(st.Uid), c.owner(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	if err := c.copyXattrs(int(from.Fd()), fd); err != nil {
		return err
	}
	times := []unix.Timeval{
		{Sec: st.Atim.Sec, Usec: st.Atim.Nsec / 1000},
		{Sec: st.Mtim.Sec, Usec: st.Mtim.Nsec / 1000},
	}
	return unix.Futimes(fd, times)
}

func (c *copier) copyXattrs(from, to int) error {
	size, err := unix.Flistxattr(from, nil)
	if err != nil || size == 0 {
		return nil // none, or a file system without
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(from, list); err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		n, err := unix.Fgetxattr(from, name, nil)
		if err != nil {
			continue
		}
		value := make([]byte, n)
		if n, err = unix.Fgetxattr(from, name, value); err != nil {
			continue
		}
		if strings.HasPrefix(name, aclPrefix) {
			c.ownACL(value[:n])
		}
		if err := unix.Fsetxattr(to, name, value[:n], 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

// owner is the id inside for one of the source.
func (c *copier) owner(id uint32) int { return int(ownID(c.ids, id)) }

const (
	aclPrefix = "system.posix_acl_"
	aclUser   = 0x02
	aclGroup  = 0x08
)

// ownACL does for the users and groups of an access control list what owner does
// for the owner: linux/posix_acl_xattr.h has its form.
func (c *copier) ownACL(value []byte) {
	for e := 4; e+8 <= len(value); e += 8 {
		if tag := binary.LittleEndian.Uint16(value[e:]); tag == aclUser || tag == aclGroup {
			id := value[e+4 : e+8]
			binary.LittleEndian.PutUint32(id, ownID(c.ids, binary.LittleEndian.Uint32(id)))
		}
	}
}

// openAt opens an entry of dir that is not a symbolic link.
func openAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func wrapPath(path string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
