package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// A manifest lists what a layer was when it was made, so that it can be told
// later whether it still is. It is a stream: the first line below, the
// form ("folder" or "erofs"), where the image's metadata begins and its checksum, then
// one record an entry, a zero, and the xxhash64 of all that in 8 bytes. Numbers are varints,
// strings have their length before them, and a path is how many bytes it
// shares with the one before, and the rest.
//
// Folders stand before what is in them, names in the order of their bytes.
const manifestMagic = "wherry layer manifest 1\n"

const (
	recordEnd   = 0
	recordInode = 1
	recordLink  = 2 // one more name of an earlier entry
)

// maxString bounds what a damaged manifest may make us allocate.
const maxString = 1 << 20

// ErrNoManifest says that a layer was made before there were manifests.
var ErrNoManifest = errors.New("layer has no manifest")

// ErrManifest says that a manifest itself is damaged.
var ErrManifest = errors.New("damaged manifest")

// Entry is one name in a layer, as overlayfs is to see it: a whiteout is a
// character device 0:0, an opaque folder has its attribute.
type Entry struct {
	Path      string // "" is the root
	Link      string // if not "": another name of the file at this earlier path; nothing else is set
	Mode      uint32 // type and permissions as in st_mode
	UID, GID  uint32
	Mtime     int64
	MtimeNsec uint32
	Size      int64  // of a regular file
	Sum       uint64 // xxhash64 of a regular file's content
	Target    string // of a symlink
	Rdev      uint64
	Xattrs    map[string]string
}

// IsWhiteout tells whether the entry only says that the name is gone.
func (e *Entry) IsWhiteout() bool {
	return e.Mode&unix.S_IFMT == unix.S_IFCHR && e.Rdev == 0 && e.Link == ""
}

// manifestWriter writes a manifest.
type manifestWriter struct {
	w         *bufio.Writer
	sum       *xxhash.Digest
	form      Form
	metaStart int64
	metaSum   uint64
	last      string
	links     map[*node]string // where a file with several names has stood first
	b         []byte
}

func newManifestWriter(w io.Writer, form Form) *manifestWriter {
	sum := xxhash.New()
	return &manifestWriter{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10), sum: sum, form: form, links: map[*node]string{}}
}

// tree writes the manifest of a tree.
func (m *manifestWriter) tree(root *folder) error {
	m.b = append(m.b[:0], manifestMagic...)
	m.str(string(m.form))
	m.b = binary.AppendUvarint(m.b, uint64(m.metaStart))
	m.b = binary.LittleEndian.AppendUint64(m.b, m.metaSum)
	if err := m.node("", root.node); err != nil {
		return err
	}
	if err := m.folder("", root); err != nil {
		return err
	}
	m.b = append(m.b, recordEnd)
	if err := m.flush(); err != nil {
		return err
	}
	if err := m.w.Flush(); err != nil {
		return err
	}
	m.b = binary.LittleEndian.AppendUint64(m.b, m.sum.Sum64())
	if err := m.flush(); err != nil {
		return err
	}
	return m.w.Flush()
}

func (m *manifestWriter) flush() error {
	_, err := m.w.Write(m.b)
	m.b = m.b[:0]
	return err
}

func (m *manifestWriter) folder(p string, f *folder) error {
	for _, name := range f.sorted() {
		n, q := f.kids[name], join(p, name)
		if err := m.node(q, n); err != nil {
			return err
		}
		if n.dir != nil {
			if err := m.folder(q, n.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *manifestWriter) node(p string, n *node) error {
	first, again := m.links[n]
	if again {
		m.b = append(m.b, recordLink)
	} else {
		m.b = append(m.b, recordInode)
	}
	m.path(p)
	if again {
		m.str(first)
		return m.flush()
	}
	if n.names > 1 && !n.isWhiteout() {
		m.links[n] = p
	}
	for _, v := range []uint32{n.Mode, n.UID, n.GID} {
		m.b = binary.AppendUvarint(m.b, uint64(v))
	}
	m.b = binary.AppendVarint(m.b, n.Mtime)
	m.b = binary.AppendUvarint(m.b, uint64(n.MtimeNsec))
	switch n.kind() {
	case unix.S_IFREG:
		m.b = binary.AppendUvarint(m.b, uint64(n.size))
		m.b = binary.LittleEndian.AppendUint64(m.b, n.sum)
	case unix.S_IFLNK:
		m.str(n.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		m.b = binary.AppendUvarint(m.b, n.Rdev)
	}
	m.b = binary.AppendUvarint(m.b, uint64(len(n.Xattrs)))
	if len(n.Xattrs) > 0 {
		for _, k := range slices.Sorted(maps.Keys(n.Xattrs)) {
			m.str(k)
			m.str(n.Xattrs[k])
		}
	}
	return m.flush()
}

func (m *manifestWriter) path(p string) {
	shared := 0
	for shared < min(len(p), len(m.last)) && p[shared] == m.last[shared] {
		shared++
	}
	m.b = binary.AppendUvarint(m.b, uint64(shared))
	m.str(p[shared:])
	m.last = p
}

func (m *manifestWriter) str(s string) {
	m.b = append(binary.AppendUvarint(m.b, uint64(len(s))), s...)
}

// Manifest is the manifest of a layer.
type Manifest struct {
	Form      Form
	MetaStart int64  // EROFS: where the metadata begins in the image
	MetaSum   uint64 // EROFS: its checksum

	f *os.File
	r *manifestReader
}

// ReadManifest opens the manifest of a layer. Close it.
func (s *Store) ReadManifest(key string) (*Manifest, error) {
	m, err := openManifest(filepath.Join(s.dir, key))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", key, err)
	}
	return m, nil
}

func openManifest(dir string) (*Manifest, error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoManifest
	}
	if err != nil {
		return nil, err
	}
	m := &Manifest{f: f}
	if err := m.begin(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

// Close closes it.
func (m *Manifest) Close() error { return m.f.Close() }

// begin checks the checksum, so that no damaged entry is ever returned.
func (m *Manifest) begin(f io.ReadSeeker) error {
	size, err := f.Seek(-8, io.SeekEnd)
	if err != nil {
		return ErrManifest
	}
	var want [8]byte
	if _, err := io.ReadFull(f, want[:]); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var sum hash.Hash64 = xxhash.New()
	if _, err := io.CopyN(sum, f, size); err != nil {
		return err
	}
	if sum.Sum64() != binary.LittleEndian.Uint64(want[:]) {
		return fmt.Errorf("%w: wrong checksum", ErrManifest)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m.r = &manifestReader{r: bufio.NewReaderSize(io.LimitReader(f, size), 64<<10)}
	magic := m.r.bytes(len(manifestMagic))
	m.Form = Form(m.r.str())
	m.MetaStart = int64(m.r.uint())
	m.MetaSum = m.r.uint64()
	if m.r.err == nil && string(magic) != manifestMagic {
		m.r.err = fmt.Errorf("%w: unknown version", ErrManifest)
	}
	return m.r.err
}

// Entries yields the entries, once, in their order. After an error there are no more.
func (m *Manifest) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			e, ok := m.r.entry()
			if m.r.err != nil {
				yield(Entry{}, m.r.err)
				return
			}
			if !ok || !yield(e, nil) {
				return
			}
		}
	}
}

// manifestReader reads the pieces of a manifest; after an error they are zero.
type manifestReader struct {
	r    *bufio.Reader
	last string
	err  error
}

func (r *manifestReader) entry() (e Entry, ok bool) {
	kind := r.bytes(1)
	if r.err != nil || kind[0] == recordEnd {
		return e, false
	}
	shared := r.uint()
	if shared > uint64(len(r.last)) {
		r.fail(errors.New("path"))
		return e, false
	}
	e.Path = r.last[:shared] + r.str()
	r.last = e.Path
	switch kind[0] {
	case recordLink:
		e.Link = r.str()
		return e, r.err == nil
	case recordInode:
		r.inode(&e)
		return e, r.err == nil
	}
	r.fail(fmt.Errorf("record of kind %d", kind[0]))
	return e, false
}

func (r *manifestReader) inode(e *Entry) {
	e.Mode, e.UID, e.GID = uint32(r.uint()), uint32(r.uint()), uint32(r.uint())
	e.Mtime, e.MtimeNsec = r.int(), uint32(r.uint())
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size, e.Sum = int64(r.uint()), r.uint64()
	case unix.S_IFLNK:
		e.Target = r.str()
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Rdev = r.uint()
	}
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		k := r.str()
		e.Xattrs[k] = r.str()
	}
}

func (r *manifestReader) fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %w", ErrManifest, err)
	}
}

func (r *manifestReader) bytes(n int) []byte {
	b := make([]byte, n)
	if r.err == nil {
		if _, err := io.ReadFull(r.r, b); err != nil {
			r.fail(err)
		}
	}
	return b
}

func (r *manifestReader) uint() uint64 {
	if r.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(r.r)
	if err != nil {
		r.fail(err)
	}
	return v
}

func (r *manifestReader) int() int64 {
	if r.err != nil {
		return 0
	}
	v, err := binary.ReadVarint(r.r)
	if err != nil {
		r.fail(err)
	}
	return v
}

func (r *manifestReader) uint64() uint64 { return binary.LittleEndian.Uint64(r.bytes(8)) }

func (r *manifestReader) str() string {
	n := r.uint()
	if n > maxString {
		r.fail(fmt.Errorf("string of %d bytes", n))
	}
	if r.err != nil {
		return ""
	}
	return string(r.bytes(int(n)))
}
