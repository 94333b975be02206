package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // aufs's own files, of no use elsewhere

	largeChunk = 1 << 20
)

var zeroes [64 << 10]byte

// underReserved tells whether p lies in a folder that aufs kept for itself.
func underReserved(p string) bool {
	return strings.HasPrefix(p, whiteoutMeta) || strings.Contains(p, "/"+whiteoutMeta)
}

// whiteout marks a name, or the folder itself, as deleted below this layer.
// The type of the entry does not matter: images exist that ship whiteouts as
// hard links.
func (u *unpacker) whiteout(parent *folder, base string) error {
	if base == whiteoutOpaque {
		parent.opaque = true
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	switch {
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case name == "", name == ".", name == "..":
		return errors.New("whiteout of nothing")
	}
	key := u.hash(parent, name)
	if _, ok := u.seen[key]; ok {
		if f, ok := u.folders.byPath[path.Join(parent.path, name)]; ok {
			f.opaque = true
			return nil
		}
		if err := u.writers.drain(); err != nil {
			return err
		}
		if _, err := lstatAt(parent.fd, name); err == nil {
			return nil // this layer's own file hides the lower one
		}
	}
	u.seen[key] = struct{}{}
	u.deleted = append(u.deleted, whiteout{parent, name})
	return unix.Mknodat(parent.fd, name, unix.S_IFCHR, 0)
}

// make makes one entry below an open parent.
func (u *unpacker) make(parent *folder, name string, h *tar.Header, m *meta, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse, tar.TypeDir, tar.TypeSymlink,
		tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fmt.Errorf("unknown type %q", h.Typeflag)
	}
	if h.Typeflag == tar.TypeLink {
		return u.hardLink(parent, name, h.Linkname)
	}
	old, replaced, err := u.claim(parent, name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.makeFolder(parent, name, m, old, replaced)
	case tar.TypeSymlink:
		return u.symlink(parent, name, h.Linkname, m)
	case tar.TypeChar:
		return u.node(parent, name, unix.S_IFCHR, h, m)
	case tar.TypeBlock:
		return u.node(parent, name, unix.S_IFBLK, h, m)
	case tar.TypeFifo:
		return u.node(parent, name, unix.S_IFIFO, h, m)
	}
	return u.file(parent, name, h, m, r)
}

func (u *unpacker) makeFolder(parent *folder, name string, m *meta, f *folder, replaced bool) error {
	if f == nil {
		var err error
		if f, err = u.folders.make(parent, name); err != nil {
			return err
		}
		// Something else stood here, or its deletion was marked: the folder
		// of that name in the lower layers is gone.
		f.opaque = replaced
	}
	f.meta, f.explicit = *m, true
	return nil
}

func (u *unpacker) symlink(parent *folder, name, target string, m *meta) error {
	if err := unix.Symlinkat(target, parent.fd, name); err != nil {
		return err
	}
	if u.id.chownNeeded(m) {
		if err := unix.Fchownat(parent.fd, name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return setTimes(parent.fd, name, m)
}

// node makes a device or a fifo. Without privilege devices are left out.
func (u *unpacker) node(parent *folder, name string, kind uint32, h *tar.Header, m *meta) error {
	dev := 0
	if kind != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	err := unix.Mknodat(parent.fd, name, kind|0o600, dev)
	if errors.Is(err, unix.EPERM) && !u.id.privileged() {
		return nil
	}
	if err != nil {
		return err
	}
	if u.id.chownNeeded(m) {
		if err := unix.Fchownat(parent.fd, name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	// Not a symlink: we have just made it in a folder that is ours alone.
	if err := unix.Fchmodat(parent.fd, name, m.mode, 0); err != nil {
		return err
	}
	return setTimes(parent.fd, name, m)
}

// file writes a regular file: small ones go to the writers.
func (u *unpacker) file(parent *folder, name string, h *tar.Header, m *meta, r io.Reader) error {
	u.res.Size += h.Size
	if h.Size <= smallFile {
		buf := smallBufs.Get().(*smallBuf)
		if _, err := io.ReadFull(r, buf[:h.Size]); err != nil {
			smallBufs.Put(buf)
			return err
		}
		u.writers.add(job{dir: parent, name: name, meta: *m, buf: buf, n: int(h.Size)})
		return nil
	}
	if err := u.room(h.Size); err != nil {
		return err
	}
	return u.largeFile(parent, name, h.Size, isSparse(h), m, r)
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (u *unpacker) largeFile(parent *folder, name string, size int64, sparse bool, m *meta, r io.Reader) error {
	fd, err := createFile(parent.fd, name)
	if err != nil {
		return err
	}
	if u.buf == nil {
		u.buf = make([]byte, largeChunk)
	}
	buf := u.buf
	if sparse {
		buf = buf[:len(zeroes)]
	}
	for off := int64(0); off < size && err == nil; {
		piece := buf[:min(size-off, int64(len(buf)))]
		if _, err = io.ReadFull(r, piece); err != nil {
			break
		}
		if sparse && bytes.Equal(piece, zeroes[:len(piece)]) {
			_, err = unix.Seek(fd, int64(len(piece)), io.SeekCurrent)
		} else {
			err = writeAll(fd, piece)
		}
		off += int64(len(piece))
	}
	if err == nil && sparse {
		err = unix.Ftruncate(fd, size)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return finishFile(u.id, fd, parent.fd, name, m)
}

// hardLink links name to an earlier entry, or to a lower layer's file, which
// is copied up for it.
func (u *unpacker) hardLink(parent *folder, name, target string) error {
	dir, base, err := splitName(target)
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	if base == "" {
		return fmt.Errorf("link to %q: not a file", target)
	}
	if err := u.writers.drain(); err != nil {
		return err
	}
	from, err := u.folder(dir)
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	if from == parent && base == name {
		return errors.New("link to itself")
	}
	from.refs.Add(1) // both folders stay open
	defer from.refs.Add(-1)
	if err := u.folders.acquire(parent); err != nil {
		return err
	}
	if err := u.linkTarget(from, base); err != nil {
		return linkError(target, err)
	}
	if _, _, err := u.claim(parent, name, false); err != nil {
		return err
	}
	if u.folders.byPath[from.path] != from { // claim removed a tree with the target in it
		return fmt.Errorf("link to %q: it replaces its own target", target)
	}
	if err := unix.Linkat(from.fd, base, parent.fd, name, 0); err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	return nil
}

func linkError(target string, err error) error {
	if errors.Is(err, ErrNeedsLower) {
		return err
	}
	return fmt.Errorf("link to %q: %w", target, err)
}

// linkTarget makes sure that a hard link to base can be made.
func (u *unpacker) linkTarget(from *folder, base string) error {
	st, err := lstatAt(from.fd, base)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return errors.New("is a folder")
	case err == nil && isWhiteout(&st):
		return unix.ENOENT
	case err == nil, !errors.Is(err, unix.ENOENT):
		return err
	case u.lower == nil:
		return ErrNeedsLower
	case from.hidden():
		return unix.ENOENT
	}
	u.res.Dependent = true
	p := path.Join(from.path, base)
	root, st, err := u.lower.lookup(p)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return u.copyUp(from, base, root, st.Size)
	case unix.S_IFLNK:
		return u.copyUpLink(from, base, root, &st)
	}
	return errors.New("is neither a file nor a symlink")
}

func (u *unpacker) copyUp(to *folder, name string, root int, size int64) error {
	src, m, err := u.lower.open(root, path.Join(to.path, name))
	if err != nil {
		return err
	}
	defer src.Close()
	if err := u.room(size); err != nil {
		return err
	}
	u.seen[u.hash(to, name)] = struct{}{}
	u.res.Size += size
	return u.largeFile(to, name, size, false, &m, src)
}

func (u *unpacker) copyUpLink(to *folder, name string, root int, st *unix.Stat_t) error {
	target, err := readlinkBeneath(root, path.Join(to.path, name))
	if err != nil {
		return err
	}
	u.seen[u.hash(to, name)] = struct{}{}
	m := metaOf(&tar.Header{Uid: int(st.Uid), Gid: int(st.Gid)})
	return u.symlink(to, name, target, &m)
}
