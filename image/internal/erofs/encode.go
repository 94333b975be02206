package erofs

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// emit adds bytes of the metadata.
func (w *Writer) emit(p []byte) error {
	for len(p) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		n := copy(w.buf[len(w.buf):cap(w.buf)], p)
		w.buf = w.buf[:len(w.buf)+n]
		p = p[n:]
	}
	return nil
}

// inodes writes the inodes with what stands beside them.
func (w *Writer) inodes(p *plan, meta int64) error {
	extra := (meta + roundUp(p.size, blockSize)) / blockSize
	var b []byte
	for n, i := range p.order {
		if err := w.skip(meta + int64(i.nid)*nidUnit - w.at - int64(len(w.buf))); err != nil {
			return err
		}
		xattrs, err := xattrSize(i.Xattrs)
		if err != nil {
			return err
		}
		at := i.body(xattrs)
		b = i.encode(b[:0], at, xattrs, uint32(extra), uint32(n+1))
		b = appendXattrs(b, i.Xattrs)
		b = i.appendTail(b, at)
		if err := w.emit(b); err != nil {
			return err
		}
		extra += int64(at.blocks)
	}
	return w.pad()
}

// encode makes the inode itself. extra is where its blocks behind the inodes begin.
func (i *Inode) encode(b []byte, at body, xattrs int, extra, number uint32) []byte {
	b = le.AppendUint16(b, uint16(at.layout<<1|1)) // extended
	count := 0
	if xattrs > 0 {
		count = 1 + (xattrs-xattrHeader)/4
	}
	b = le.AppendUint16(b, uint16(count))
	b = le.AppendUint16(b, uint16(i.Mode))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(at.size))
	b = le.AppendUint32(b, i.where(at, extra))
	b = le.AppendUint32(b, number)
	b = le.AppendUint32(b, i.UID)
	b = le.AppendUint32(b, i.GID)
	b = le.AppendUint64(b, uint64(i.Mtime))
	b = le.AppendUint32(b, i.MtimeNsec)
	b = le.AppendUint32(b, i.nlink)
	return append(b, make([]byte, 16)...)
}

// where is the field of an inode that says where its content is, or which device
// it is.
func (i *Inode) where(at body, extra uint32) uint32 {
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor := unix.Major(i.Rdev), unix.Minor(i.Rdev)
		return minor&0xff | major<<8 | minor&^0xff<<12
	case unix.S_IFREG:
		if i.Data.sparse != nil {
			return uint32(i.Data.sparse.bits)
		}
		if i.Data.inline == nil {
			return i.Data.block
		}
	}
	if at.blocks > 0 {
		return extra
	}
	return 0
}

// appendTail adds what stands behind the inode and its attributes.
func (i *Inode) appendTail(b []byte, at body) []byte {
	switch at.layout {
	case layoutChunks:
		for _, c := range i.Data.sparse.chunks {
			b = le.AppendUint32(b, c)
		}
	case layoutInline:
		if !i.IsFolder() {
			return append(b, i.small()...)
		}
		_, last := i.pack()
		b = append(b, i.dirBlock(last)...)
	}
	return b
}

// small is the content that a link or small file has.
func (i *Inode) small() []byte {
	if i.Mode&unix.S_IFMT == unix.S_IFLNK {
		return []byte(i.Target)
	}
	return i.Data.inline
}

// blocks writes what body has put behind the inodes.
func (w *Writer) blocks(p *plan) error {
	for _, i := range p.order {
		xattrs, err := xattrSize(i.Xattrs)
		if err != nil {
			return err
		}
		at := i.body(xattrs)
		if at.blocks == 0 {
			continue
		}
		if !i.IsFolder() {
			err = w.emit(i.small())
		} else {
			err = w.dirBlocks(i, at.blocks)
		}
		if err == nil {
			err = w.pad()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) dirBlocks(i *Inode, n int) error {
	for d := range i.split() {
		if n--; n < 0 {
			return nil // the rest is inline
		}
		if err := w.emit(i.dirBlock(d)); err != nil {
			return err
		}
		if err := w.pad(); err != nil {
			return err
		}
	}
	return nil
}

// entries are the names of a folder from the k-th on, with "." and ".." at their
// places: the kernel searches all of them by halves.
func (i *Inode) entries(k int) iter.Seq2[string, *Inode] {
	byName := func(e Entry, name string) int { return cmp.Compare(e.Name, name) }
	self, _ := slices.BinarySearchFunc(i.Children, ".", byName)
	up, _ := slices.BinarySearchFunc(i.Children, "..", byName)
	up++ // behind "."
	return func(yield func(string, *Inode) bool) {
		for ; k < len(i.Children)+2; k++ {
			name, to := "", (*Inode)(nil)
			switch {
			case k == self:
				name, to = ".", i
			case k == up:
				name, to = "..", i.parent
			case k < self:
				name, to = i.Children[k].Name, i.Children[k].Inode
			case k < up:
				name, to = i.Children[k-1].Name, i.Children[k-1].Inode
			default:
				name, to = i.Children[k-2].Name, i.Children[k-2].Inode
			}
			if !yield(name, to) {
				return
			}
		}
	}
}

// dirBlock is a block of a folder: count names from the first on, size bytes.
type dirBlock struct{ first, count, size int }

// split cuts a folder's names into blocks.
func (i *Inode) split() iter.Seq[dirBlock] {
	return func(yield func(dirBlock) bool) {
		var d dirBlock
		for name := range i.entries(0) {
			n := direntSize + len(name)
			if d.size+n > blockSize {
				if !yield(d) {
					return
				}
				d = dirBlock{first: d.first + d.count}
			}
			d.count++
			d.size += n
		}
		yield(d)
	}
}

// pack is what split comes to: so many full blocks and the last one, unless that is
// full too.
func (i *Inode) pack() (full int, last dirBlock) {
	full = -1
	for last = range i.split() {
		full++
	}
	if last.size == blockSize {
		return full + 1, dirBlock{}
	}
	return full, last
}

// dirBlock makes a block: first all entries, then their names.
func (i *Inode) dirBlock(d dirBlock) []byte {
	b := make([]byte, d.size)
	at, entry := d.count*direntSize, b
	for name, to := range i.entries(d.first) {
		le.PutUint64(entry, to.nid)
		le.PutUint16(entry[8:], uint16(at))
		entry[10] = fileType(to.Mode)
		entry = entry[direntSize:]
		at += copy(b[at:], name)
		if d.count--; d.count == 0 {
			break
		}
	}
	return b
}

// xattrSize is what attributes take behind an inode.
func xattrSize(xattrs map[string]string) (int, error) {
	if len(xattrs) == 0 {
		return 0, nil
	}
	size := xattrHeader
	for name, value := range xattrs {
		_, rest, ok := cutPrefix(name)
		if !ok || len(rest) > maxName || len(value) > maxValue {
			return 0, fmt.Errorf("attribute %.300q with %d bytes: %w", name, len(value), errFormat)
		}
		size += xattrEntry + int(roundUp(int64(len(rest)+len(value)), 4))
	}
	if count := 1 + (size-xattrHeader)/4; count > 1<<16-1 {
		return 0, fmt.Errorf("attributes of %d bytes: %w", size, errFormat)
	}
	return size, nil
}

func cutPrefix(name string) (index uint8, rest string, ok bool) {
	for _, p := range xattrPrefixes {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok && (rest == "") == p.whole {
			return p.index, rest, true
		}
	}
	return 0, "", false
}

func appendXattrs(b []byte, xattrs map[string]string) []byte {
	if len(xattrs) == 0 {
		return b
	}
	b = append(b, make([]byte, xattrHeader)...)
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		index, rest, _ := cutPrefix(name)
		value := xattrs[name]
		b = append(b, uint8(len(rest)), index)
		b = le.AppendUint16(b, uint16(len(value)))
		b = append(append(b, rest...), value...)
		for n := len(rest) + len(value); n%4 != 0; n++ {
			b = append(b, 0)
		}
	}
	return b
}

// super makes the first block from the superblock on.
func (w *Writer) super(p *plan, meta int64) []byte {
	b := make([]byte, blockSize-superOffset)
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], compatChecksum|compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], firstInode/nidUnit)
	le.PutUint64(b[16:], uint64(len(p.order)))
	le.PutUint32(b[36:], uint32((meta+p.total())/blockSize))
	le.PutUint32(b[40:], uint32(meta/blockSize))
	copy(b[48:64], w.o.UUID[:])
	copy(b[64:79], w.o.Name)
	for _, i := range p.order {
		if i.Mode&unix.S_IFMT == unix.S_IFREG && i.Data.sparse != nil {
			le.PutUint32(b[80:], incompatChunked) // kernels before 5.15 have to refuse it
			break
		}
	}
	le.PutUint32(b[4:], superChecksum(b))
	return b
}
