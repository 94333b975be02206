package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNeedsLower says that a layer can only be unpacked with the layers below it
// at hand.
var ErrNeedsLower = errors.New("layer refers to the layers below it")

// Lower is the merged view of layers of either form, as overlayfs would show it,
// for looking up single names. The zero value is an empty stack: there is nothing
// below.
type Lower struct{ layers []files }

// Lower opens layers, the topmost first. Close it.
func (s *Store) Lower(keys ...string) (*Lower, error) {
	l := &Lower{}
	for _, key := range keys {
		i, ok := s.Get(key)
		if !ok {
			l.Close()
			return nil, fmt.Errorf("layer %s: %w", key, fs.ErrNotExist)
		}
		f, err := openFiles(filepath.Join(s.dir, key), i.Form)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("layer %s: %w", key, err)
		}
		l.layers = append(l.layers, f)
		if i.OpaqueRoot {
			break
		}
	}
	return l, nil
}

// Close closes the layers.
func (l *Lower) Close() {
	for _, f := range l.layers {
		_ = f.Close() // read only
	}
	l.layers = nil
}

// lookup finds p, a path without symlinks.
func (l *Lower) lookup(p string) (inode, error) {
	for _, f := range l.layers {
		in, hidden, err := lookupIn(f, p)
		if err == nil || hidden || !errors.Is(err, fs.ErrNotExist) {
			return in, err
		}
	}
	return nil, fs.ErrNotExist
}

// lookupIn looks for p in one layer. hidden: the layers below do not count.
func lookupIn(f files, p string) (in inode, hidden bool, err error) {
	in, err = f.lookup(p)
	if err == nil {
		if isWhiteout(in) {
			in.close()
			return nil, true, fs.ErrNotExist
		}
		return in, true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	for dir := ""; ; { // is there a reason on the way to it?
		hidden, err = hides(f, dir)
		if hidden || err != nil || dir == p {
			return nil, hidden, errors.Join(err, fs.ErrNotExist)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(p[len(dir):], "/"), "/")
		dir = join(dir, name)
	}
}

// hides tells whether a layer hides what the ones below have at dir/...
func hides(f files, dir string) (bool, error) {
	in, err := f.lookup(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer in.close()
	if in.stat().Mode&unix.S_IFMT != unix.S_IFDIR {
		return true, nil
	}
	attrs, err := in.xattrs()
	return attrs[opaquePrivileged] == "y" || attrs[opaqueUnprivileged] == "y", err
}

func isWhiteout(in inode) bool {
	st := in.stat()
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// nodeFrom is a node like a file of a lower layer.
func nodeFrom(in inode) (*node, error) {
	st := in.stat()
	n := &node{size: st.Size}
	n.Mode, n.UID, n.GID, n.Rdev = st.Mode, st.UID, st.GID, st.Rdev
	n.Mtime, n.MtimeNsec = st.Mtime, st.MtimeNsec
	switch n.kind() {
	case unix.S_IFLNK:
		var err error
		n.Target, err = in.readlink()
		return n, err
	case unix.S_IFREG, unix.S_IFDIR:
		attrs, err := in.xattrs()
		if err != nil {
			return nil, err
		}
		for k, v := range attrs {
			if allowedXattr(k) {
				if n.Xattrs == nil {
					n.Xattrs = map[string]string{}
				}
				n.Xattrs[k] = v
			}
		}
	}
	return n, nil
}
