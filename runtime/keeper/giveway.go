package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A binary that has replaced another one in place may still fail at what it
// promised (--check-handoff) to be able to do. It then gives way to the one that was here
// before, which it finds by a descriptor, as the file may be gone.
const (
	envFormer  = "WHERRY_KEEPER_FORMER"  // the descriptor of the binary that was here
	envRefused = "WHERRY_KEEPER_REFUSED" // why the binary that should have come did not
)

// takeoverDeadline is how long a new binary may take until it serves.
const takeoverDeadline = 30 * time.Second

// former opens this process's binary for the one that comes next, without
// close-on-exec.
func former() (*os.File, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	unix.FcntlInt(f.Fd(), unix.F_SETFD, 0)
	return f, nil
}

// takeFormer returns the descriptor of the binary that was here, -1 if there is none.
func takeFormer() int {
	fd, err := strconv.Atoi(os.Getenv(envFormer))
	os.Unsetenv(envFormer)
	if err != nil || fd < 3 {
		return -1
	}
	unix.CloseOnExec(fd)
	return fd
}

// takeOver does all that stands between a start of this binary and the moment
// it serves.
func (d *daemon) takeOver(socket string) error {
	fd := takeFormer()
	if fd < 0 {
		return d.prepare(socket)
	}
	defer unix.Close(fd)
	d.replaced = true
	late := time.AfterFunc(takeoverDeadline, func() {
		d.giveWay(fd, fmt.Errorf("it does not serve after %s", takeoverDeadline))
	})
	defer late.Stop()
	err := d.prepareSafely(socket)
	if err == nil {
		return nil
	}
	return errors.Join(err, d.giveWay(fd, err))
}

// prepareSafely takes a panic for a failure: containers need a keeper more than a stack trace.
func (d *daemon) prepareSafely(socket string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return d.prepare(socket)
}

// giveWay becomes the binary that was here before. It returns only if that fails.
func (d *daemon) giveWay(fd int, cause error) error {
	d.logger.Error("giving way to the binary that was here", "err", cause)
	if d.k != nil { // else all that was left to us is still as it was
		if _, err := d.k.bequeath(); err != nil {
			d.logger.Error("namespaces may be lost", "err", err)
		}
		list, _, err := d.k.heirlooms.writeList()
		if err != nil {
			d.logger.Error("terminals may be lost", "err", err)
		} else {
			os.Setenv(envHeirlooms, strconv.Itoa(int(list.Fd())))
		}
	}
	socket := d.listener
	if d.socket != nil {
		f, err := d.socket.File()
		if err != nil {
			return err
		}
		socket = int(f.Fd())
	}
	lock := int(d.lockFile.Fd())
	for _, fd := range []int{socket, lock} {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	os.Setenv(envRefused, oneLine(cause.Error()))
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	args := append(d.args(self), "--listener-fd", strconv.Itoa(socket), "--lock-fd", strconv.Itoa(lock))
	return execve(self, args)
}

// refused is why the binary that should have replaced this one did not.
func refused() string {
	s := os.Getenv(envRefused)
	os.Unsetenv(envRefused)
	return s
}

func oneLine(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", "; "), "\x00", "")
}
