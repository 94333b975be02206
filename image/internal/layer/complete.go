package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dependent tells whether something in f, the root or a folder that shows those of
// the lower layers, is only right above certain ones: a folder that no entry
// describes, which has the lower one's attributes, or a whiteout, which the
// kernel lists as a name, though one that leads nowhere, if there is no folder
// below that it is merged with.
func dependent(f *folder) bool {
	if f.parent != nil && !f.explicit && !f.fresh {
		return true
	}
	if f.opaque {
		return false
	}
	for _, n := range f.kids {
		if n.isWhiteout() || n.dir != nil && dependent(n.dir) {
			return true
		}
	}
	return false
}

// complete makes the tree what it is above the lower layers and writes what is
// left of it to the disk. Nothing can be added then. ErrNeedsLower: an entry has
// to follow a symlink there, so the archive must be read again.
func (u *unpacker) complete(lower *Lower) error {
	for _, p := range u.recalled {
		in, err := lower.lookup(p)
		if err != nil {
			continue // what else is wrong comes up below
		}
		link := in.stat().Mode&unix.S_IFMT == unix.S_IFLNK
		in.close()
		if link {
			return ErrNeedsLower
		}
	}
	if err := u.settle(u.tree.root, "", lower); err != nil {
		return err
	}
	if err := u.sink.finish(u.tree.root); err != nil {
		return err
	}
	return u.writeManifest()
}

// settle completes the folder at p. lower is nil if nothing of the lower layers
// shows there.
func (u *unpacker) settle(f *folder, p string, lower *Lower) error {
	if lower != nil && !f.fresh {
		merged, err := u.settleAbove(f, p, lower)
		if err != nil {
			return fmt.Errorf("folder %s: %w", p, err)
		}
		if !merged {
			lower = nil
		}
	}
	if f.opaque {
		lower = nil
		if f.node.Xattrs == nil {
			f.node.Xattrs = map[string]string{}
		}
		f.node.Xattrs[u.sink.opaque()] = "y"
	}
	if lower == nil {
		if err := u.settleHidden(f); err != nil {
			return err
		}
	}
	for _, kid := range f.folders() {
		if err := u.settle(kid, join(p, kid.name), lower); err != nil {
			return err
		}
	}
	return nil
}

// settleHidden takes away what is not to be seen where the lower layers do not
// show: whiteouts, which the kernel would list, and what is theirs.
func (u *unpacker) settleHidden(f *folder) error {
	for name, n := range f.kids {
		if !n.isWhiteout() && !u.copied[place{f, name}] && (n.dir == nil || !n.dir.copied) {
			continue
		}
		if _, err := u.claim(f, name); err != nil {
			return err
		}
	}
	return nil
}

// settleAbove tells whether the lower layers have a folder at p, too. Then one
// that the archive does not describe is like it.
func (u *unpacker) settleAbove(f *folder, p string, lower *Lower) (merged bool, err error) {
	if len(lower.layers) == 0 {
		return false, nil
	}
	in, err := lower.lookup(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer in.close()
	switch kind := in.stat().Mode & unix.S_IFMT; {
	case kind == unix.S_IFLNK && !f.explicit:
		return false, ErrNeedsLower
	case kind != unix.S_IFDIR:
		return false, nil
	}
	if f.explicit || f.parent == nil {
		return true, nil
	}
	n, err := nodeFrom(in)
	if err == nil {
		err = u.tree.describe(f, n)
	}
	return true, err
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// writeManifest notes what the layer has become.
func (u *unpacker) writeManifest() error {
	f, err := os.OpenFile(filepath.Join(u.dir, manifestName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	m := newManifestWriter(f, u.form)
	if s, ok := u.sink.(*imageSink); ok {
		m.metaStart, m.metaSum = s.metaStart, s.metaSum
	}
	return errors.Join(m.tree(u.tree.root), f.Close())
}
