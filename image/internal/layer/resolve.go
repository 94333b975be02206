package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// folder returns the folder that the clean path p leads to, with its descriptor
// open. Missing ones are made, symlinks are followed inside the root.
func (u *unpacker) folder(p string) (*folder, error) {
	f, ok := u.folders.byPath[p]
	if !ok {
		var err error
		if f, err = u.walk(p); err != nil {
			return nil, err
		}
	}
	return f, u.folders.acquire(f)
}

func (u *unpacker) walk(p string) (*folder, error) {
	cur, todo := u.folders.root, strings.Split(p, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
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
			cur = u.folders.root
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return cur, nil
}

// step goes from cur to name: into a folder, which is made if need be, or to
// the target of a symlink.
func (u *unpacker) step(cur *folder, name string) (next *folder, target string, err error) {
	p := path.Join(cur.path, name)
	if f, ok := u.folders.byPath[p]; ok {
		return f, "", nil
	}
	if err := u.folders.acquire(cur); err != nil {
		return nil, "", err
	}
	key := u.hash(cur, name)
	if _, ok := u.seen[key]; ok {
		if err := u.writers.drain(); err != nil {
			return nil, "", err
		}
		st, err := lstatAt(cur.fd, name)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return nil, "", err
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := readlink(cur.fd, name)
			return nil, target, err
		case isWhiteout(&st):
			next, err := u.makeOverWhiteout(cur, name)
			return next, "", err
		default:
			return nil, "", fmt.Errorf("%s is not a folder", p)
		}
	}
	return u.stepLower(cur, name, key)
}

// stepLower makes the folder name, which the archive has not named so far, like
// the one the lower layers have.
func (u *unpacker) stepLower(cur *folder, name string, key uint64) (*folder, string, error) {
	m, adopted := defaultMeta, false
	if u.lower != nil && !cur.hidden() {
		p := path.Join(cur.path, name)
		root, st, err := u.lower.lookup(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, "", err
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			u.res.Dependent = true
			target, err := readlinkBeneath(root, p)
			return nil, target, err
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			if m, err = folderMeta(root, p); err != nil {
				return nil, "", err
			}
			adopted = true
		}
	}
	f, err := u.folders.make(cur, name)
	if err != nil {
		return nil, "", err
	}
	u.seen[key] = struct{}{}
	if adopted {
		f.meta = m
	}
	return f, "", nil
}

// makeOverWhiteout makes a folder where this layer has deleted the lower
// one's: nothing of that may shine through.
func (u *unpacker) makeOverWhiteout(cur *folder, name string) (*folder, error) {
	if err := unix.Unlinkat(cur.fd, name, 0); err != nil {
		return nil, err
	}
	f, err := u.folders.make(cur, name)
	if err != nil {
		return nil, err
	}
	f.opaque = true
	return f, nil
}

// claim makes the name free for a new entry and returns what is left of an
// old one: a folder that a folder's entry goes on using, and whether something
// else was replaced.
func (u *unpacker) claim(parent *folder, name string, isDir bool) (old *folder, replaced bool, err error) {
	key := u.hash(parent, name)
	if _, ok := u.seen[key]; !ok {
		u.seen[key] = struct{}{}
		return nil, false, nil
	}
	if err := u.writers.drain(); err != nil {
		return nil, false, err
	}
	p := path.Join(parent.path, name)
	if f, ok := u.folders.byPath[p]; ok {
		if isDir {
			return f, false, nil
		}
		u.folders.forget(p)
		return nil, true, u.removeTree(parent, name)
	}
	err = unix.Unlinkat(parent.fd, name, 0)
	return nil, err == nil, ignoreNotExist(err)
}

// removeTree deletes a folder of ours. Its path has no symlinks and nobody
// else is in the private folder that we unpack into.
func (u *unpacker) removeTree(parent *folder, name string) error {
	return disk.RemoveAll(path.Join(u.dir, parent.path, name))
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func readlinkBeneath(root int, p string) (string, error) {
	dir, base := path.Split(p)
	fd, err := openBeneath(root, strings.TrimSuffix(dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readlink(fd, base)
}
