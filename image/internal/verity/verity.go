// Package verity answers: is this file, by the word of the kernel, the one that was
// sealed?
//
// A file with fs-verity (Documentation/filesystems/fsverity.rst) cannot be written any
// more, and the kernel checks every block of it at each read from the disk: what
// does not fit its hash is an I/O error, not data. Ext4 has it with the feature
// "verity", btrfs and f2fs too, if the kernel has CONFIG_FS_VERITY.
//
// It keeps nothing: who seals a file notes its digest.
package verity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that the kernel or the file system has no fs-verity.
var ErrUnsupported = errors.New("no fs-verity here")

// ErrBusy says that somebody has the file open for writing.
var ErrBusy = errors.New("file is open for writing")

const (
	blockSize = 4096
	sha256    = unix.FS_VERITY_HASH_ALG_SHA256
)

// Seal makes a file one that cannot change and returns its digest. The kernel
// reads all of it for that. A file that is sealed is only measured.
func Seal(path string) (digest string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: sha256, Block_size: blockSize}
	err = ioctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return "", translate("seal", path, err)
	}
	return measure(f)
}

// Measure returns the digest of a sealed file, and "" if it is not sealed.
func Measure(path string) (digest string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return measure(f)
}

func measure(f *os.File) (string, error) {
	d := struct {
		unix.FsverityDigest
		digest [64]byte
	}{}
	d.Size = uint16(len(d.digest))
	err := ioctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&d))
	if errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	if err != nil {
		return "", translate("measure", f.Name(), err)
	}
	n := min(int(d.Size), len(d.digest))
	return "sha256:" + hex.EncodeToString(d.digest[:n]), nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// translate knows what kernels and file systems say that have no fs-verity.
func translate(op, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return ErrUnsupported
	case errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.EBUSY):
		return ErrBusy
	}
	return fmt.Errorf("%s: %w", op, &fs.PathError{Op: "fs-verity", Path: path, Err: err})
}

// Supported tries it with a small file in dir.
func Supported(dir string) error {
	f, err := os.CreateTemp(dir, ".verity-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write([]byte{0})
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, err = Seal(filepath.Join(dir, filepath.Base(f.Name())))
	return err
}
