package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/layer"
	"github.com/wherry-run/wherry/image/internal/overlay"
)

// PrepareOptions configure one root file system.
type PrepareOptions struct {
	ReadOnly bool // no writable layer

	// Quota bounds the writable layer, in bytes, where the file system has
	// project quotas (ext4 and xfs, mounted with prjquota); elsewhere it is
	// ErrNoQuota. 0: none.
	Quota int64
}

// ErrNoQuota says that the file system cannot bound a folder.
var ErrNoQuota = errors.New("no project quotas")

// Prepare returns the mounts that make the image's root file system, with the
// writable layer below dir (dir/upper and dir/work are made), and takes a lease
// named id on its layers until Release. The mounts are plain values; somebody
// else performs them, in their order. Leases are durable; Prepare with a known
// id renews it. A layer that is not there any more, or that a power cut has damaged, is
// ErrDamaged: a pull of the image brings it back.
//
// One mount has the destination "/": the root itself. Those after it go inside
// the root. Those before it are what the root is made of: layers of the form
// EROFS, each to be mounted at its destination, an empty folder of the store,
// where nobody but the container's start need see it. Their type is "erofs", the
// source a file: Linux 6.12 and newer mount it as it is, older ones through a loop
// device. One mount of a layer can serve all containers, and then they share
// its pages in memory.
//
// The root is of type overlay with one option "lowerdir+=DIR" a layer, the
// topmost first, then "upperdir=DIR" and "workdir=DIR", or "ro". These are
// parameters for fsconfig(2), on Linux 6.7 and newer; before, the lower folders
// have to be joined with ":" into one "lowerdir". An image without layers
// gives a bind mount of an empty folder if it is read-only.
func (s *Store) Prepare(ctx context.Context, digest, id, dir string, o PrepareOptions) ([]specs.Mount, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", id, err)
	}
	if err := s.trusted(ctx, digest); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", id, err)
	}
	stack, root, err := s.lease(digest, id, dir)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", id, err)
	}
	if o.ReadOnly {
		err = readOnlyRoot(dir, &stack, root)
	} else {
		err = writableLayer(dir, &stack, root)
		if err == nil && o.Quota > 0 {
			err = s.bound(id, stack, o.Quota)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", id, err), s.Release(id))
	}
	return stack.Mounts(), nil
}

// lease takes the lease and returns the layers to mount, and the attributes of
// the root folder if an archive has an entry for it.
func (s *Store) lease(digest, id, dir string) (overlay.Stack, *layer.RootMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.idx.Images[digest]
	if !ok {
		return overlay.Stack{}, nil, fmt.Errorf("%w: %s", ErrNotFound, digest)
	}
	stack := overlay.Stack{Empty: s.layers.Empty()}
	lease := index.Lease{ID: id, Digest: digest, Dir: dir}
	if old, ok := s.idx.Lease(id); ok {
		lease.Project = old.Project
	}
	var root *layer.RootMeta
	for _, l := range slices.Backward(rec.Layers) {
		// Overlayfs takes a folder once. What a layer has shows where it
		// stands highest; its second place further down adds nothing.
		if slices.Contains(lease.Keys, l.Key) {
			continue
		}
		info, ok := s.layers.Get(l.Key)
		if !ok {
			return overlay.Stack{}, nil, fmt.Errorf("layer %s: %w", l.DiffID, ErrDamaged)
		}
		lease.Keys = append(lease.Keys, l.Key)
		stack.Lower = append(stack.Lower, s.lower(l.Key, info.Form))
		if root == nil {
			root = info.Root
		}
		if info.OpaqueRoot { // the kernel does not look for the mark on roots
			break
		}
	}
	if err := tooDeep(stack); err != nil {
		return overlay.Stack{}, nil, err
	}
	return stack, root, s.setLeaseLocked(lease)
}

func tooDeep(stack overlay.Stack) error {
	if n := len(stack.Lower); n > overlay.MaxLower {
		return fmt.Errorf("%d layers: overlayfs takes %d at most", n, overlay.MaxLower)
	}
	return nil
}

// lower is a layer in the form in which it is there.
func (s *Store) lower(key string, form layer.Form) overlay.Layer {
	if form == layer.EROFS {
		return overlay.Layer{Dir: s.layers.Mount(key), Image: s.layers.Image(key)}
	}
	return overlay.Layer{Dir: s.layers.Diff(key)}
}

var defaultRoot = layer.RootMeta{Mode: 0o755}

// writableLayer makes upper and work. The upper folder is what the container
// sees as the attributes of "/".
func writableLayer(dir string, stack *overlay.Stack, root *layer.RootMeta) error {
	stack.Upper, stack.Work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(stack.Work, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return makeRoot(stack.Upper, root)
}

// readOnlyRoot puts a folder with the right attributes on top if the topmost
// layer would show others.
func readOnlyRoot(dir string, stack *overlay.Stack, root *layer.RootMeta) error {
	if root == nil || *root == defaultRoot {
		return nil
	}
	top := filepath.Join(dir, "root")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := makeRoot(top, root); err != nil {
		return err
	}
	stack.Lower = append([]overlay.Layer{{Dir: top}}, stack.Lower...)
	return tooDeep(*stack)
}

// makeRoot makes an empty folder with the root's attributes. One that is there
// belongs to a container by now and stays as it is.
func makeRoot(path string, root *layer.RootMeta) error {
	if root == nil {
		root = &defaultRoot
	}
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	tmp := path + ".tmp" // a crash must not leave one with other attributes
	err := os.Mkdir(tmp, 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(tmp, root.UID, root.GID)
	}
	if err == nil {
		err = os.Chmod(tmp, fs.FileMode(root.Mode&0o777)|modeBits(root.Mode))
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	return err
}

func modeBits(m uint32) fs.FileMode {
	var f fs.FileMode
	for bit, mode := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&bit != 0 {
			f |= mode
		}
	}
	return f
}

// Release ends the lease. Releasing what is not leased is no error.
func (s *Store) Release(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease, ok := s.idx.Lease(id)
	if err := s.dropLeaseLocked(id); err != nil {
		return err
	}
	if ok && lease.Project != 0 {
		s.unbound(id, lease.Dir, lease.Project)
	}
	return nil
}

// Leases lists the ids that hold layers.
func (s *Store) Leases() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases, err := s.leasesLocked()
	ids := []string{}
	for _, l := range leases {
		ids = append(ids, l.ID)
	}
	return ids, err
}

func (s *Store) leasesLocked() ([]index.Lease, error) {
	leases, broken, err := s.idx.Leases()
	for _, id := range broken {
		s.log.Warn("dropped a damaged lease", "container", id)
	}
	return leases, err
}
