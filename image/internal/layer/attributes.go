package layer

import (
	"archive/tar"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	paxXattr = "SCHILY.xattr."
	capXattr = "security.capability"

	opaquePrivileged   = "trusted.overlay.opaque"
	opaqueUnprivileged = "user.overlay.opaque"
)

// metaOf takes from a header what may reach the disk.
func metaOf(h *tar.Header) meta {
	m := meta{mode: uint32(h.Mode) & 0o7777, uid: h.Uid, gid: h.Gid, mtime: h.ModTime, atime: h.AccessTime}
	if m.mtime.IsZero() {
		m.mtime = time.Unix(0, 0)
	}
	if m.atime.IsZero() {
		m.atime = m.mtime
	}
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || !allowedXattr(name) {
			continue
		}
		if m.xattrs == nil {
			m.xattrs = map[string]string{}
		}
		m.xattrs[name] = v
	}
	return m
}

// allowedXattr keeps out what would steer overlayfs ("trusted.overlay.",
// "user.overlay.") or the host's security modules.
func allowedXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."), name == capXattr:
		return true
	}
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// identity is who unpacks.
type identity struct{ uid, gid int }

func (id identity) privileged() bool { return id.uid == 0 }

// chownNeeded tells whether a new inode of ours must change hands.
func (id identity) chownNeeded(m *meta) bool {
	return id.privileged() && (m.uid != id.uid || m.gid != id.gid)
}

// setOpen sets everything but the times on an open file or folder. The order
// matters: chown clears setuid bits and capabilities, and a mode without write
// permission would refuse attributes.
func (id identity) setOpen(fd int, m *meta) error {
	if id.chownNeeded(m) {
		if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
			return err
		}
	}
	for name, value := range m.xattrs {
		if err := id.tolerate(unix.Fsetxattr(fd, name, []byte(value), 0)); err != nil {
			return &xattrError{name, err}
		}
	}
	return unix.Fchmod(fd, m.mode)
}

// tolerate accepts that a file system has no attributes, and that an
// unprivileged unpack may not set them.
func (id identity) tolerate(err error) error {
	if errors.Is(err, unix.ENOTSUP) || !id.privileged() && errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

type xattrError struct {
	name string
	err  error
}

func (e *xattrError) Error() string { return "attribute " + e.name + ": " + e.err.Error() }
func (e *xattrError) Unwrap() error { return e.err }

func (id identity) setOpaque(fd int) error {
	name := opaquePrivileged
	if !id.privileged() {
		name = opaqueUnprivileged
	}
	if err := unix.Fsetxattr(fd, name, []byte("y"), 0); err != nil {
		return &xattrError{name, err}
	}
	return nil
}

func isOpaque(fd int) bool {
	var b [1]byte
	for _, name := range []string{opaquePrivileged, opaqueUnprivileged} {
		if n, err := unix.Fgetxattr(fd, name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

// setTimes sets the times of name itself, not of what it points to.
func setTimes(dir int, name string, m *meta) error {
	ts := []unix.Timespec{timespec(m.atime), timespec(m.mtime)}
	return unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func lstatAt(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}
