package layer

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/erofs"
)

const (
	paxXattr   = "SCHILY.xattr."
	capXattr   = "security.capability"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	// maxValue is the longest value that both forms hold.
	maxValue = 1<<16 - 1

	// Times that ext4 can say, with inodes of 256 bytes (s_time_min and
	// s_time_max in fs/ext4/ext4.h). Other times become the nearest of them.
	minTime = math.MinInt32
	maxTime = math.MinInt32 + 1<<34 - 1
)

// typeOf are the bits that an entry's type stands for. An entry of an unknown
// type is an error: to leave it out would give an image that lacks a file.
func typeOf(flag byte) (uint32, error) {
	switch flag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return unix.S_IFREG, nil
	case tar.TypeDir:
		return unix.S_IFDIR, nil
	case tar.TypeSymlink:
		return unix.S_IFLNK, nil
	case tar.TypeChar:
		return unix.S_IFCHR, nil
	case tar.TypeBlock:
		return unix.S_IFBLK, nil
	case tar.TypeFifo:
		return unix.S_IFIFO, nil
	}
	return 0, fmt.Errorf("unknown type %q", flag)
}

// nodeOf takes from a header what may reach the disk.
func nodeOf(h *tar.Header) (*node, error) {
	kind, err := typeOf(h.Typeflag)
	if err != nil {
		return nil, err
	}
	n := &node{}
	n.Mode = kind | uint32(h.Mode)&0o7777
	if n.UID, err = owner(h.Uid); err != nil {
		return nil, err
	}
	if n.GID, err = owner(h.Gid); err != nil {
		return nil, err
	}
	n.Mtime, n.MtimeNsec = clamp(h.ModTime)
	switch kind {
	case unix.S_IFREG:
		n.size = h.Size
	case unix.S_IFLNK:
		n.Mode = unix.S_IFLNK | 0o777 // as the kernel has it
		if h.Linkname == "" || len(h.Linkname) > maxTarget || strings.IndexByte(h.Linkname, 0) >= 0 {
			return nil, errors.New("symlink without a proper target")
		}
		n.Target = strings.Clone(h.Linkname)
	case unix.S_IFCHR, unix.S_IFBLK:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return nil, fmt.Errorf("device %d:%d: no such number on Linux", h.Devmajor, h.Devminor)
		}
		n.Rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	return n, n.takeXattrs(h.PAXRecords)
}

// owner refuses what is no user id: the last number means "leave it" to chown.
func owner(id int) (uint32, error) {
	if id < 0 || id >= math.MaxUint32 {
		return 0, fmt.Errorf("owner %d: no such id on Linux", id)
	}
	return uint32(id), nil
}

func clamp(t time.Time) (sec int64, nsec uint32) {
	switch sec = t.Unix(); {
	case t.IsZero():
		return 0, 0
	case sec < minTime:
		return minTime, 0
	case sec > maxTime:
		return maxTime, 0
	}
	return sec, uint32(t.Nanosecond())
}

// takeXattrs takes the attributes that both forms hold on this type of file.
func (n *node) takeXattrs(records map[string]string) error {
	if n.kind() != unix.S_IFREG && n.kind() != unix.S_IFDIR {
		return nil // the kernel refuses user.* on them
	}
	for k, v := range records {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || !allowedXattr(name) {
			continue
		}
		keep, err := true, error(nil)
		switch {
		case len(name) > maxName || len(v) > maxValue:
			err = unix.E2BIG
		case name == capXattr:
			err = checkCapability(v)
		case name == aclAccess, name == aclDefault:
			v, keep, err = canonicalACL(v, n.Mode, name == aclAccess)
		}
		if err != nil {
			return &xattrError{name, err}
		}
		if !keep {
			continue
		}
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		n.Xattrs[strings.Clone(name)] = strings.Clone(v)
	}
	return nil
}

// allowedXattr keeps out what would steer overlayfs ("trusted.overlay.",
// "user.overlay.") or the host's security modules.
func allowedXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."):
		return len(name) > len("user.")
	}
	return name == capXattr || name == aclAccess || name == aclDefault
}

// checkCapability accepts what the kernel does (validheader in
// security/commoncap.c): version 2, and version 3 with a root id.
func checkCapability(v string) error {
	if len(v) >= 4 {
		switch binary.LittleEndian.Uint32([]byte(v)) &^ 1 { // the lowest bit: effective
		case 0x02000000:
			if len(v) == 20 {
				return nil
			}
		case 0x03000000:
			if len(v) == 24 {
				return nil
			}
		}
	}
	return unix.EINVAL
}

type xattrError struct {
	name string
	err  error
}

func (e *xattrError) Error() string { return "attribute " + e.name + ": " + e.err.Error() }
func (e *xattrError) Unwrap() error { return e.err }

// describe copies what an entry says of a folder, and nothing of what it has in it.
func (n *node) describe(from *erofs.Inode) {
	n.Mode, n.UID, n.GID, n.Mtime, n.MtimeNsec, n.Xattrs = from.Mode, from.UID, from.GID, from.Mtime, from.MtimeNsec, from.Xattrs
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}
