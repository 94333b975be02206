package erofs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrDamaged says that an image is not what a Writer makes.
var ErrDamaged = errors.New("damaged EROFS image")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Reader reads an image. It is safe for concurrent use.
type Reader struct {
	r    io.ReaderAt
	size int64
	meta int64
	root uint64
	inos uint64
}

// Open reads the superblock. size is the length of the image's file.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	if size < 2*blockSize {
		return nil, damaged("%d bytes", size)
	}
	b := make([]byte, blockSize-superOffset)
	if _, err := r.ReadAt(b, superOffset); err != nil {
		return nil, err
	}
	sum := le.Uint32(b[4:])
	le.PutUint32(b[4:], 0)
	switch {
	case le.Uint32(b) != magic:
		return nil, damaged("no superblock")
	case superChecksum(b) != sum:
		return nil, damaged("superblock has the wrong checksum")
	case b[12] != blockBits || le.Uint32(b[80:])&^incompatChunked != 0 || le.Uint16(b[86:]) != 0:
		return nil, damaged("superblock with features that are not ours")
	}
	img := &Reader{r: r, size: size, root: uint64(le.Uint16(b[14:])), inos: le.Uint64(b[16:])}
	img.meta = int64(le.Uint32(b[40:])) * blockSize
	if blocks := int64(le.Uint32(b[36:])); blocks*blockSize > size || img.meta >= blocks*blockSize {
		return nil, damaged("%d blocks, metadata at %d, in a file of %d bytes", blocks, img.meta, size)
	}
	return img, nil
}

// Inodes is how many inodes the image says that it has.
func (r *Reader) Inodes() uint64 { return r.inos }

// readAt fills b.
func (r *Reader) readAt(b []byte, at int64) error {
	if at < 0 || at > r.size-int64(len(b)) {
		return damaged("%d bytes at %d of %d", len(b), at, r.size)
	}
	n, err := r.r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damaged("file ends at %d, not at %d", at+int64(n), r.size)
	}
	return err
}

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
	r      *Reader
	at     int64
	layout int
	where  uint32
	xattrs int64 // bytes
}

// Node reads one inode by its number.
func (r *Reader) Node(ino uint64) (*Node, error) {
	if ino > uint64(r.size)/nidUnit {
		return nil, damaged("inode %d", ino)
	}
	n := &Node{r: r, at: r.meta + int64(ino)*nidUnit}
	var b [inodeSize]byte
	if err := r.readAt(b[:], n.at); err != nil {
		return nil, err
	}
	format := le.Uint16(b[:])
	n.layout = int(format >> 1)
	n.where = le.Uint32(b[16:])
	if count := int64(le.Uint16(b[2:])); count > 0 {
		n.xattrs = xattrHeader + 4*(count-1)
	}
	n.Stat = Stat{
		Ino: ino, Mode: uint32(le.Uint16(b[4:])), Size: int64(le.Uint64(b[8:])),
		UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]),
		Mtime: int64(le.Uint64(b[32:])), MtimeNsec: le.Uint32(b[40:]), Nlink: le.Uint32(b[44:]),
	}
	if format&1 == 0 || fileType(n.Mode) == 0 || n.MtimeNsec >= 1e9 {
		return nil, damaged("inode %d", ino)
	}
	if t := n.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		n.Rdev = unix.Mkdev(n.where>>8&0xfff, n.where&0xff|n.where>>12&^0xff)
	}
	return n, n.check()
}

// tail is where inline data or the list of chunks begins.
func (n *Node) tail() int64 { return n.at + inodeSize + n.xattrs }

// check compares what the inode claims with the length of the file.
func (n *Node) check() error {
	bad := n.Size < 0 || n.Size > 1<<62
	switch n.layout {
	case layoutPlain:
		bad = bad || n.Size > 0 && (n.Size > n.r.size || int64(n.where)*blockSize > n.r.size-n.Size)
	case layoutInline:
		last := n.Size % blockSize
		bad = bad || last == 0 || n.Size > n.r.size || n.tail() > n.r.size-last ||
			int64(n.where)*blockSize > n.r.size-(n.Size-last)
	case layoutChunks:
		bad = bad || n.where&^chunkBitsMask != 0 || n.Mode&unix.S_IFMT != unix.S_IFREG ||
			n.tail() > n.r.size-4*n.chunks()
	default:
		bad = true
	}
	if bad {
		return damaged("inode %d claims %d bytes", n.Ino, n.Size)
	}
	return nil
}

// chunk is the size of the file's chunks, in bits.
func (n *Node) chunk() uint { return blockBits + uint(n.where&chunkBitsMask) }

func (n *Node) chunks() int64 {
	if n.Size == 0 {
		return 0
	}
	return (n.Size-1)>>n.chunk() + 1
}

// run is where the byte at off is, and how many follow it there. at -1 is a hole.
func (n *Node) run(off int64) (at, length int64, err error) {
	switch n.layout {
	case layoutInline:
		if full := n.Size - n.Size%blockSize; off >= full {
			return n.tail() + off - full, n.Size - off, nil
		} else {
			return int64(n.where)*blockSize + off, full - off, nil
		}
	case layoutChunks:
		var b [4]byte
		index := off >> n.chunk()
		if err := n.r.readAt(b[:], n.tail()+4*index); err != nil {
			return 0, 0, err
		}
		from := index << n.chunk()
		length = min(n.Size, from+1<<n.chunk()) - off
		if block := le.Uint32(b[:]); block != chunkHole {
			return int64(block)*blockSize + off - from, length, nil
		}
		return -1, length, nil
	}
	return int64(n.where)*blockSize + off, n.Size - off, nil
}

// ReadAt reads the content of anything that has one.
func (n *Node) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	done := 0
	for done < len(p) {
		if off >= n.Size {
			return done, io.EOF
		}
		at, length, err := n.run(off)
		if err != nil {
			return done, err
		}
		part := p[done:]
		part = part[:min(int64(len(part)), length)]
		if at < 0 {
			clear(part)
		} else if err := n.r.readAt(part, at); err != nil {
			return done, err
		}
		done += len(part)
		off += int64(len(part))
	}
	return done, nil
}

// Open gives the content of a regular file.
func (n *Node) Open() (*io.SectionReader, error) {
	if n.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("inode %d is no regular file: %w", n.Ino, fs.ErrInvalid)
	}
	return io.NewSectionReader(n, 0, n.Size), nil
}

// Readlink reads the target of a symlink.
func (n *Node) Readlink() (string, error) {
	if n.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", fmt.Errorf("inode %d is no symlink: %w", n.Ino, fs.ErrInvalid)
	}
	if n.Size > maxTarget {
		return "", damaged("symlink of %d bytes", n.Size)
	}
	b := make([]byte, n.Size)
	if _, err := n.ReadAt(b, 0); err != nil {
		return "", err
	}
	return string(b), nil
}

// Xattrs reads the extended attributes, by full name. Without any it is nil.
func (n *Node) Xattrs() (map[string]string, error) {
	if n.xattrs == 0 {
		return nil, nil
	}
	b := make([]byte, n.xattrs) // at most 256 KiB
	if err := n.r.readAt(b, n.at+inodeSize); err != nil {
		return nil, err
	}
	if b[4] != 0 {
		return nil, damaged("inode %d: shared attributes", n.Ino)
	}
	out := map[string]string{}
	for b = b[xattrHeader:]; len(b) > 0; {
		name, size := int64(b[0]), int64(le.Uint16(b[2:]))
		end := xattrEntry + name + size
		prefix, ok := prefixOf(b[1])
		if end > int64(len(b)) || !ok {
			return nil, damaged("inode %d: attributes", n.Ino)
		}
		out[prefix+string(b[xattrEntry:xattrEntry+name])] = string(b[xattrEntry+name : end])
		b = b[min(roundUp(end, 4), int64(len(b))):]
	}
	return out, nil
}

func prefixOf(index uint8) (string, bool) {
	for _, p := range xattrPrefixes {
		if p.index == index {
			return p.prefix, true
		}
	}
	return "", false
}

// Xattr reads one extended attribute.
func (n *Node) Xattr(name string) (value string, ok bool, err error) {
	all, err := n.Xattrs()
	value, ok = all[name]
	return value, ok, err
}

// Lookup finds a path below the root ("" is the root) and follows no symlinks. What
// is not there is fs.ErrNotExist.
func (r *Reader) Lookup(path string) (*Node, error) {
	n, err := r.Node(r.root)
	for path != "" && err == nil {
		var name string
		name, path, _ = strings.Cut(path, "/")
		n, err = n.Lookup(name)
	}
	return n, err
}
