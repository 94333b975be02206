package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// process is a process held by a descriptor, so that its number cannot come to
// mean another one.
type process struct {
	pid  int
	file *os.File // pidfd, waits in the network poller
}

// openProcess opens pid. The caller makes sure that pid is the right one: as
// its parent, or by comparing start times afterwards.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (p *process) close() { p.file.Close() }

// wait blocks until the process has ended. It does not reap.
func (p *process) wait(ctx context.Context) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
	if err != nil && ctx.Err() != nil {
		p.file.SetReadDeadline(time.Time{})
		return ctx.Err()
	}
	return err
}

// readable asks without waiting; a pidfd is readable once its process ended.
func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

// signal sends sig to the process itself.
func (p *process) signal(sig unix.Signal) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return serr
}

// reap takes the status of an ended process if it is our child.
func (p *process) reap() (unix.WaitStatus, bool) {
	var ws unix.WaitStatus
	for {
		pid, err := unix.Wait4(p.pid, &ws, unix.WNOHANG|unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return ws, err == nil && pid == p.pid
	}
}

// pidfdInfo is the kernel's struct pidfd_info in its first published size.
type pidfdInfo struct {
	Mask     uint64
	Cgroupid uint64
	Pid      uint32
	Tgid     uint32
	Ppid     uint32
	IDs      [8]uint32
	ExitCode int32
}

const (
	pidfdGetInfo  = 0xc000ff0b | unsafe.Sizeof(pidfdInfo{})<<16 // _IOWR(0xFF, 11, struct pidfd_info)
	pidfdInfoExit = 1 << 3
)

// info asks the kernel how the process ended (Linux 6.15 and newer; older ones
// answer ENOTTY or EINVAL). It is known only after somebody has reaped it.
func (p *process) info() (unix.WaitStatus, bool) {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return 0, false
	}
	info := pidfdInfo{Mask: pidfdInfoExit}
	ok := false
	raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(pidfdGetInfo), uintptr(unsafe.Pointer(&info)))
		ok = errno == 0 && info.Mask&pidfdInfoExit != 0
	})
	return unix.WaitStatus(info.ExitCode), ok
}
