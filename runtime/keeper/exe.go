package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// openInit returns a descriptor of the binary that containers run as their
// init: a copy of ours, so that an update of the package never meets "text
// file busy", on a read-only mount that exists nowhere but behind this
// descriptor. Whatever a container gets hold of, it cannot write to it
// (CVE-2019-5736). Kernels without mount_setattr (before 5.12) get a sealed
// copy in memory instead.
//
// On the mount the file belongs to nobody and may be executed but not read,
// which no capability helps against. So the kernel makes a process undumpable
// when it becomes the init, and not only once the init says so itself: at no
// moment can the container's root trace an exec'd process before it has its
// seccomp filter, or open its descriptors by /proc.
func openInit(dir string) (*os.File, error) {
	path, err := copySelf(dir)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	return protect(path)
}

// protect returns a descriptor of the copy at path, as openInit describes it.
func protect(path string) (*os.File, error) {
	f, err := readOnlyMount(path)
	if err != nil && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)) {
		f, err = sealedCopy(path)
	}
	if err != nil {
		return nil, fmt.Errorf("init %s: %w", path, err)
	}
	return f, nil
}

// copySelf puts our binary into dir under its hash and drops older copies:
// containers that still run them keep the inode.
func copySelf(dir string) (string, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close()
	h := sha256.New()
	if _, err := io.Copy(h, self); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "init-"+hex.EncodeToString(h.Sum(nil))[:16])
	if !sameSize(path, self) {
		if err := writeCopy(path, self); err != nil {
			return "", err
		}
	}
	old, _ := filepath.Glob(filepath.Join(dir, "init-*"))
	for _, p := range old {
		if p != path {
			os.Remove(p)
		}
	}
	return path, nil
}

// initMode lets everybody execute the copy, and nobody but us read it.
const initMode = 0o711

func sameSize(path string, self *os.File) bool {
	a, err := os.Lstat(path)
	if err != nil || !a.Mode().IsRegular() || a.Mode().Perm() != initMode {
		return false
	}
	b, err := self.Stat()
	return err == nil && a.Size() == b.Size()
}

func writeCopy(path string, self *os.File) error {
	if _, err := self.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "init-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // without effect once it has its name
	_, err = io.Copy(f, self) // the kernel copies by itself
	if err == nil {
		err = f.Chmod(initMode)
	}
	if err == nil {
		err = f.Sync() // it is found by its size at the next start
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readOnlyMount returns path on a detached mount of its own.
func readOnlyMount(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Attr_clr: unix.MOUNT_ATTR_NOEXEC,
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	disown(fd) // as far as kernel and file system can: the init makes itself undumpable too
	return f, nil
}

// disown makes the file of a detached mount belong to nobody there.
func disown(mount int) error {
	ns, err := otherIDs()
	if err != nil {
		return err
	}
	defer ns.Close()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	return unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr)
}

// otherIDs is a user namespace in which root does not occur. Only a process can
// be in a new one, so a child is made and killed before its first instruction.
func otherIDs() (*os.File, error) {
	goruntime.LockOSThread() // a traced child belongs to the thread
	defer goruntime.UnlockOSThread()
	ids := []syscall.SysProcIDMap{{ContainerID: 1, HostID: 1, Size: 1}}
	child, err := os.StartProcess("/proc/self/exe", []string{"wherry-keeper"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: unix.SIGKILL,
	}})
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	defer child.Wait()
	defer child.Kill()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
}

func sealedCopy(path string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("wherry-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wherry-init")
	_, err = io.Copy(f, src)
	if err == nil {
		err = f.Chmod(0o511)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
