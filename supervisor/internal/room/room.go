// Package room answers: can files be written below this folder, and if not, what is the
// matter? The kernel says "no space left on device" of a lack of bytes and of
// a lack of inodes alike, and neither that nor "read-only file system" says where.
//
// It changes nothing. Read first: Explain and Warnings.
package room

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Explain adds to an error about a lack of room, or about a file system that cannot be
// written, which of the folders' file systems it is. Others stay as they are.
func Explain(err error, folders ...string) error {
	var about unix.Errno
	switch {
	case err == nil:
		return nil
	case is(err, unix.ENOSPC):
		about = unix.ENOSPC
	case is(err, unix.EROFS):
		about = unix.EROFS
	default:
		return err
	}
	for _, f := range folders {
		if what := matter(f); what != "" && (about == unix.EROFS) == (what == readOnly) && !strings.Contains(err.Error(), what) {
			return &explained{err, fmt.Sprintf("%s %s", f, what)}
		}
	}
	return err
}

// is knows errors of the keeper too, which come as texts.
func is(err error, errno unix.Errno) bool {
	return errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error())
}

type explained struct {
	err  error
	what string
}

func (e *explained) Error() string { return e.err.Error() + " (" + e.what + ")" }
func (e *explained) Unwrap() error { return e.err }

// Warnings are what stands in the way of writing below the folders.
func Warnings(folders ...string) []string {
	var all []string
	seen := map[unix.Fsid]bool{}
	for _, f := range folders {
		var st unix.Statfs_t
		if unix.Statfs(f, &st) != nil || seen[st.Fsid] && st.Fsid != (unix.Fsid{}) {
			continue
		}
		seen[st.Fsid] = true
		switch what := words(st); what {
		case "":
		case readOnly:
			all = append(all, f+" "+what+": what runs goes on, nothing can be changed or recorded (see the kernel's log for errors of the disk)")
		default:
			all = append(all, f+" "+what+": what runs goes on, what is to be started may fail")
		}
	}
	return all
}

func matter(folder string) string {
	var st unix.Statfs_t
	if unix.Statfs(folder, &st) != nil {
		return ""
	}
	return words(st)
}

const (
	readOnly = "is mounted read-only"
	noInodes = "has no inodes left"
	full     = "is full"
)

// least is how many bytes a file system that is of use has left: a page, for a file that is
// not empty. What ext4 keeps for root and for its own needs does not count: containers get
// none of it, and root gets only the first of the two.
const least = 4096

func words(st unix.Statfs_t) string {
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return readOnly
	case st.Files > 0 && st.Ffree == 0:
		return noInodes
	case st.Blocks > 0 && int64(st.Bavail)*st.Bsize < least:
		return full
	}
	return ""
}
