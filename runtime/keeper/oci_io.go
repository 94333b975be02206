package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// ociIO connects a process that we wait for with our own stdio, by pipes or by
// a terminal of its own. It never gets ours: a container must not reach its caller's
// terminal.
type ociIO struct {
	theirs  []*os.File // ends that the process has; ours to close once it does
	copies  sync.WaitGroup
	ended   chan struct{}
	socket  *os.File
	master  console.Console
	outside console.Console // the terminal that we were called from
}

func (c *ociIO) pipes(p *libcontainer.Process, conf *configs.Config) error {
	uid, err := conf.HostRootUID()
	if err != nil {
		return err
	}
	gid, err := conf.HostRootGID()
	if err != nil {
		return err
	}
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err != nil {
			return nil, nil, err
		}
		for _, f := range []*os.File{r, w} {
			if err == nil && (uid != 0 || gid != 0) {
				err = f.Chown(uid, gid) // it may be opened again by /dev/stdout
			}
		}
		return r, w, err
	}
	in, inW, err := pipe()
	if err != nil {
		return err
	}
	outR, out, err := pipe()
	if err != nil {
		return err
	}
	errR, errW, err := pipe()
	if err != nil {
		return err
	}
	c.theirs = []*os.File{in, out, errW}
	p.Stdin, p.Stdout, p.Stderr = in, out, errW
	go func() {
		io.Copy(inW, os.Stdin)
		inW.Close()
	}()
	c.copies.Go(func() { io.Copy(os.Stdout, outR) })
	c.copies.Go(func() { io.Copy(os.Stderr, errR) })
	return nil
}

// terminal asks libcontainer for a terminal inside, whose master it will send.
func (c *ociIO) terminal(p *libcontainer.Process) error {
	if err := c.findOutside(); err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.socket = os.NewFile(uintptr(pair[0]), "console")
	p.ConsoleSocket = os.NewFile(uintptr(pair[1]), "console")
	c.theirs = []*os.File{p.ConsoleSocket}
	return nil
}

// findOutside finds the terminal that we were called from: any of our stdio may
// be redirected.
func (c *ociIO) findOutside() error {
	for _, f := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		if t, err := console.ConsoleFromFile(f); err == nil {
			c.outside = t
			return nil
		}
	}
	f, err := os.Open("/dev/tty")
	if err != nil {
		return fmt.Errorf("terminal: there is none to connect to: %w", err)
	}
	c.outside, err = console.ConsoleFromFile(f)
	return err
}

// started is called once the process exists and has its ends.
func (c *ociIO) started() error {
	for _, f := range c.theirs {
		f.Close()
	}
	c.theirs = nil
	if c.socket == nil {
		return nil
	}
	f, err := receiveFile(c.socket)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if c.master, err = console.ConsoleFromFile(f); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	// The terminal outside adds carriage returns already.
	if err := console.ClearONLCR(f.Fd()); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	c.resize()
	if err := c.outside.SetRaw(); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	c.ended = make(chan struct{})
	go io.Copy(f, os.Stdin)
	c.copies.Go(func() { c.copyMaster(f) })
	return nil
}

// copyMaster copies output until the process has ended and nothing is left. While
// nobody inside has the terminal open a read fails, but somebody may open it again.
func (c *ociIO) copyMaster(f *os.File) {
	for {
		n, err := io.Copy(os.Stdout, f)
		if !errors.Is(err, unix.EIO) {
			return
		}
		select {
		case <-c.ended:
			if n == 0 {
				return
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (c *ociIO) resize() {
	if c.master != nil && c.outside != nil {
		c.master.ResizeFrom(c.outside) // without effect if the terminal is gone
	}
}

// finish waits until all output of the ended process is out.
func (c *ociIO) finish() {
	if c.ended != nil {
		close(c.ended)
	}
	c.copies.Wait()
}

func (c *ociIO) close() {
	for _, f := range c.theirs {
		f.Close()
	}
	if c.socket != nil {
		c.socket.Close()
	}
	if c.master != nil {
		c.outside.Reset()
	}
}

// receiveFile takes one descriptor from a socket.
func receiveFile(s *os.File) (*os.File, error) {
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(s.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, errors.New("no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
