package usernamespace

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrCannotShift says that a file system cannot be mounted with shifted ids.
var ErrCannotShift = errors.New("cannot be mounted with shifted ids")

// Probe tells whether the file or folder at path can be mounted with shifted ids:
// by doing it, on a mount that nobody else sees. With all, mounts below it have to be able
// to as well.
func Probe(path string, all bool) error {
	users, err := probeNamespace()
	if err != nil {
		return err
	}
	flags, attrs := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if all {
		flags |= unix.AT_RECURSIVE
		attrs |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	err = unix.MountSetattr(fd, "", attrs, &attr)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: file system %s %w", path, fileSystem(path), ErrCannotShift)
	}
	return &os.PathError{Op: "mount_setattr", Path: path, Err: err}
}

// Kernel tells why the kernel can have no user namespaces with root file systems
// of shifted ids; nil: it can.
func Kernel() error {
	if err := checkRelease(release()); err != nil {
		return err
	}
	_, err := probeNamespace()
	return err
}

// checkRelease: overlays take layers with shifted ids since Linux 5.19.
func checkRelease(release string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 19) {
		return fmt.Errorf("kernel %s: root file systems with shifted ids need Linux 5.19", release)
	}
	return nil
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

var probing struct {
	mu    sync.Mutex
	users *os.File
}

// probeNamespace is a user namespace that serves as a map, made once. That it
// cannot be made may change, so it is tried again.
func probeNamespace() (*os.File, error) {
	probing.mu.Lock()
	defer probing.mu.Unlock()
	if probing.users != nil {
		return probing.users, nil
	}
	f, err := makeNamespace(syscall.SysProcIDMap{HostID: int(ours[0].first), Size: Size})
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	probing.users = f
	return f, nil
}

// makeNamespace makes a user namespace with a child that is ended before its first instruction.
func makeNamespace(m syscall.SysProcIDMap) (*os.File, error) {
	goruntime.LockOSThread() // a traced child belongs to the thread
	defer goruntime.UnlockOSThread()
	ids := []syscall.SysProcIDMap{m}
	child, err := os.StartProcess("/proc/self/exe", []string{"wherry-probe"}, &os.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: unix.SIGKILL,
	}})
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return nil, fmt.Errorf("%w (see /proc/sys/user/max_user_namespaces)", err)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w (this kernel has none)", err)
	case err != nil:
		return nil, err
	}
	defer child.Wait()
	defer child.Kill()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
}

// fileSystem is the name of the file system at path, or its number.
func fileSystem(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return "unknown"
	}
	if name, ok := fileSystems[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("%#x", st.Type)
}

var fileSystems = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.FUSE_SUPER_MAGIC: "fuse", unix.NFS_SUPER_MAGIC: "nfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.CGROUP2_SUPER_MAGIC: "cgroup2", unix.CGROUP_SUPER_MAGIC: "cgroup",
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", 0x2fc12fc1: "zfs",
	unix.DEBUGFS_MAGIC: "debugfs", unix.DEVPTS_SUPER_MAGIC: "devpts", unix.RAMFS_MAGIC: "ramfs", 0xff534d42: "cifs", unix.V9FS_MAGIC: "9p",
	unix.SQUASHFS_MAGIC: "squashfs", unix.EROFS_SUPER_MAGIC_V1: "erofs",
}
