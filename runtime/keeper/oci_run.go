package keeper

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// ociRun is what create, run and exec do alike around a process: its
// descriptors, its terminal, its end.
type ociRun struct {
	consoleSocket string
	pidfdSocket   string
	pidFile       string
	detach        bool
	noSubreaper   bool
	preserve      int

	io   ociIO
	open []*os.File // to close on every way out
}

func (r *ociRun) flags(fs *flag.FlagSet) {
	fs.StringVar(&r.consoleSocket, "console-socket", "", "Unix socket that takes the terminal's master")
	fs.StringVar(&r.pidfdSocket, "pidfd-socket", "", "Unix socket that takes a pidfd of the process")
	fs.StringVar(&r.pidFile, "pid-file", "", "file to write the process id to")
	fs.IntVar(&r.preserve, "preserve-fds", 0, "number of further descriptors to pass on, from 3")
}

func (r *ociRun) check(terminal bool) error {
	switch {
	case r.detach && terminal && r.consoleSocket == "":
		return errors.New("cannot allocate tty if runc will detach without setting console socket")
	case r.consoleSocket != "" && !(r.detach && terminal):
		return errors.New("cannot use console socket if runc will not detach or allocate tty")
	case r.preserve < 0:
		return errors.New("--preserve-fds: less than none")
	}
	return nil
}

func (r *ociRun) keepOpen(f *os.File, err error) (*os.File, error) {
	if f != nil {
		r.open = append(r.open, f)
	}
	return f, err
}

func (r *ociRun) close() {
	for _, f := range r.open {
		f.Close()
	}
	r.open = nil
	r.io.close()
}

// passFiles gives the process the sockets of an activation, and then what --preserve-fds asks for.
func (r *ociRun) passFiles(p *libcontainer.Process, sockets []*os.File) error {
	if n := len(sockets); n > 0 {
		p.Env = append(p.Env[:len(p.Env):len(p.Env)], "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
		p.ExtraFiles = append(p.ExtraFiles, sockets...)
	}
	base := 3 + len(sockets)
	for fd := base; fd < base+r.preserve; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("--preserve-fds: descriptor %d: %w", fd, err)
		}
		unix.CloseOnExec(fd)
		p.ExtraFiles = append(p.ExtraFiles, os.NewFile(uintptr(fd), "preserved"))
	}
	return nil
}

// connect gives the process its stdio and the sockets that others wait at.
func (r *ociRun) connect(p *libcontainer.Process, conf *configs.Config, terminal bool) error {
	if r.pidfdSocket != "" {
		s, err := r.keepOpen(dialUnix(r.pidfdSocket))
		if err != nil {
			return fmt.Errorf("--pidfd-socket: %w", err)
		}
		p.PidfdSocket = s
	}
	switch {
	case terminal && r.detach:
		s, err := r.keepOpen(dialUnix(r.consoleSocket))
		if err != nil {
			return fmt.Errorf("--console-socket: %w", err)
		}
		p.ConsoleSocket = s
		return nil
	case terminal:
		return r.io.terminal(p)
	case r.detach:
		p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
		return nil
	}
	return r.io.pipes(p, conf)
}

// dialUnix connects to a stream socket; such paths may be longer than an address holds.
func dialUnix(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	addr := path
	if len(path) > 107 {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		defer dir.Close()
		addr = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: addr}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// received completes the stdio once the process exists.
func (r *ociRun) received() error { return r.io.started() }

// writePidFile writes the file in one step: its reader may wait for it.
func (r *ociRun) writePidFile(pid int) error {
	if r.pidFile == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(r.pidFile), "."+filepath.Base(r.pidFile))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o666); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	return os.Rename(tmp, r.pidFile)
}

// terminate ends a process that was started but cannot go on.
func (r *ociRun) terminate(p *libcontainer.Process) {
	if p.Signal(unix.SIGKILL) == nil {
		p.Wait()
	}
}

// listen makes us hear of signals, from before the process exists. A detached
// process's signals are not ours.
func (r *ociRun) listen() chan os.Signal {
	if r.detach {
		return nil
	}
	if !r.noSubreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			logrus.Warnf("subreaper: %v", err)
		}
	}
	c := make(chan os.Signal, 512)
	signal.Notify(c)
	return c
}

// follow waits for the process's end, passing on signals. The result is its
// code, 128+n for signal n. A detached process is left alone.
func (r *ociRun) follow(p *libcontainer.Process, signals chan os.Signal, n *notifyRelay) (int, error) {
	pid, err := p.Pid()
	if err != nil {
		return 0, err
	}
	if r.detach {
		return 0, n.relay(pid, pid)
	}
	go n.relay(os.Getpid(), pid)
	r.io.resize()
	for {
		// What ended before the first signal counts as well.
		if code, ended := reapAll(pid); ended {
			p.Wait()
			r.io.finish()
			return code, nil
		}
		switch s := <-signals; s {
		case unix.SIGCHLD, unix.SIGURG: // SIGURG is Go's own
		case unix.SIGWINCH:
			r.io.resize()
		default:
			if err := unix.Kill(pid, s.(unix.Signal)); err != nil {
				logrus.Warnf("signal %v: %v", s, err)
			}
		}
	}
}

// reapAll reaps every ended child: as subreaper we get orphans too. It says
// whether pid was among them.
func reapAll(pid int) (code int, ended bool) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || got <= 0 {
			return code, ended
		}
		if got == pid {
			code, ended = utils.ExitStatus(ws), true
		}
	}
}
