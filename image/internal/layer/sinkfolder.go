package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/erofs"
)

const (
	opaquePrivileged   = "trusted.overlay.opaque"
	opaqueUnprivileged = "user.overlay.opaque"

	largeChunk = 1 << 20
)

var zeroes [64 << 10]byte

// folderSink makes a folder with the layer's files in it. Every system call names
// one component relative to the descriptor of its parent.
type folderSink struct {
	id      identity
	root    *os.File
	open    openFolders
	writers *writers
	buf     []byte // for large files
}

func newFolderSink(dir string, root *folder) (*folderSink, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	root.fd = int(d.Fd())
	id := self()
	return &folderSink{
		id: id, root: d, open: openFolders{root: root.fd},
		writers: newWriters(max(2, min(4, runtime.GOMAXPROCS(0))), id),
	}, nil
}

func (s *folderSink) close() error {
	s.writers.stop()
	s.open.closeAll()
	return s.root.Close()
}

func (s *folderSink) failed() error { return s.writers.failed() }

func (s *folderSink) opaque() string {
	if s.id.privileged() {
		return opaquePrivileged
	}
	return opaqueUnprivileged
}

func (s *folderSink) folder(f *folder) error {
	if err := s.open.acquire(f.parent); err != nil {
		return err
	}
	return unix.Mkdirat(f.parent.fd, f.name, 0o700)
}

// file writes a regular file: small ones go to the writers.
func (s *folderSink) file(f *folder, name string, n *node, r io.Reader, sparse bool) error {
	if err := s.open.acquire(f); err != nil {
		return err
	}
	if n.size > smallFile {
		return s.largeFile(f, name, n, r, sparse)
	}
	buf := smallBufs.Get().(*smallBuf)
	if _, err := io.ReadFull(r, buf[:n.size]); err != nil {
		smallBufs.Put(buf)
		return cutOff(err)
	}
	s.writers.add(job{dir: f, name: name, node: n, buf: buf})
	return nil
}

func (s *folderSink) largeFile(f *folder, name string, n *node, r io.Reader, sparse bool) error {
	fd, err := createFile(f.fd, name)
	if err != nil {
		return err
	}
	if sparse { // too large for the file system: to be known before an hour of zeros
		err = unix.Ftruncate(fd, n.size)
	}
	if s.buf == nil {
		s.buf = make([]byte, largeChunk)
	}
	if err == nil {
		err = pour(n, r, s.buf, sparse, func(p []byte) error { return writeAll(fd, p) }, func(k int64) error {
			_, err := unix.Seek(fd, k, io.SeekCurrent)
			return err
		})
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return finishFile(s.id, fd, f.fd, name, n)
}

// pour reads a file's content in pieces, writes them or, where it is sparse and
// they are zeros, skips them, and takes the sum.
func pour(n *node, r io.Reader, buf []byte, sparse bool, write func([]byte) error, skip func(int64) error) error {
	if sparse {
		buf = buf[:len(zeroes)]
	}
	var sum xxhash.Digest
	sum.Reset()
	for left := n.size; left > 0; {
		piece := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, piece); err != nil {
			return cutOff(err)
		}
		_, _ = sum.Write(piece)
		var err error
		if sparse && bytes.Equal(piece, zeroes[:len(piece)]) {
			err = skip(int64(len(piece)))
		} else {
			err = write(piece)
		}
		if err != nil {
			return err
		}
		left -= int64(len(piece))
	}
	n.sum = sum.Sum64()
	return nil
}

// cutOff says what an end in the middle of a file's content is.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// other makes a symlink, fifo or device. Without privilege there are no devices:
// the name is then as if deleted, so that what lies below it does not show.
func (s *folderSink) other(f *folder, name string, n *node) error {
	if err := s.open.acquire(f); err != nil {
		return err
	}
	if n.kind() == unix.S_IFLNK {
		if err := unix.Symlinkat(n.Target, f.fd, name); err != nil {
			return err
		}
	} else {
		err := unix.Mknodat(f.fd, name, n.kind()|0o600, int(n.Rdev))
		if errors.Is(err, unix.EPERM) && !s.id.privileged() {
			n.Mode, n.Rdev = unix.S_IFCHR, 0
			return nil
		}
		if err != nil {
			return err
		}
	}
	if s.id.chownNeeded(&n.Inode) {
		if err := unix.Fchownat(f.fd, name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if n.kind() != unix.S_IFLNK {
		// Not a symlink: we have just made it in a folder that is ours alone.
		if err := unix.Fchmodat(f.fd, name, n.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return s.id.setTimes(f.fd, name, n)
}

func (s *folderSink) link(from *folder, base string, to *folder, name string) error {
	if err := s.writers.drain(); err != nil { // the target may be with a writer
		return err
	}
	if err := s.open.acquire(from); err != nil {
		return err
	}
	from.refs.Add(1) // both folders stay open
	defer from.refs.Add(-1)
	if err := s.open.acquire(to); err != nil {
		return err
	}
	return unix.Linkat(from.fd, base, to.fd, name, 0)
}

func (s *folderSink) remove(f *folder, name string, n *node) error {
	if n.isWhiteout() {
		return nil // not there before finish
	}
	if err := s.writers.drain(); err != nil {
		return err
	}
	return s.removeTree(f, name, n)
}

// removeTree goes by the tree, which knows all that is there.
func (s *folderSink) removeTree(f *folder, name string, n *node) error {
	flags := 0
	if n.dir != nil {
		for kid, k := range n.dir.kids {
			if k.isWhiteout() {
				continue
			}
			if err := s.removeTree(n.dir, kid, k); err != nil {
				return err
			}
		}
		s.open.forget(n.dir)
		flags = unix.AT_REMOVEDIR
	}
	if err := s.open.acquire(f); err != nil {
		return err
	}
	return unix.Unlinkat(f.fd, name, flags)
}

// finish waits for the writers and completes the folders, children before their
// parents.
func (s *folderSink) finish(root *folder) error {
	if err := s.writers.drain(); err != nil {
		return err
	}
	for _, f := range root.folders() {
		if err := s.finish(f); err != nil {
			return err
		}
	}
	if err := s.finishFolder(root); err != nil {
		return &entryError{root.path() + "/", err}
	}
	return nil
}

func (s *folderSink) finishFolder(f *folder) error {
	if err := s.open.acquire(f); err != nil {
		return err
	}
	for name, n := range f.kids {
		if n.isWhiteout() {
			if err := unix.Mknodat(f.fd, name, unix.S_IFCHR, 0); err != nil {
				return err
			}
		}
	}
	if err := s.id.setTimes(f.fd, ".", f.node); err != nil {
		return err
	}
	return s.id.setOpen(f.fd, f.node)
}

// chownNeeded tells whether a new inode of ours must change hands.
func (id identity) chownNeeded(i *erofs.Inode) bool {
	return id.privileged() && (int(i.UID) != id.uid || int(i.GID) != id.gid)
}

// setOpen sets everything but the times on an open file or folder. The order
// matters: chown clears setuid bits and capabilities, and a mode without write
// permission would refuse attributes. What could not be set, n has not.
func (id identity) setOpen(fd int, n *node) error {
	if id.chownNeeded(&n.Inode) {
		if err := unix.Fchown(fd, int(n.UID), int(n.GID)); err != nil {
			return err
		}
	}
	for name, value := range n.Xattrs {
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		if err != nil && !id.tolerates(name, err) {
			return &xattrError{name, err}
		}
		if err != nil {
			delete(n.Xattrs, name)
		}
	}
	return unix.Fchmod(fd, n.Mode&0o7777)
}

// tolerates accepts that a file system has no attributes, and that an
// unprivileged unpack may not set them; but a folder must not lose its mark.
func (id identity) tolerates(name string, err error) bool {
	if strings.Contains(name, ".overlay.") {
		return false
	}
	return errors.Is(err, unix.ENOTSUP) || !id.privileged() && errors.Is(err, unix.EPERM)
}

// setTimes sets the times of name itself, not of what it points to, and notes
// who owns what an unprivileged unpack has made.
func (id identity) setTimes(dir int, name string, n *node) error {
	if !id.privileged() {
		n.UID, n.GID = uint32(id.uid), uint32(id.gid)
	}
	t := unix.Timespec{Sec: n.Mtime, Nsec: int64(n.MtimeNsec)}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// openFolders opens folders on demand and keeps the last ones open.
type openFolders struct {
	root int
	open []*folder // oldest first
}

// maxOpen bounds the descriptors that one unpack keeps for folders.
const maxOpen = 128

// acquire makes sure that f.fd is open until the next acquire of another folder.
func (o *openFolders) acquire(f *folder) error {
	f.used = true
	if f.fd >= 0 {
		return nil
	}
	o.evict()
	p := f.path()
	fd, err := openBeneath(o.root, p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", p, err)
	}
	f.fd = fd
	o.open = append(o.open, f)
	return nil
}

func (o *openFolders) evict() {
	for tries := 2 * len(o.open); len(o.open) >= maxOpen && tries > 0; tries-- {
		f := o.open[0]
		o.open = o.open[1:]
		if f.fd < 0 {
			continue
		}
		if f.used || f.refs.Load() > 0 {
			f.used = false
			o.open = append(o.open, f)
			continue
		}
		f.close()
	}
}

// forget closes a folder that goes. No writer may be at work.
func (o *openFolders) forget(f *folder) {
	if f.fd >= 0 {
		f.close()
	}
}

func (f *folder) close() {
	unix.Close(f.fd)
	f.fd = -1
}

func (o *openFolders) closeAll() {
	for _, f := range o.open {
		o.forget(f)
	}
	o.open = nil
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
