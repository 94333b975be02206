// Package quota answers: how does a folder get a limit of its own?
//
// By project quotas, which ext4 and XFS have: every file below the folder belongs
// to the folder's project, and the file system counts and limits what a project
// takes. The package keeps nothing; who uses which project is the caller's.
//
// Read first: Limit and ErrNone.
package quota

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNone says that the file system cannot bound a folder, with the reason.
var ErrNone = errors.New("no project quotas")

// Project is the number of a project.
type Project = uint32

// First is the least number that Free hands out, and Count is how many there are.
// Docker counts from 1 up, Kubernetes from 1048577.
const (
	First Project = 0x57480000
	Count         = 1 << 16
)

// Numbers of quotactl(2), from the kernel's uapi/linux/quota.h and dqblk_xfs.h.
const (
	getQuota = 0x800007<<8 | projectType
	setQuota = 0x800008<<8 | projectType
	getState = ('X'<<8+8)<<8 | projectType // Q_XGETQSTATV, which ext4 answers too

	projectType = 2

	blockLimits = 1 // QIF_BLIMITS

	stateVersion = 1
	enforced     = 1 << 5 // FS_QUOTA_PDQ_ENFD
)

// dqblk is struct if_dqblk. Limits are in KiB, the space in bytes.
type dqblk struct {
	hardBlocks, softBlocks, space uint64
	hardInodes, softInodes        uint64
	inodes, blockTime, inodeTime  uint64
	valid                         uint32
	_                             uint32
}

// stateV is struct fs_quota_statv.
type stateV struct {
	version uint8
	_       uint8
	flags   uint16
	_       [172]byte
}

// Limit gives the folders, which are empty, the project and bounds what they take
// together.
func Limit(p Project, bytes int64, dirs ...string) error {
	if len(dirs) == 0 || bytes <= 0 {
		return fmt.Errorf("limit of %d bytes for %d folders", bytes, len(dirs))
	}
	if err := Check(dirs[0]); err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := setProject(dir, p); err != nil {
			return err
		}
	}
	return setLimit(dirs[0], p, bytes)
}

// Drop takes a project's limit away. The folders keep the project until they are
// deleted.
func Drop(dir string, p Project) error { return setLimit(dir, p, 0) }

// Check tells whether folders on dir's file system can be bounded.
func Check(dir string) error {
	var st stateV
	st.version = stateVersion
	err := quotactl(dir, getState, 0, unsafe.Pointer(&st))
	if err == nil && st.flags&enforced == 0 {
		err = unix.ESRCH
	}
	return none(dir, err)
}

// none makes an ErrNone of what kernels say where there are no quotas.
func none(dir string, err error) error {
	reason := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		reason = "they are off; mount it with the option prjquota"
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTBLK), errors.Is(err, unix.ENODEV):
		reason = kind(dir) + "it takes XFS, or ext4 made by mkfs.ext4 -O quota,project, mounted with prjquota, and Linux 5.14 with CONFIG_QUOTA (for ext4 with CONFIG_QFMT_V2 too)"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		reason = "not permitted; it takes root"
	default:
		return fmt.Errorf("quota %s: %w", dir, err)
	}
	return fmt.Errorf("%w below %s: %s", ErrNone, dir, reason)
}

// kind says what file system dir is on, where it is one that people expect to have such quotas.
func kind(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	switch st.Type {
	case unix.BTRFS_SUPER_MAGIC: // its own quotas count subvolumes
		return "it is on btrfs, which has none; "
	case unix.TMPFS_MAGIC: // quotas of users and groups since 6.6, none of projects
		return "it is on tmpfs, which has none; "
	}
	return ""
}

// Usage is how many bytes a project takes and may take. Both are counted by the
// file system: it costs one system call.
func Usage(dir string, p Project) (used, limit int64, err error) {
	var q dqblk
	if err := quotactl(dir, getQuota, p, unsafe.Pointer(&q)); err != nil {
		return 0, 0, none(dir, err)
	}
	return int64(q.space), int64(q.hardBlocks) << 10, nil
}

// Free finds a project that neither is taken nor has files or a limit by somebody
// else's hand. taken are those that the caller has given away.
func Free(dir string, taken map[Project]bool) (Project, error) {
	for p := First; p < First+Count; p++ {
		if taken[p] {
			continue
		}
		used, limit, err := Usage(dir, p)
		if errors.Is(err, unix.ENOENT) {
			return p, nil // XFS knows nothing of it
		}
		if err != nil {
			return 0, err
		}
		if used == 0 && limit == 0 {
			return p, nil
		}
	}
	return 0, fmt.Errorf("quota %s: all %d projects are in use", dir, Count)
}

func setLimit(dir string, p Project, bytes int64) error {
	q := dqblk{hardBlocks: uint64(bytes+1023) >> 10, valid: blockLimits}
	return none(dir, quotactl(dir, setQuota, p, unsafe.Pointer(&q)))
}

// quotactl is quotactl_fd(2), which needs no path of a device: Linux 5.14.
func quotactl(dir string, cmd, id uint32, addr unsafe.Pointer) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(cmd), uintptr(id), uintptr(addr), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// fsxattr is struct fsxattr of the kernel's uapi/linux/fs.h.
type fsxattr struct {
	flags, extentSize, extents uint32
	project                    Project
	cowExtentSize              uint32
	_                          [8]byte
}

const (
	getFsxattr = 0x801c581f // FS_IOC_FSGETXATTR
	setFsxattr = 0x401c5820 // FS_IOC_FSSETXATTR

	inherit = 0x200 // FS_XFLAG_PROJINHERIT
)

// setProject makes dir and what will be made in it part of the project. Both
// folders of an overlay's upper layer need the same one: a rename from one project
// into another is refused.
func setProject(dir string, p Project) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var x fsxattr
	if err := ioctl(f, getFsxattr, &x); err != nil {
		return none(dir, err)
	}
	x.project = p
	x.flags |= inherit
	return none(dir, ioctl(f, setFsxattr, &x))
}

// projectOf reads a folder's project.
func projectOf(dir string) (Project, bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	var x fsxattr
	err = ioctl(f, getFsxattr, &x)
	return x.project, x.flags&inherit != 0, err
}

func ioctl(f *os.File, request uintptr, x *fsxattr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(x)))
	if errno != 0 {
		return errno
	}
	return nil
}
