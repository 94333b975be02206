package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// A container's terminal is made inside it, in its own devpts, and its other
// side, the master, is sent out to us over a socket. We hold the master and copy what
// comes out of it to the log. Whoever attaches gets a duplicate, to write to and to
// set its size, and reads the log: only we ever read the master.

// newConsole makes the socket that a terminal's master comes over: our end and
// the one for libcontainer.
func newConsole() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("console socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveMaster takes the master that stands in the socket. It does not wait: the
// process that has sent it has gone on since.
func receiveMaster(socket *os.File) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 4096), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("terminal: %d descriptors came, %w", len(fds), errors.Join(err, unix.EBADMSG))
	}
	return masterFile(fds[0])
}

// masterFile is a master that waits in the network poller.
func masterFile(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// terminal begins to copy what comes out of a terminal.
func (p *pump) terminal(master *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ending:
		return
	default:
	}
	p.master = master
	p.wg.Go(func() { p.copyTerminal(master) })
}

// stopTerminal begins the end of copyTerminal.
func (p *pump) stopTerminal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.ending)
	if p.master != nil {
		p.master.SetReadDeadline(time.Unix(1, 0))
	}
}

// ttyBuffers are borrowed while there is something to copy: an idle terminal costs none.
var ttyBuffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// ttyPause is how long a terminal is left alone that nobody has open any more: somebody may open it again.
const ttyPause = 100 * time.Millisecond

// copyTerminal moves what comes out of a terminal into the log until stop, and
// then what is still there. Unlike with a pipe, what is between our read and our
// write is lost if we are killed there.
func (p *pump) copyTerminal(master *os.File) {
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	for {
		var state error
		err := raw.Read(func(fd uintptr) bool {
			state = p.drainTerminal(int(fd), maxTerminal)
			return !errors.Is(state, unix.EAGAIN)
		})
		if err != nil {
			break // stop
		}
		if state != nil {
			if !p.pauseTerminal(master) {
				break
			}
		}
	}
	raw.Control(func(fd uintptr) { p.drainTerminal(int(fd), maxTerminal) })
}

// maxTerminal is how much is copied before a look at whether to stop. No terminal holds as much.
const maxTerminal = 1 << 20

// pauseTerminal waits a moment; false: stop. The poller would say at once that a terminal is
// ready which only gives errors.
func (p *pump) pauseTerminal(master *os.File) bool {
	select {
	case <-p.ending:
		return false
	case <-time.After(ttyPause):
		return true
	}
}

// drainTerminal copies until there is nothing, EAGAIN, until nobody has the terminal open, EIO, or
// until limit, nil.
func (p *pump) drainTerminal(fd, limit int) error {
	buf := ttyBuffers.Get().(*[]byte)
	defer ttyBuffers.Put(buf)
	for copied := 0; copied < limit; {
		n, err := unix.Read(fd, *buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.EIO
		}
		p.write("stdout", (*buf)[:n])
		copied += n
	}
	return nil
}

// attach returns the container's side of its input.
func (k *Keeper) attach(id string) (*os.File, error) {
	c, err := k.running(id)
	if err != nil {
		return nil, err
	}
	st := c.snapshot()
	var f *os.File
	switch {
	case st.Terminal:
		f, err = k.terminalOf(c)
	case !st.Input:
		err = fmt.Errorf("%w: it was started without", runtime.ErrNoInput)
	case st.InputClosed:
		err = fmt.Errorf("%w: it has been closed", runtime.ErrNoInput)
	default:
		f, err = openInput(k.layout, id)
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	return f, nil
}

// terminalOf duplicates the master.
func (k *Keeper) terminalOf(c *container) (*os.File, error) {
	master := c.heldMaster()
	if master == nil { // it is on its way back to us
		k.awaitTerminal(c, attachPatience)
		master = c.heldMaster()
	}
	if master == nil {
		return nil, fmt.Errorf("%w: its terminal was lost with an earlier keeper", runtime.ErrNoInput)
	}
	fd, err := dupOf(master)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

func (c *container) heldMaster() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.master
}

// openIO prepares the launch's input: the pipe of its stdin, or the socket that its terminal comes over.
func (l *launch) openIO() error {
	switch {
	case l.cfg.Spec.Process.Terminal:
		ours, theirs, err := newConsole()
		if err != nil {
			return err
		}
		l.console, _ = l.keep(ours, nil)
		l.inside, _ = l.keep(theirs, nil)
	case l.cfg.Stdin:
		r, w, err := makeInput(l.k.layout, l.cfg.ID())
		if err != nil {
			return err
		}
		l.stdin, _ = l.keep(r, nil)
		if l.cfg.Init {
			l.keep(w, nil)
			l.job.input = l.job.add(w)
			return nil
		}
		l.c.input = w // nobody in the container holds it
		return l.k.heirlooms.keep(heirStdin, l.cfg.ID(), w)
	}
	return nil
}

// giveIO gives the container's first process its stdin, stdout and stderr.
func (l *launch) giveIO(p *libcontainer.Process) {
	if l.inside != nil {
		p.ConsoleSocket, p.ConsoleHeight, p.ConsoleWidth = l.inside, l.cfg.Rows, l.cfg.Columns
		return
	}
	if l.stdin != nil {
		p.Stdin = l.stdin // not nil: a nil *os.File in an interface would be something
	}
	p.Stdout, p.Stderr = l.stdio[0], l.stdio[1]
}

// takeTerminal holds the terminal that the container has made, and copies what comes out of it.
func (l *launch) takeTerminal() error {
	if l.console == nil {
		return nil
	}
	master, err := receiveMaster(l.console)
	if err != nil {
		return err
	}
	l.k.holdTerminal(l.c, master)
	return l.k.heirlooms.keep(heirTTY, l.cfg.ID(), master)
}

// holdTerminal makes the master the container's, and begins to copy: whoever sees that it is there may stop that.
func (k *Keeper) holdTerminal(c *container, master *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.master != nil {
		master.Close() // it came twice
		return
	}
	c.master = master
	if c.pump != nil {
		c.pump.terminal(master)
	}
}

// How long a new keeper waits for what others hold for it: while the container runs, once it has ended, and when
// somebody wants it.
const (
	masterPatience = time.Minute
	lastPatience   = 2 * time.Second
	attachPatience = 5 * time.Second
)

// adoptIO takes back the container's terminal, or the writing end of its input.
func (k *Keeper) adoptIO(c *container) {
	st := &c.st
	switch {
	case st.Terminal:
		if f := k.heirlooms.take(heirTTY, st.ID); f != nil {
			k.adoptTerminal(c, f)
			return
		}
		go k.awaitTerminal(c, masterPatience)
	case st.Input && st.InputClosed && c.proc != nil: // the keeper before us may have died before it could do it
		if err := k.dropInput(c, st); err != nil {
			k.logger.Warn("a container's input may stay open", "container", st.ID, "err", err)
		}
	case st.Input && !st.Init:
		c.input = k.heirlooms.take(heirStdin, st.ID)
	}
}

// awaitTerminal waits until somebody brings the container's terminal back. Until
// then whoever holds it keeps it from hanging up, and what it writes waits.
func (k *Keeper) awaitTerminal(c *container, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id := c.snapshot().ID
	go func() {
		select {
		case <-c.settled:
			cancel()
		case <-ctx.Done():
		}
	}()
	f := k.heirlooms.await(ctx, heirTTY, id)
	switch {
	case f != nil:
		k.adoptTerminal(c, f)
	case c.snapshot().State == runtime.Running:
		k.logger.Error("a container's terminal is lost", "container", id)
	}
}

func (k *Keeper) adoptTerminal(c *container, f *os.File) {
	fd, err := dupOf(f)
	f.Close()
	if err != nil {
		k.logger.Error("cannot hold a container's terminal", "container", c.snapshot().ID, "err", err)
		return
	}
	master, err := masterFile(fd)
	if err != nil {
		k.logger.Error("cannot hold a container's terminal", "container", c.snapshot().ID, "err", err)
		return
	}
	k.holdTerminal(c, master)
}

// lastOutput sees to it that what an ended container wrote to its terminal can still be read.
func (k *Keeper) lastOutput(c *container, st *state) {
	c.mu.Lock()
	missing := st.Terminal && c.master == nil
	c.mu.Unlock()
	if missing && !st.Drained {
		k.awaitTerminal(c, lastPatience)
	}
}

// closeIO lets go of an ended container's input.
func (c *container) closeIO() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range []**os.File{&c.master, &c.input} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}
