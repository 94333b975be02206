// Package disk answers: how does a change of the store reach the disk whole or
// not at all, and is there room for it?
//
// It knows nothing of images. Every durable change is: write under a temporary
// name, sync, rename, sync the folder.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile replaces path by data: after a crash it has the old content or the
// new one. The temporary name is path plus ".tmp".
func WriteFile(path string, data []byte, perm os.FileMode) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, remove(tmp))
	}
	return SyncDir(filepath.Dir(path))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemoveAll deletes a tree, also one that an unprivileged owner made
// unreadable for itself.
func RemoveAll(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	walk := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			if os.Chmod(p, 0o700) == nil && err != nil {
				return RemoveAll(p)
			}
		}
		return nil
	})
	return errors.Join(walk, os.RemoveAll(path))
}

// NoSpaceError says how much room is missing. It is syscall.ENOSPC.
type NoSpaceError struct {
	Path    string
	Need    int64 // 0: unknown
	Fetch   int64 // the part of Need that would come over the network; 0: not told apart
	Free    int64
	Reserve int64 // of Free, what has to stay free
	Claimed int64 // of Free, what others have been promised
	// Inodes is how many files the file system can hold, if it is these that
	// have run out, and InodesFree how many are left.
	Inodes     uint64
	InodesFree int64
}

func (e *NoSpaceError) Error() string {
	var b strings.Builder
	switch {
	case e.Inodes > 0 && e.InodesFree > 0:
		fmt.Fprintf(&b, "no inodes left on %s: %d of %d are not in use, and have to stay so, ", e.Path, e.InodesFree, e.Inodes)
	case e.Inodes > 0:
		fmt.Fprintf(&b, "no inodes left on %s: all %d are in use, ", e.Path, e.Inodes)
	default:
		fmt.Fprintf(&b, "no space left on %s: ", e.Path)
	}
	switch {
	case e.Need > 0 && e.Fetch > 0 && e.Inodes == 0:
		fmt.Fprintf(&b, "%s needed (%s to fetch, about %s unpacked), ", Bytes(e.Need), Bytes(e.Fetch), Bytes(e.Need-e.Fetch))
	case e.Need > 0 && e.Inodes == 0:
		fmt.Fprintf(&b, "%s needed, ", Bytes(e.Need))
	}
	fmt.Fprintf(&b, "%s free", Bytes(e.Free))
	if e.Reserve > 0 && e.Inodes == 0 {
		fmt.Fprintf(&b, ", %s have to stay free", Bytes(e.Reserve))
	}
	if e.Claimed > 0 {
		fmt.Fprintf(&b, ", %s are promised to other pulls", Bytes(e.Claimed))
	}
	return b.String()
}

// Is makes the error the system's own one for errors.Is.
func (e *NoSpaceError) Is(target error) bool { return target == unix.ENOSPC }

// Free returns the bytes that are free below path.
func Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(min(st.Bavail, 1<<62/uint64(st.Bsize))) * st.Bsize, nil
}

// Full describes a file system on which something has just not fitted.
func Full(path string) *NoSpaceError {
	e := &NoSpaceError{Path: path}
	e.Free, _ = Free(path)
	var st unix.Statfs_t
	if unix.Statfs(path, &st) == nil && st.Files > 0 && st.Ffree == 0 {
		e.Inodes = st.Files
	}
	return e
}

// Need checks that need bytes are free below path.
func Need(path string, need int64) error {
	free, err := Free(path)
	if err == nil && free < need {
		err = &NoSpaceError{Path: path, Need: need, Free: free}
	}
	return err
}

// Bytes prints a size for people, in the units of the command line's tables and of df -H,
// with a digit more: what is needed and what is free may be close.
func Bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 5 {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTPE"[i])
}
