package keeper

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// joinable are the namespaces that a container joined by another one gives, by their
// names in /proc/PID/ns. The mount namespace is not one of them: the other has its own root.
var joinable = map[string]specs.LinuxNamespaceType{
	"net": specs.NetworkNamespace, "ipc": specs.IPCNamespace, "uts": specs.UTSNamespace, "pid": specs.PIDNamespace,
	"user": specs.UserNamespace,
}

// joinContainer has the container join the namespaces of another one that runs.
func (l *launch) joinContainer() error {
	id := l.cfg.JoinContainer
	wrap := func(err error) error { return fmt.Errorf("namespaces of container %s: %w", id, err) }
	c, err := l.k.running(id)
	if err != nil {
		return err
	}
	st := c.snapshot()
	l.shared = map[string]*os.File{}
	for name := range joinable {
		f, err := l.keep(openNamespace(st.Pid, name))
		if err != nil {
			return wrap(err)
		}
		if f != nil {
			l.shared[name] = f
		}
	}
	if l.targetRoot, err = l.keep(cloneRoot(st.Pid)); err != nil {
		return wrap(err)
	}
	if err := c.proc.signal(0); err != nil { // only now is it sure that all this was its
		return wrap(runtime.ErrNotRunning)
	}
	linux := l.cfg.Spec.Linux
	linux.Sysctl = nil // they are the other's
	for name, t := range joinable {
		switch f := l.shared[name]; {
		case f == nil:
			linux.Namespaces = slices.DeleteFunc(linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == t })
		case name != "user": // see enterUserNS
			setNamespace(linux, t, nsPath(f))
		}
	}
	if l.shared["uts"] != nil {
		l.cfg.Spec.Hostname = "" // it has the other's
	}
	if st.IDMap == nil {
		dropIDMapOptions(l.cfg.Spec.Mounts)
		return nil
	}
	l.cfg.IDMap = st.IDMap
	l.cfg.Spec.Root.Path = l.k.layout.MappedRootfs()
	fitUserNS(l.cfg.Spec, st.IDMap)
	return passable(l.cfg.Spec.Root.Path)
}

// openNamespace opens a namespace of a process; nil if it is our own.
func openNamespace(pid int, name string) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		return nil, err
	}
	its, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	own, err := os.Stat("/proc/self/ns/" + name)
	if err != nil || os.SameFile(its, own) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// targetFolder is where a container that joins another one sees that one's root.
const targetFolder = "/target"

// cloneRoot makes a mount of all that a process sees as its files, for another place. The kernel
// allows that only from within the process's mount namespace. Where there is no open_tree (before
// Linux 5.2) there is none.
func cloneRoot(pid int) (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends in that namespace
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
		}
		if err != nil {
			done <- result{-1, err}
			return
		}
		fd, err := unix.OpenTree(root, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		done <- result{fd, err}
	}()
	r := <-done
	if errors.Is(r.err, unix.ENOSYS) {
		return nil, nil
	}
	if r.err != nil {
		return nil, fmt.Errorf("its files: %w", r.err)
	}
	return os.NewFile(uintptr(r.fd), targetFolder), nil
}

// mountTarget puts the other container's files into the root at dir. An image that
// leaves no room for them does without.
func (l *launch) mountTarget(dir string) error {
	if l.targetRoot == nil {
		return nil
	}
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Mkdirat(int(root.Fd()), targetFolder[1:], 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		l.k.logger.Warn("no folder for the other container's files", "container", l.cfg.ID(), "err", err)
		return nil
	}
	at, err := openInRoot(root, targetFolder, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer at.Close()
	err = unix.MoveMount(int(l.targetRoot.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount %s: %w", targetFolder, err)
	}
	return nil
}
