package erofs

import (
	"errors"
	"io"
)

// ErrDamaged says that an image is not what a Writer makes.
var ErrDamaged = errors.New("damaged EROFS image")

// Reader reads an image. It is safe for concurrent use.
type Reader struct {
	r    io.ReaderAt
	size int64
}

// Open reads the superblock. size is the length of the image's file.
func Open(r io.ReaderAt, size int64) (*Reader, error) { return nil, errors.ErrUnsupported }

// Stat is what an inode says of itself.
type Stat struct {
	Ino       uint64 // the same for all names of a file
	Mode      uint32 // as in st_mode
	UID, GID  uint32
	Nlink     uint32
	Size      int64
	Mtime     int64
	MtimeNsec uint32
	Rdev      uint64 // of a device, for unix.Major and unix.Minor
}

// Node is one inode of an image.
type Node struct {
	Stat
	r *Reader
}

// Lookup finds a path below the root ("" is the root) and follows no symlinks. What
// is not there is fs.ErrNotExist.
func (r *Reader) Lookup(path string) (*Node, error) { return nil, errors.ErrUnsupported }

// Lookup finds a name in a folder.
func (n *Node) Lookup(name string) (*Node, error) { return nil, errors.ErrUnsupported }

// Xattrs reads the extended attributes, by full name.
func (n *Node) Xattrs() (map[string]string, error) { return nil, errors.ErrUnsupported }

// Xattr reads one extended attribute.
func (n *Node) Xattr(name string) (value string, ok bool, err error) {
	return "", false, errors.ErrUnsupported
}

// Readlink reads the target of a symlink.
func (n *Node) Readlink() (string, error) { return "", errors.ErrUnsupported }

// Open gives the content of a regular file.
func (n *Node) Open() (*io.SectionReader, error) { return nil, errors.ErrUnsupported }

// Each calls f for every entry of a folder but "." and "..", by name. The nodes are
// read only by Reader.Node.
func (n *Node) Each(f func(name string, ino uint64) error) error { return errors.ErrUnsupported }

// Node reads one inode by its number.
func (r *Reader) Node(ino uint64) (*Node, error) { return nil, errors.ErrUnsupported }

// Walk calls f for every path, folders before what is in them, by name; the root
// is "". A file with several names comes several times.
func (r *Reader) Walk(f func(path string, n *Node) error) error { return errors.ErrUnsupported }
