package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/quota"
)

// The probes try on a file system what a store does on it. Their mounts are in no
// namespace: nobody sees them, and they end with the probe.

// probePrefix begins the names of what probes make below the folder they are
// given. A dot keeps it apart from everything of ours.
const probePrefix = ".probe-"

// ProbeOverlay tells why the file system at dir can hold no writable layers: it
// lays one folder over another and writes to what comes of it.
func ProbeOverlay(dir string) error {
	return inProbeDir(dir, func(tmp string) error {
		for _, d := range []string{"lower", "upper", "work"} {
			if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
				return err
			}
		}
		for _, name := range []string{"gone", "kept"} {
			if err := os.WriteFile(filepath.Join(tmp, "lower", name), []byte(name), 0o755); err != nil {
				return err
			}
		}
		if err := hasTypes(filepath.Join(tmp, "lower")); err != nil {
			return err
		}
		mnt, err := mountOverlay(tmp)
		if err != nil {
			return err
		}
		defer mnt.Close()
		return useOverlay(int(mnt.Fd()), tmp)
	})
}

// hasTypes: overlayfs needs file systems that tell in a folder's entries what each is, or
// deleted files come back. XFS made with ftype=0 does not (kernel, Documentation/filesystems/overlayfs.rst).
func hasTypes(dir string) error {
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	b := make([]byte, 4096)
	n, err := unix.Getdents(d, b)
	if err != nil {
		return fmt.Errorf("getdents: %w", err)
	}
	for rest := b[:n]; len(rest) >= 20; { // struct linux_dirent64: ino, off, reclen, type, name
		length := int(rest[16]) | int(rest[17])<<8
		if length < 20 || length > len(rest) {
			break
		}
		name, _, _ := bytes.Cut(rest[19:length], []byte{0})
		if string(name) == "kept" && rest[18] == unix.DT_UNKNOWN {
			return ErrNoTypes
		}
		rest = rest[length:]
	}
	return nil
}

// ErrNoTypes says that a file system keeps no types in its folders.
var ErrNoTypes = errors.New("its folders do not tell the types of files (XFS with ftype=0)")

// mountOverlay mounts by the calls of Linux 5.2, which overlayfs of all kernels
// from there on understands.
func mountOverlay(tmp string) (*os.File, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"source", "overlay"}, {"lowerdir", filepath.Join(tmp, "lower")}, {"upperdir", filepath.Join(tmp, "upper")}, {"workdir", filepath.Join(tmp, "work")}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return nil, fmt.Errorf("overlay %s: %w%s", o[0], err, complaint(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("overlay: %w%s", err, complaint(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(mnt), "overlay"), nil
}

// complaint is what the kernel says of a mount besides its error number.
func complaint(fs int) string {
	b := make([]byte, 1024)
	n, err := unix.Read(fs, b)
	if err != nil || n <= 2 {
		return ""
	}
	return ": " + strings.TrimSpace(string(b[2:n])) // "e overlay: ..."
}

// useOverlay does what containers do: change a file, delete one, replace one, make a device.
func useOverlay(mnt int, tmp string) error {
	fd, err := unix.Openat(mnt, "kept", unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("overlay: change a file: %w", err)
	}
	_, err = unix.Write(fd, []byte("!"))
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("overlay: change a file: %w", err)
	}
	if err := unix.Faccessat(mnt, "kept", unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("overlay: execute a file: %w", err)
	}
	if err := unix.Unlinkat(mnt, "gone", 0); err != nil {
		return fmt.Errorf("overlay: delete a file: %w", err)
	}
	if err := unix.Renameat(mnt, "kept", mnt, "moved"); err != nil {
		return fmt.Errorf("overlay: rename a file: %w", err)
	}
	if err := unix.Setxattr(filepath.Join(tmp, "upper"), "trusted.overlay.probe", []byte("y"), 0); err != nil {
		return fmt.Errorf("attributes of overlayfs: %w", err)
	}
	return nil
}

// ProbeEROFS tells why the kernel mounts no EROFS image that lies in dir by itself.
func ProbeEROFS(dir string) error {
	return inProbeDir(dir, tryErofs)
}

// ProbeQuota tells why writable layers below dir cannot be bounded: ErrNoQuota,
// with the reason.
func ProbeQuota(dir string) error { return translateQuota(quota.Check(dir)) }

// inProbeDir does something in a folder of its own below dir.
func inProbeDir(dir string, do func(tmp string) error) (err error) {
	sweepProbes(dir)
	tmp, err := os.MkdirTemp(dir, probePrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	return do(tmp)
}

// sweepProbes removes what probes left that were killed.
func sweepProbes(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(100)
		for _, e := range entries {
			info, ierr := e.Info()
			if strings.HasPrefix(e.Name(), probePrefix) && e.IsDir() && ierr == nil && time.Since(info.ModTime()) > time.Hour {
				_ = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
		if err != nil || errors.Is(err, io.EOF) {
			return
		}
	}
}

// DiskOf reads how full the file system at path is, and what a store with this
// Options.Reserve would leave free.
func DiskOf(path string, reserve int64) (DiskState, error) {
	st, err := disk.StatFS(path)
	if err != nil {
		return DiskState{}, err
	}
	return diskState(path, st, reserve), nil
}
