package layer

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a name in a folder.
type place struct {
	f    *folder
	name string
}

// linkTarget finds what a hard link is to.
func (u *unpacker) linkTarget(from *folder, base string) (*node, error) {
	n, ok := from.kids[base]
	switch {
	case ok && n.dir != nil:
		return nil, u.unsure(errors.New("is a folder"))
	case ok && n.isWhiteout():
		return nil, u.unsure(unix.ENOENT)
	case ok:
		return n, nil
	case from.hidden():
		return nil, u.unsure(unix.ENOENT)
	case u.lower == nil:
		return nil, ErrNeedsLower
	}
	u.res.Dependent = true
	return u.copyUp(from, base)
}

// copyUp makes the lower layers' file a file of this layer: a hard link cannot
// reach from one layer into another. All its names come along, because they
// are to stay those of one file.
func (u *unpacker) copyUp(to *folder, name string) (*node, error) {
	in, err := u.lower.lookup(to.join(name))
	if err != nil {
		return nil, err
	}
	defer in.close()
	n, err := nodeFrom(in)
	if err != nil {
		return nil, err
	}
	if n.kind() == unix.S_IFDIR {
		return nil, errors.New("is a folder")
	}
	if err := u.tree.put(to, name, n); err != nil {
		return nil, err
	}
	u.copied[place{to, name}] = true
	if n.kind() == unix.S_IFREG {
		err = u.copyContent(to, name, n, in)
	} else {
		err = u.sink.other(to, name, n)
	}
	if err == nil && in.stat().Nlink > 1 {
		err = u.copyNames(to, name, n, in)
	}
	return n, err
}

func (u *unpacker) copyContent(to *folder, name string, n *node, in inode) error {
	if err := u.room(n.size, false); err != nil {
		return err
	}
	src, err := in.open()
	if err != nil {
		return err
	}
	defer src.Close()
	u.res.Size += n.size
	return u.sink.file(to, name, n, src, false)
}

// copyNames gives a file that was copied up the other names that it has below,
// as far as they show there and this layer leaves them alone.
func (u *unpacker) copyNames(to *folder, name string, n *node, in inode) error {
	first := to.join(name)
	for q, err := range in.others(first) {
		if err != nil {
			return err
		}
		shown, err := u.lower.lookup(q)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		same := shown.is(in)
		shown.close()
		if !same {
			continue
		}
		if err := u.copyName(to, name, n, q); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) copyName(to *folder, name string, n *node, q string) error {
	f, base, ok, err := u.untouched(q)
	if !ok || err != nil {
		return err
	}
	if err := u.tree.put(f, base, n); err != nil {
		return err
	}
	u.copied[place{f, base}] = true
	return u.sink.link(to, name, f, base)
}

// untouched returns the folder of q if nothing in this layer is in the way of the
// lower layers' q.
func (u *unpacker) untouched(q string) (f *folder, base string, ok bool, err error) {
	f = u.tree.root
	for {
		var rest string
		base, rest, ok = strings.Cut(q, "/")
		if f.opaque {
			return nil, "", false, nil
		}
		n, taken := f.kids[base]
		switch {
		case !ok:
			return f, base, !taken, nil
		case !taken:
			if f, err = u.newFolder(f, base); err != nil {
				return nil, "", false, err
			}
			f.copied = true
		case n.dir == nil:
			return nil, "", false, nil
		default:
			f = n.dir
		}
		q = rest
	}
}
