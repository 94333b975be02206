package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// typeVolume is the name of a volume as GNU tar writes it. It is no file.
const typeVolume = 'V'

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == typeVolume {
		return nil
	}
	dir, base, err := splitName(h.Name)
	if err != nil {
		return err
	}
	u.res.Entries++
	if base == "" {
		return u.rootEntry(h)
	}
	if underReserved(dir) {
		return nil
	}
	if underWhiteout(dir) {
		return errors.New("stands below a whiteout")
	}
	parent, err := u.folder(dir)
	if err != nil {
		return u.unsure(err)
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(parent, base)
	}
	if h.Typeflag == tar.TypeLink {
		return u.hardLink(parent, base, h.Linkname)
	}
	return u.make(parent, base, h, r)
}

func (u *unpacker) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errors.New("the root is not a folder")
	}
	n, err := nodeOf(h)
	if err != nil {
		return err
	}
	u.tree.root.explicit = true
	u.res.Root = &RootMeta{Mode: n.Mode & 0o7777, UID: int(n.UID), GID: int(n.GID)}
	return u.tree.describe(u.tree.root, n)
}

// whiteout marks a name, or the folder itself, as deleted below this layer.
// The type of the entry does not matter, nor does its content: images exist that
// ship whiteouts as hard links.
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
	switch n, ok := parent.kids[name]; {
	case ok && n.dir != nil:
		n.dir.opaque, n.dir.fresh = true, true
		return nil
	case ok && !u.copied[place{parent, name}]:
		return nil // this layer's own file hides the lower one
	}
	if _, err := u.claim(parent, name); err != nil {
		return err
	}
	return u.tree.put(parent, name, u.tree.gone)
}

// make makes one entry below a parent.
func (u *unpacker) make(parent *folder, name string, h *tar.Header, r io.Reader) error {
	n, err := nodeOf(h)
	if err != nil {
		return err
	}
	if n.kind() == unix.S_IFDIR {
		return u.makeFolder(parent, name, n)
	}
	if _, err := u.claim(parent, name); err != nil {
		return err
	}
	if n.isWhiteout() {
		// A device 0:0 from the archive. Overlayfs would take it for a whiteout,
		// so that is what it is: the lower file is hidden, and there is none.
		return u.tree.put(parent, name, u.tree.gone)
	}
	if err := u.tree.put(parent, name, n); err != nil {
		return err
	}
	if n.kind() != unix.S_IFREG {
		return u.sink.other(parent, name, n)
	}
	sparse := isSparse(h)
	if err := u.room(n.size, sparse); err != nil {
		return err
	}
	u.res.Size += n.size
	return u.sink.file(parent, name, n, r, sparse)
}

func (u *unpacker) makeFolder(parent *folder, name string, n *node) error {
	if old, ok := parent.kids[name]; ok && old.dir != nil {
		u.recallOne(old.dir)
		old.dir.copied = false
		old.dir.explicit = true
		return u.tree.describe(old.dir, n)
	}
	replaced, err := u.claim(parent, name)
	if err != nil {
		return err
	}
	f, err := u.newFolder(parent, name)
	if err != nil {
		return err
	}
	// If something else stood here, or its deletion was marked, the folder of
	// that name in the lower layers is gone.
	f.opaque, f.fresh, f.explicit = replaced, replaced, true
	return u.tree.describe(f, n)
}

func (u *unpacker) newFolder(parent *folder, name string) (*folder, error) {
	f, err := u.tree.newFolder(parent, name)
	if err != nil {
		return nil, err
	}
	return f, u.sink.folder(f)
}

// claim makes the name free and tells whether it was not.
func (u *unpacker) claim(parent *folder, name string) (replaced bool, err error) {
	n, ok := parent.kids[name]
	if !ok {
		return false, nil
	}
	u.last.folder = nil // the way there may lead through it
	if n.dir != nil {
		u.recall(n.dir)
	}
	if err := u.sink.remove(parent, name, n); err != nil {
		return true, err
	}
	u.tree.drop(parent, name)
	delete(u.copied, place{parent, name})
	return true, nil
}

// hardLink links name to an earlier entry, or to a lower layer's file, which
// is copied up for it. As in tar, and unlike everywhere else, the last component
// of the target is not followed: the link of a symlink is that symlink.
func (u *unpacker) hardLink(parent *folder, name, target string) error {
	wrap := func(err error) error {
		if err == nil || errors.Is(err, ErrNeedsLower) || errors.Is(err, errForm) {
			return err
		}
		return fmt.Errorf("link to %q: %w", target, err)
	}
	dir, base, err := splitName(target)
	if err != nil {
		return wrap(err)
	}
	if base == "" {
		return wrap(errors.New("not a file"))
	}
	from, err := u.folder(dir)
	if err != nil {
		return wrap(u.unsure(err))
	}
	if from == parent && base == name {
		return u.unsure(errors.New("link to itself"))
	}
	n, err := u.linkTarget(from, base)
	if err != nil {
		return wrap(err)
	}
	if old, ok := parent.kids[name]; ok && old.dir != nil && from.within(old.dir) {
		return wrap(u.unsure(errors.New("it replaces its own target")))
	}
	if _, err := u.claim(parent, name); err != nil {
		return err
	}
	if err := u.tree.put(parent, name, n); err != nil {
		return err
	}
	return wrap(u.sink.link(from, base, parent, name))
}
