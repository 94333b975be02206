package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// folder returns the folder that the clean path p leads to. Missing ones are
// made, symlinks are followed inside the root.
func (u *unpacker) folder(p string) (*folder, error) {
	if u.last.folder != nil && u.last.path == p {
		return u.last.folder, nil
	}
	f, err := u.walk(p)
	if err == nil {
		u.last.path, u.last.folder = p, f
	}
	return f, err
}

func (u *unpacker) walk(p string) (*folder, error) {
	cur := u.tree.root
	for links := 0; p != ""; {
		var name string
		name, p, _ = strings.Cut(p, "/")
		switch name {
		case "", ".":
			continue
		case "..": // only from a symlink's target
			if cur.parent != nil {
				cur = cur.parent
			}
			continue
		}
		next, target, err := u.step(cur, name)
		if err != nil {
			return nil, err
		}
		if next != nil {
			cur = next
			continue
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			cur = u.tree.root
		}
		p = target + "/" + p
	}
	return cur, nil
}

// step goes from cur to name: into a folder, which is made if need be, or to
// the target of a symlink.
func (u *unpacker) step(cur *folder, name string) (next *folder, target string, err error) {
	n, ok := cur.kids[name]
	switch {
	case !ok:
		return u.stepLower(cur, name)
	case n.dir != nil:
		n.dir.copied = false
		return n.dir, "", nil
	case n.kind() == unix.S_IFLNK:
		return nil, n.Target, nil
	case n.isWhiteout():
		// This layer has deleted the lower folder: nothing of it may shine through.
		u.tree.drop(cur, name)
		if next, err = u.newFolder(cur, name); err == nil {
			next.opaque, next.fresh = true, true
		}
		return next, "", err
	}
	return nil, "", fmt.Errorf("%s is not a folder", cur.join(name))
}

// stepLower goes on where the archive has named nothing so far: along a symlink
// of the lower layers, or to a folder, which complete makes like the lower one.
func (u *unpacker) stepLower(cur *folder, name string) (*folder, string, error) {
	if u.lower != nil && !cur.hidden() {
		in, err := u.lower.lookup(cur.join(name))
		if err == nil {
			defer in.close()
			if in.stat().Mode&unix.S_IFMT == unix.S_IFLNK {
				u.res.Dependent = true
				target, err := in.readlink()
				return nil, target, err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
	}
	f, err := u.newFolder(cur, name)
	u.guessed = u.guessed || u.lower == nil
	return f, "", err
}

// recall notes the folders, from f on, that were taken for such because nobody had
// described them, before they are gone or described: if the lower layers have
// a symlink there, it has led earlier entries elsewhere.
func (u *unpacker) recall(f *folder) {
	u.recallOne(f)
	for _, kid := range f.kids {
		if kid.dir != nil {
			u.recall(kid.dir)
		}
	}
}

func (u *unpacker) recallOne(f *folder) {
	if u.lower == nil && !f.explicit && !f.fresh && !f.parent.hidden() {
		p := f.path()
		u.recalled = append(u.recalled, p)
		u.tree.left -= int64(len(p) + nodeCost)
	}
}

// unsure tells apart what is wrong and what may only seem so, because a folder
// nobody has described may be a symlink in the lower layers, that leads
// elsewhere.
func (u *unpacker) unsure(err error) error {
	if err != nil && u.guessed {
		return ErrNeedsLower
	}
	return err
}
