package erofs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Inode is one file, folder or whatever else. The same Inode under several names is
// a hard link; a folder has one name.
type Inode struct {
	Mode      uint32 // type and permissions as in st_mode
	UID, GID  uint32
	Mtime     int64 // seconds since 1970
	MtimeNsec uint32

	Data     Data              // of a regular file, from this image's Writer
	Target   string            // of a symlink
	Rdev     uint64            // of a device, as unix.Mkdev makes it
	Xattrs   map[string]string // by full name: "user.x", "security.capability"; nil is cheap
	Children []Entry           // of a folder, in any order; Finish sorts them

	plan   *plan // that the rest belongs to
	parent *Inode
	nid    uint64
	nlink  uint32
}

// Entry is a name in a folder.
type Entry struct {
	Name  string
	Inode *Inode
}

// Data is the content of a regular file that a Writer has taken. The zero Data is
// that of an empty file.
type Data struct {
	Size   int64
	inline []byte  // all of it, if it is to stand in the metadata
	sparse *sparse // if it has holes
	block  uint32  // else: where it begins
}

// sparse is the list of a file's chunks: the blocks where they begin, or chunkHole.
type sparse struct {
	chunks []uint32
	bits   uint8 // log2 of how many blocks a chunk has
}

// IsFolder tells whether i is a folder.
func (i *Inode) IsFolder() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// Limits of the format and of the kernel.
const (
	maxName   = 255
	maxTarget = 4095
	maxValue  = 1<<16 - 1 // a length has 16 bits; the kernel's own limit is one more
)

var errFormat = errors.New("cannot be kept in EROFS")

// check refuses what the format has no place for.
func (i *Inode) check() error {
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFLNK:
		if len(i.Target) == 0 || len(i.Target) > maxTarget || strings.IndexByte(i.Target, 0) >= 0 {
			return fmt.Errorf("symlink with a target of %d bytes: %w", len(i.Target), errFormat)
		}
	default:
		return fmt.Errorf("mode %o: %w", i.Mode, errFormat)
	}
	if i.MtimeNsec >= 1e9 {
		return fmt.Errorf("time with %d nanoseconds: %w", i.MtimeNsec, errFormat)
	}
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name %.300q: %w", name, errFormat)
	}
	return nil
}
