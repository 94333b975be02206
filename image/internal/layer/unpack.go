package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/fan"
)

const (
	maxTrailing = 256 << 20 // bytes after the end of an archive
	claimCheck  = 1 << 20   // from this size on an entry is checked against the free space
	maxSparse   = 4 << 30   // up to here sparse files may together be larger than the free space
)

// Options of one unpack.
type Options struct {
	// Lower is what lies below. Nil: unknown, see Result. The bottom layer
	// gets an empty one.
	Lower *Lower

	// Room is asked before so many bytes of content are written: for each large
	// file, and once in a while for the small ones together. Nil: the free
	// space of the file system decides.
	Room func(need int64) error

	// Memory bounds what the archive's names and attributes may take; 0: an
	// eighth of the machine's, but at most 512 MiB.
	Memory int64
}

// Result is what an archive turned out to be.
type Result struct {
	DiffID     string // digest of the uncompressed archive
	Size       int64  // bytes of file content
	Entries    int
	Root       *RootMeta // the archive's own entry for the root, if it has one
	OpaqueRoot bool      // nothing below this layer is visible
	// NeedsLower: what is there is unusable, unpack again with Options.Lower
	// into a stage of the form Stage.RetryForm.
	NeedsLower bool
	// Dependent: the layer is only right above the lower ones it was made for.
	// Without Options.Lower it is not made for any yet: see Stage.Adopt.
	Dependent bool
}

// RootMeta are the attributes of a layer's root folder.
type RootMeta struct {
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
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
// the archive; the sink has its own ones.
type unpacker struct {
	dir   string // of the stage
	tree  *tree
	sink  sink
	lower *Lower
	need  func(int64) error
	// copied are the names of files that were copied up from a lower layer, and
	// are no entries of this one.
	copied   map[place]bool
	sparse   int64    // bytes of sparse files
	owed     int64    // bytes of small files that need was not asked for yet
	recalled []string // see recall
	guessed  bool     // folders that no entry describes were taken for such, not for symlinks
	res      Result
	form     Form
	misfit   error    // why the archive cannot be kept in the form
	last     struct { // the folder of the last entry, which is the next one's too
		path   string
		folder *folder
	}
}

func newUnpacker(dir string, form Form, o Options) (*unpacker, error) {
	u := &unpacker{dir: dir, lower: o.Lower, need: o.Room, form: form, copied: map[place]bool{}}
	u.tree = newTree(memoryFor(o.Memory))
	if u.need == nil {
		u.need = func(n int64) error { return disk.Need(dir, n) }
	}
	var err error
	if form == EROFS {
		u.sink, err = newImageSink(filepath.Join(dir, imageName))
	} else {
		u.sink, err = newFolderSink(filepath.Join(dir, diffName), u.tree.root)
	}
	return u, err
}

func memoryFor(limit int64) int64 {
	if limit > 0 {
		return limit
	}
	limit = 512 << 20
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		limit = min(limit, int64(info.Totalram)*int64(info.Unit)/8)
	}
	return max(limit, 64<<20)
}

// run reads the possibly compressed archive src. Decompression, the digest and
// the archive have a goroutine each.
func (u *unpacker) run(ctx context.Context, src io.Reader) error {
	plain, err := Decompress(src)
	if err != nil {
		return err
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
		return err
	}
	u.res.DiffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return nil
}

// archive reads all entries.
func (u *unpacker) archive(r io.Reader) error {
	err := u.entries(tar.NewReader(r))
	switch {
	case errors.Is(err, ErrNeedsLower):
		u.res = Result{NeedsLower: true}
		return drainArchive(r) // the digest covers all of it
	case errors.Is(err, errForm):
		u.misfit = err
		u.res = Result{NeedsLower: true}
		return drainArchive(r)
	case err != nil:
		return err
	}
	u.res.OpaqueRoot = u.tree.root.opaque
	u.res.Dependent = u.res.Dependent || dependent(u.tree.root) || len(u.recalled) > 0
	rest := &io.LimitedReader{R: r, N: maxTrailing}
	if err := drainArchive(rest); err != nil || rest.N > 0 {
		return err
	}
	return errors.New("archive: too much data after its end")
}

func (u *unpacker) entries(tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("archive: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			if !errors.Is(err, ErrNeedsLower) {
				err = &entryError{h.Name, err}
			}
			return err
		}
		if err := u.sink.failed(); err != nil {
			return err
		}
	}
}

// drainArchive reads on to the end of the stream.
func drainArchive(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

// room refuses content that cannot fit.
func (u *unpacker) room(size int64, sparse bool) error {
	switch {
	case sparse:
		// How much of it is data, nobody knows; but zeros, too, take time to read.
		// The sum must not overflow: an archive may claim any size.
		if u.sparse += min(size, math.MaxInt64-u.sparse); u.sparse <= maxSparse {
			return nil
		}
		size = u.sparse
	case size < claimCheck:
		if u.owed += size; u.owed < 64*claimCheck {
			return nil
		}
		size, u.owed = u.owed, 0
	}
	return u.need(size)
}
