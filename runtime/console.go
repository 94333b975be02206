package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Console is the way of a new terminal out of a container: the socket goes with
// [Process.Console], and once the process has been made, the terminal's master comes back.
type Console struct {
	Socket *os.File // for the process
	ours   *os.File
}

// NewConsole makes the socket. The caller closes the Console.
func NewConsole() (*Console, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return &Console{ours: os.NewFile(uintptr(fds[0]), "console"), Socket: os.NewFile(uintptr(fds[1]), "console")}, nil
}

// Close closes both ends. A master that was received stays open.
func (c *Console) Close() error { return errors.Join(c.ours.Close(), c.Hand()) }

// Hand closes our copy of the process's end, once the keeper has it: Master then
// fails as soon as nobody is left who could send one.
func (c *Console) Hand() error {
	err := c.Socket.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Master waits for the terminal's master, which the caller closes.
func (c *Console) Master(ctx context.Context) (*os.File, error) {
	raw, err := c.ours.SyscallConn()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.ours.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	fd, rerr := -1, error(nil)
	err = raw.Read(func(s uintptr) bool {
		fd, rerr = receiveMaster(int(s))
		return !errors.Is(rerr, unix.EAGAIN)
	})
	switch {
	case ctx.Err() != nil && rerr != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("console: %w", err)
	case rerr != nil:
		return nil, fmt.Errorf("console: %w", rerr)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("console: %w", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// receiveMaster takes one descriptor out of a socket.
func receiveMaster(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 4096), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	var fds []int
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) == 1 {
		return fds[0], nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return -1, fmt.Errorf("%d descriptors came: %w", len(fds), unix.EBADMSG)
}

// SetSize sets the size of the terminal whose master is given; its programs get SIGWINCH if
// it changes.
func SetSize(master *os.File, rows, columns uint16) error {
	return control(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// Size is the terminal's size.
func Size(master *os.File) (rows, columns uint16, err error) {
	err = control(master, func(fd int) error {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			rows, columns = w.Row, w.Col
		}
		return err
	})
	return rows, columns, err
}

// control leaves the file's way of waiting alone, which File.Fd may change.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	if err := raw.Control(func(fd uintptr) { derr = do(int(fd)) }); err != nil {
		return err
	}
	return derr
}
