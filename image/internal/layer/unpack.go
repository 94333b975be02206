package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/fan"
)

const (
	maxLinks    = 40        // symlinks in one name, as in the kernel
	maxTrailing = 256 << 20 // bytes after the end of an archive
	claimCheck  = 1 << 20   // from this size on an entry is checked against the free space
)

// Options of one unpack.
type Options struct {
	// Lower is what lies below. Nil: unknown, see Result. The bottom layer
	// gets an empty one.
	Lower *Lower
}

// Result is what an archive turned out to be.
type Result struct {
	DiffID     string // digest of the uncompressed archive
	Size       int64  // bytes of file content
	Entries    int
	Root       *RootMeta // the archive's own entry for the root, if it has one
	OpaqueRoot bool      // nothing below this layer is visible
	// Implicit are folders that only occur as parents of entries. They must be
	// given to Adopt before the layer is used above others.
	Implicit []string
	// NeedsLower: the folder is unusable, unpack again with Options.Lower.
	NeedsLower bool
	// Dependent: the layer was made for exactly the given lower ones.
	Dependent bool
}

// RootMeta are the attributes of a layer's root folder.
type RootMeta struct {
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// Unpack unpacks the possibly compressed archive src into the existing empty
// folder dir. Decompression, the digest, the archive and the small files each
// have a goroutine of their own.
func Unpack(ctx context.Context, src io.Reader, dir string, o Options) (Result, error) {
	u, err := newUnpacker(dir, o)
	if err != nil {
		return Result{}, err
	}
	defer u.close()
	plain, err := Decompress(src)
	if err != nil {
		return Result{}, err
	}
	g, ctx := errgroup.WithContext(ctx)
	f, sum := fan.New(2), sha256.New()
	g.Go(func() error {
		defer plain.Close()
		return f.Run(ctx, plain)
	})
	g.Go(func() error {
		_, err := io.Copy(sum, f.Reader(0))
		return err
	})
	g.Go(func() error {
		defer f.Reader(1).Close()
		return u.archive(f.Reader(1))
	})
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	u.res.DiffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return u.res, nil
}

// entryError is what went wrong with one entry of the archive.
type entryError struct {
	name string
	err  error
}

func (e *entryError) Error() string {
	name := e.name
	if len(name) > 200 {
		name = name[:200] + "..."
	}
	return fmt.Sprintf("entry %q: %v", name, e.err)
}

func (e *entryError) Unwrap() error { return e.err }

// unpacker is one unpack. All its fields belong to the goroutine that reads
// the archive; writers get what they need in a job.
type unpacker struct {
	dir     string
	root    *os.File
	id      identity
	lower   *Lower
	folders *folders
	writers *writers
	seed    maphash.Seed
	seen    map[uint64]struct{} // names made so far; a writer may still be at them
	buf     []byte              // for large files
	deleted []whiteout          // the whiteouts made
	res     Result
}

func newUnpacker(dir string, o Options) (*unpacker, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	id := identity{os.Geteuid(), os.Getegid()}
	return &unpacker{
		dir: dir, root: root, id: id, lower: o.Lower,
		folders: newFolders(int(root.Fd())),
		writers: newWriters(max(2, min(4, runtime.GOMAXPROCS(0))), id),
		seed:    maphash.MakeSeed(), seen: map[uint64]struct{}{},
	}, nil
}

func (u *unpacker) close() {
	u.writers.stop()
	u.folders.closeAll()
	u.root.Close()
}

// archive reads all entries, then sets the attributes of the folders.
func (u *unpacker) archive(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("archive: %w", err)
		}
		err = u.entry(h, tr)
		if errors.Is(err, ErrNeedsLower) {
			u.res = Result{NeedsLower: true}
			return drainArchive(r) // the digest covers all of it
		}
		if err == nil {
			err = u.writers.failed()
		}
		if err != nil {
			return err
		}
	}
	if err := u.finish(); err != nil {
		return err
	}
	rest := &io.LimitedReader{R: r, N: maxTrailing}
	if err := drainArchive(rest); err != nil || rest.N > 0 {
		return err
	}
	return errors.New("archive: too much data after its end")
}

// drainArchive reads on to the end of the stream.
func drainArchive(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	wrap := func(err error) error {
		if err == nil || errors.Is(err, ErrNeedsLower) {
			return err
		}
		return &entryError{h.Name, err}
	}
	dir, base, err := splitName(h.Name)
	if err != nil {
		return wrap(err)
	}
	u.res.Entries++
	m := metaOf(h)
	if base == "" {
		return wrap(u.rootEntry(h, m))
	}
	if underReserved(dir) {
		return nil
	}
	parent, err := u.folder(dir)
	if err != nil {
		return wrap(err)
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return wrap(u.whiteout(parent, base))
	}
	return wrap(u.make(parent, base, h, &m, r))
}

// whiteout is a mark that a name of the lower layers is gone.
type whiteout struct {
	dir  *folder
	name string
}

func (u *unpacker) rootEntry(h *tar.Header, m meta) error {
	if h.Typeflag != tar.TypeDir {
		return errors.New("the root is not a folder")
	}
	root := u.folders.root
	root.meta, root.explicit = m, true
	u.res.Root = &RootMeta{Mode: m.mode, UID: m.uid, GID: m.gid}
	return nil
}

// splitName returns the clean parent and the last component of an entry's name.
func splitName(name string) (dir, base string, err error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", "", errors.New("name contains a zero byte")
	}
	name = strings.TrimRight(name, "/")
	for strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") {
		name = name[1:]
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", "", errors.New(`name contains ".."`)
		}
	}
	name = path.Clean(name)
	if name == "." {
		return "", "", nil
	}
	dir, base = path.Split(name)
	return strings.TrimSuffix(dir, "/"), base, nil
}

func (u *unpacker) hash(f *folder, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(u.seed)
	h.WriteString(f.path)
	h.WriteByte('/')
	h.WriteString(name)
	return h.Sum64()
}

// finish waits for the writers and completes the folders.
func (u *unpacker) finish() error {
	if err := u.writers.drain(); err != nil {
		return err
	}
	if err := u.pruneWhiteouts(); err != nil {
		return err
	}
	for _, f := range u.folders.deepestFirst() {
		if err := u.finishFolder(f); err != nil {
			return &entryError{f.path + "/", err}
		}
		if f.parent != nil && !f.explicit && !f.hidden() {
			u.res.Implicit = append(u.res.Implicit, f.path)
		}
	}
	u.res.OpaqueRoot = u.folders.root.opaque
	u.res.Dependent = u.res.Dependent || len(u.res.Implicit) > 0
	if u.lower != nil {
		u.res.Implicit = nil // they have their attributes
	}
	return nil
}

func (u *unpacker) finishFolder(f *folder) error {
	if err := u.folders.acquire(f); err != nil {
		return err
	}
	if f.opaque {
		if err := u.id.setOpaque(f.fd); err != nil {
			return err
		}
	}
	if err := setTimes(f.fd, ".", &f.meta); err != nil {
		return err
	}
	return u.id.setOpen(f.fd, &f.meta)
}

// pruneWhiteouts removes whiteouts in opaque folders. They hide nothing, and
// the kernel would list them: it filters whiteouts only where it merges.
func (u *unpacker) pruneWhiteouts() error {
	for _, w := range u.deleted {
		if u.folders.byPath[w.dir.path] != w.dir || !w.dir.hidden() {
			continue
		}
		if err := u.folders.acquire(w.dir); err != nil {
			return err
		}
		if st, err := lstatAt(w.dir.fd, w.name); err != nil || !isWhiteout(&st) {
			continue // something else stands there by now
		}
		if err := unix.Unlinkat(w.dir.fd, w.name, 0); err != nil {
			return &entryError{w.dir.path + "/" + w.name, err}
		}
	}
	return nil
}

// hidden tells whether nothing of the lower layers shows through f.
func (f *folder) hidden() bool {
	for ; f != nil; f = f.parent {
		if f.opaque {
			return true
		}
	}
	return false
}

// room refuses an entry that cannot fit.
func (u *unpacker) room(size int64) error {
	if size < claimCheck {
		return nil
	}
	return disk.Need(u.dir, size)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
