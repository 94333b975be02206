package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// other is the user whom root of a container gives files to, and runs programs as.
const other = 1000

// files does below each folder what programs do with files, and prints a line of what it has seen.
func files(dirs []string) error {
	for _, dir := range dirs {
		work := filepath.Join(dir, "of-files")
		if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		var seen []string
		for _, f := range []func(string) (string, error){owners, modes, programs, others, devices} {
			s, err := f(work)
			if err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			seen = append(seen, s)
		}
		fmt.Println(dir, strings.Join(seen, " "))
	}
	return nil
}

// ids prints who it runs as, and with which capabilities.
func ids() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, caps, _ := strings.Cut(string(status), "CapEff:")
	caps, _, _ = strings.Cut(caps, "\n")
	fmt.Printf("%d/%d/%s", os.Getuid(), os.Geteuid(), strings.TrimLeft(strings.TrimSpace(caps), "0"))
	return nil
}

// owners makes a file and gives it away.
func owners(dir string) (string, error) {
	name := filepath.Join(dir, "owned")
	if err := os.WriteFile(name, []byte("content\n"), 0o644); err != nil {
		return "", err
	}
	link := filepath.Join(dir, "link")
	err := errors.Join(os.Symlink("owned", link), os.Lchown(link, other, other), os.Mkdir(filepath.Join(dir, "folder"), 0o770), os.Chown(filepath.Join(dir, "folder"), 0, other))
	var made, given, linked unix.Stat_t
	err = errors.Join(err, unix.Stat(name, &made), os.Chown(name, other, other), unix.Stat(name, &given), unix.Lstat(link, &linked))
	return fmt.Sprintf("made:%d:%d given:%d:%d link:%d", made.Uid, made.Gid, given.Uid, given.Gid, linked.Uid), err
}

// modes: set-user-id stays when root sets it, set-group-id of a folder is inherited.
func modes(dir string) (string, error) {
	name, folder := filepath.Join(dir, "owned"), filepath.Join(dir, "folder")
	err := errors.Join(unix.Chmod(name, 0o4755), unix.Chmod(folder, 0o2770))
	inner := filepath.Join(folder, "inner")
	err = errors.Join(err, os.WriteFile(inner, nil, 0o600))
	var a, b unix.Stat_t
	err = errors.Join(err, unix.Stat(name, &a), unix.Stat(inner, &b))
	return fmt.Sprintf("mode:%o inherited:%d", a.Mode&0o7777, b.Gid), err
}

// capChown is the attribute of a file whose program may change owners (struct vfs_cap_data, revision 2, effective).
func capChown() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	return append(binary.LittleEndian.AppendUint32(b, 1<<unix.CAP_CHOWN), make([]byte, 12)...)
}

// programs: a copy of this one, set-user-id and then with a capability, run by another user.
func programs(dir string) (string, error) {
	name, err := self(dir)
	if err != nil {
		return "", err
	}
	if err := unix.Chmod(name, 0o4755); err != nil {
		return "", err
	}
	seen := "setuid:" + asOther(name)
	const attr = "security.capability"
	if err := errors.Join(unix.Chmod(name, 0o755), unix.Setxattr(name, attr, capChown(), 0)); err != nil {
		return "", fmt.Errorf("%s: %w", attr, err)
	}
	b := make([]byte, 64)
	n, err := unix.Getxattr(name, attr, b)
	if err != nil || !bytes.Equal(b[:n], capChown()) {
		return "", fmt.Errorf("%s: %x, %w", attr, b[:max(n, 0)], err)
	}
	return seen + " capability:" + asOther(name), os.Remove(name)
}

// self is a copy of this program.
func self(dir string) (string, error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(dir, "program"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return out.Name(), errors.Join(err, out.Close())
}

func asOther(program string) string {
	cmd := exec.Command(program, "ids")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	out, err := cmd.Output()
	if err != nil {
		return strings.ReplaceAll(errors.Unwrap(err).Error(), " ", "-")
	}
	return string(out)
}

// others: hard links, renames, named pipes and sockets.
func others(dir string) (string, error) {
	hard, moved := filepath.Join(dir, "hard"), filepath.Join(dir, "moved")
	err := errors.Join(os.Link(filepath.Join(dir, "owned"), hard), os.Rename(hard, moved))
	pipe, socket := filepath.Join(dir, "pipe"), filepath.Join(dir, "socket")
	err = errors.Join(err, unix.Mkfifo(pipe, 0o600))
	l, lerr := net.Listen("unix", socket)
	if err = errors.Join(err, lerr); err != nil {
		return "", err
	}
	defer l.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	c, err := net.Dial("unix", socket)
	if err != nil {
		return "", err
	}
	return "socket:answers", c.Close()
}

// devices: root of a user namespace makes none.
func devices(dir string) (string, error) {
	name := filepath.Join(dir, "null")
	err := unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	if err == nil {
		return "mknod:done", os.Remove(name)
	}
	return "mknod:" + strings.ReplaceAll(err.Error(), " ", "-"), nil
}
