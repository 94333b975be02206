package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/quota"
)

// maxReserve is the most that pulls leave free by default.
const maxReserve = 1 << 30

// reserveOf is how many bytes pulls leave free on a file system of total bytes,
// see Options.Reserve.
func reserveOf(option, total int64) int64 {
	switch {
	case option < 0:
		return 0
	case option > 0:
		return option
	}
	return min(total/20, maxReserve)
}

// diskState translates what the file system says.
func diskState(path string, st disk.Stat, reserve int64) DiskState {
	return DiskState{
		Path: path, Total: st.Total, Free: st.Free, Reserve: reserveOf(reserve, st.Total), Used: st.Percent(),
		Inodes: st.Inodes, InodesFree: st.InodesFree,
	}
}

// Disk reads how full the file system is.
func (s *Store) Disk() (DiskState, error) {
	st, err := s.statfs(s.root)
	if err != nil {
		return DiskState{}, fmt.Errorf("image store: %w", err)
	}
	return diskState(s.root, st, s.reserve), nil
}

// sizes remembers what layers take on disk.
type sizes struct {
	mu      sync.Mutex
	known   index.Sizes // nil: not read yet
	changed bool
}

// get returns a size that is known.
func (z *sizes) get(x *index.Index, key string) (disk.Tree, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.known == nil {
		z.known = x.LoadSizes()
	}
	t, ok := z.known[key]
	return disk.Tree{Bytes: t[0], Files: t[1]}, ok
}

func (z *sizes) put(key string, t disk.Tree) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.known[key], z.changed = [2]int64{t.Bytes, t.Files}, true
}

// take forgets a layer that is gone.
func (z *sizes) take(key string) (disk.Tree, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	t, ok := z.known[key]
	if ok {
		delete(z.known, key)
		z.changed = true
	}
	return disk.Tree{Bytes: t[0], Files: t[1]}, ok
}

func (z *sizes) save(x *index.Index) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if !z.changed {
		return nil
	}
	z.changed = false
	return x.SaveSizes(z.known)
}

// index returns the index as it is now; it never changes.
func (s *Store) index() *index.Index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.idx
}

// sizeOf is what a blob or layer takes on disk. A layer is measured once.
func (s *Store) sizeOf(ctx context.Context, name string) (disk.Tree, error) {
	if strings.HasPrefix(name, "sha256:") {
		n, ok := s.blobs.Size(name)
		if !ok {
			return disk.Tree{}, nil
		}
		return disk.Tree{Bytes: onDisk(n), Files: 1}, nil
	}
	if t, ok := s.sizes.get(s.index(), name); ok {
		return t, nil
	}
	t, err := disk.Measure(ctx, filepath.Join(s.root, "layers", name))
	if ctx.Err() != nil {
		return t, ctx.Err()
	}
	i, ok := s.layers.Get(name)
	if !ok {
		return t, nil // it is being deleted
	}
	if err != nil { // not root, and folders that nobody else may read
		t = disk.Tree{Bytes: i.Size, Files: int64(i.Entries)}
	}
	s.sizes.put(name, t)
	return t, nil
}

// blockSize is what files of common file systems are rounded up to.
const blockSize = 4096

// onDisk is what a file of n bytes takes.
func onDisk(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// sizeAll fills in the sizes of everything that images have.
func (s *Store) sizeAll(ctx context.Context, c census) error {
	for _, sub := range c.images {
		for _, name := range sub.parts {
			if _, ok := c.sizes[name]; ok {
				continue
			}
			t, err := s.sizeOf(ctx, name)
			if err != nil {
				return err
			}
			c.sizes[name] = t
		}
	}
	return s.sizes.save(s.index())
}

// Usage measures. It reads the sizes of all writable layers: seconds on a large
// store, never under a lock that pulls or starts wait for.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Images: []ImageUsage{}, Leases: map[string]int64{}}
	err := errors.Join(s.usageOfImages(ctx, &u), s.usageOfRest(ctx, &u))
	if err != nil {
		err = fmt.Errorf("image store: usage: %w", err)
	}
	return u, err
}

func (s *Store) usageOfImages(ctx context.Context, u *Usage) error {
	c := census{sizes: map[string]disk.Tree{}}
	idx := s.index()
	for digest, rec := range idx.Images {
		c.images = append(c.images, resident{digest: digest, names: idx.NamesOf(digest), parts: partsOf(rec)})
	}
	if err := s.sizeAll(ctx, c); err != nil {
		return err
	}
	users := c.users()
	for _, sub := range c.images {
		i := ImageUsage{Digest: sub.digest, Names: sub.names, Unique: c.unique(sub, users).Bytes, Size: c.size(sub)}
		u.Images = append(u.Images, i)
	}
	slices.SortFunc(u.Images, func(a, b ImageUsage) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Digest, b.Digest))
	})
	return nil
}

// size is what the image takes, with what it shares.
func (c census) size(sub resident) int64 {
	var sum int64
	for _, p := range sub.parts {
		sum += c.sizes[p].Bytes
	}
	return sum
}

func (s *Store) usageOfRest(ctx context.Context, u *Usage) error {
	all, err := s.items()
	if err != nil {
		return err
	}
	for _, it := range all {
		t, err := s.sizeOf(ctx, it.name)
		if err != nil {
			return err
		}
		if it.layer {
			u.Layers += t.Bytes
		} else {
			u.Blobs += t.Bytes
		}
	}
	s.mu.Lock()
	leases, err := s.leasesLocked()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, l := range leases {
		if l.Dir == "" {
			continue // taken by an older version
		}
		if l.Project != 0 { // the file system has counted
			if used, _, err := quota.Usage(l.Dir, l.Project); err == nil {
				u.Leases[l.ID] = used
				continue
			}
		}
		t, err := disk.Measure(ctx, filepath.Join(l.Dir, "upper"))
		if err != nil {
			return err
		}
		u.Leases[l.ID] = t.Bytes
	}
	trash, err := disk.Measure(ctx, s.trash())
	if err != nil {
		return err
	}
	u.Trash = trash.Bytes
	u.Partial, err = s.partialSize()
	return err
}

// trash is the folder of layers that are being deleted.
func (s *Store) trash() string { return filepath.Join(s.root, "layers", "trash") }

// FolderSize is what everything below path takes on disk, as du adds it up; 0
// if it is not there.
func FolderSize(ctx context.Context, path string) (int64, error) {
	t, err := disk.Measure(ctx, path)
	return t.Bytes, err
}

// SpaceNeeded tells how much room above the reserve a pull wanted that failed
// for lack of it; 0 if it did not get to know that, or files ran out.
func SpaceNeeded(err error) (bytes int64, failed bool) {
	if !errors.Is(err, ErrNoSpace) {
		return 0, false
	}
	var e *disk.NoSpaceError
	if errors.As(err, &e) && e.Inodes == 0 && e.Need > 0 {
		return e.Need + e.Claimed, true
	}
	return 0, true
}
