package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Stat is how full a file system is.
type Stat struct {
	Total int64 // bytes
	Used  int64
	Free  int64 // for everybody; the file system may keep some for root

	Inodes     int64 // 0: as many as there is room for
	InodesFree int64
}

// StatFS reads how full the file system of path is.
func StatFS(path string) (Stat, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Stat{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	most := uint64(1<<62) / uint64(st.Bsize)
	bytes := func(blocks uint64) int64 { return int64(min(blocks, most)) * st.Bsize }
	return Stat{
		Total: bytes(st.Blocks), Used: bytes(st.Blocks - st.Bfree), Free: bytes(st.Bavail),
		Inodes: int64(min(st.Files, 1<<62)), InodesFree: int64(min(st.Ffree, 1<<62)),
	}, nil
}

// Percent is the share in use, of what everybody may use: as df shows it, but
// not rounded up.
func (s Stat) Percent() float64 { return share(s.Used, s.Used+s.Free) }

// InodePercent is the share of the inodes in use; 0 if they have no limit.
func (s Stat) InodePercent() float64 { return share(s.Inodes-s.InodesFree, s.Inodes) }

func share(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// Tree is what a folder and all below it take.
type Tree struct {
	Bytes int64 // blocks on disk
	Files int64 // inodes
}

// Plus adds two trees that share nothing.
func (t Tree) Plus(o Tree) Tree { return Tree{t.Bytes + o.Bytes, t.Files + o.Files} }

// Measure adds up the blocks of everything below path, as du does: a file with
// several names in it counts once, other file systems do not count. What goes
// away meanwhile does not either; if path itself is not there, it is empty.
func Measure(ctx context.Context, path string) (Tree, error) {
	m := meter{seen: map[uint64]bool{}}
	err := m.walk(ctx, path)
	return m.sum, err
}

type meter struct {
	sum  Tree
	dev  uint64
	seen map[uint64]bool // inodes that have several names
	n    int
}

func (m *meter) walk(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.n++; m.n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return m.add(path, d)
	})
}

func (m *meter) add(path string, d fs.DirEntry) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if m.dev == 0 {
		m.dev = st.Dev
	}
	if st.Dev != m.dev {
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if !d.IsDir() && st.Nlink > 1 {
		if m.seen[st.Ino] {
			return nil
		}
		m.seen[st.Ino] = true
	}
	m.sum.Bytes += st.Blocks * 512
	m.sum.Files++
	return nil
}
