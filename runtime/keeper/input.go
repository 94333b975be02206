package keeper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// stdinName is the name of the pipe that a container's input comes through.
const stdinName = "stdin"

// makeInput makes the pipe of a container's stdin: the end to read, and the end to write.
func makeInput(l bundle.Layout, id string) (r, w *os.File, err error) {
	path := l.Pipe(id, stdinName)
	os.Remove(path)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, nil, fmt.Errorf("pipe %s: %w", stdinName, err)
	}
	// Without O_NONBLOCK this would wait for a writer.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("pipe %s: %w", stdinName, err)
	}
	r = os.NewFile(uintptr(fd), path)
	unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, pipeSize) // as far as the host allows
	if w, err = openInput(l, id); err != nil {
		r.Close()
		return nil, nil, err
	}
	return r, w, nil
}

// openInput opens the end to write. There is none if nobody reads it any more.
func openInput(l bundle.Layout, id string) (*os.File, error) {
	path := l.Pipe(id, stdinName)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: it does not read it any more", runtime.ErrNoInput)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// closeStdin ends the container's input, once and for all.
func (k *Keeper) closeStdin(id string) error {
	c, err := k.running(id)
	if err != nil {
		return err
	}
	st := c.snapshot()
	if st.Terminal || !st.Input {
		return fmt.Errorf("container %s: %w: it has none to close", id, runtime.ErrNoInput)
	}
	if err := k.update(c, func(st *state) { st.InputClosed = true }); err != nil {
		return err
	}
	if err := k.reach(atInputKept, c); err != nil {
		return err
	}
	if err := k.dropInput(c, &st); err != nil {
		return fmt.Errorf("container %s: close stdin: %w", id, err)
	}
	return nil
}

// dropInput has everybody of ours let go of the pipe's writing end.
func (k *Keeper) dropInput(c *container, st *state) error {
	c.mu.Lock()
	if c.input != nil {
		c.input.Close()
		c.input = nil
	}
	c.mu.Unlock()
	k.heirlooms.drop(heirStdin, st.ID)
	if !st.Init {
		return nil
	}
	if err := tellInputClosed(k.layout.Record(st.ID)); err != nil {
		return err
	}
	// The init looks at every signal; this one it keeps for itself.
	if err := c.proc.signal(unix.SIGCHLD); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// tellInputClosed writes the word that the init looks for, see struct wherry_record in init.h.
func tellInputClosed(record string) error {
	f, err := os.OpenFile(record, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{1, 1, 1, 1}, recordSize)
	return err
}
