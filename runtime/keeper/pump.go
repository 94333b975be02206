package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

var streamNames = [2]string{"stdout", "stderr"}

// pipeSize is what a container may write while nobody reads. The kernel gives
// out pages only as they fill.
const pipeSize = 1 << 20

// pieceSize is how much is copied at once: also what may stand in the log
// twice if the keeper is killed between the write and the discard.
const pieceSize = 64 << 10

// pump copies a container's two output pipes into its log. The container holds
// the pipes open for reading too, so there is no end of file: stop says when
// nothing more can come.
type pump struct {
	pipes  [2]*os.File
	master *os.File      // of a terminal, see tty.go; nil: none
	ending chan struct{} // closed by stop
	wg     sync.WaitGroup

	mu      sync.Mutex // both streams write to one file
	log     *output    // nil: the output is dropped
	queue   *queue     // nil: the container waits for the disk
	over    bool       // stopped, or about to be
	resting bool       // by rest
}

// makePipes makes the named pipes of container id.
func makePipes(l bundle.Layout, id string) error {
	for _, s := range streamNames {
		path := l.Pipe(id, s)
		os.Remove(path)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("pipe %s: %w", s, err)
		}
	}
	return nil
}

func removePipes(l bundle.Layout, id string) {
	for _, s := range streamNames {
		os.Remove(l.Pipe(id, s))
	}
	os.Remove(l.Pipe(id, stdinName))
}

// openPipe opens a named pipe for both directions: it then never blocks the
// open, never signals an end, never raises SIGPIPE.
func openPipe(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize) // as far as the host allows
	return os.NewFile(uintptr(fd), path), nil
}

// startPump opens the pipes of container id and begins to copy to the log.
func startPump(l bundle.Layout, id string, log *output, c runtime.LogConfig) (*pump, error) {
	p := &pump{log: log, ending: make(chan struct{})}
	for i, s := range streamNames {
		f, err := openPipe(l.Pipe(id, s), unix.O_NONBLOCK)
		if err != nil {
			p.closePipes()
			return nil, err
		}
		p.pipes[i] = f
	}
	if log != nil && c.NonBlocking {
		p.queue = newQueue(log, c.Buffer)
	}
	for i := range p.pipes {
		p.wg.Go(func() { p.copy(p.pipes[i], streamNames[i]) })
	}
	return p, nil
}

func (p *pump) closePipes() {
	for _, f := range p.pipes {
		if f != nil {
			f.Close()
		}
	}
}

// stop copies what is still in the pipes and ends. Nobody should be left who
// could write; if a container has handed its pipe to another one, what that
// one writes from now on is nobody's output, and holds up nothing.
func (p *pump) stop() {
	p.mu.Lock()
	resting := p.resting
	p.over = true
	p.mu.Unlock()
	if resting {
		select {} // see rest
	}
	p.finish()
}

func (p *pump) finish() {
	p.stopTerminal()
	for _, f := range p.pipes {
		f.SetReadDeadline(time.Unix(1, 0))
	}
	p.wg.Wait()
	p.closePipes()
	if p.queue != nil {
		p.queue.close()
	}
	if p.log != nil {
		p.log.close()
	}
}

// copy moves pieces until stop, waiting in the network poller.
func (p *pump) copy(f *os.File, stream string) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		var derr error
		err := raw.Read(func(fd uintptr) bool {
			var more bool
			more, derr = p.drain(int(fd), stream, pipeSize)
			return more || derr != nil
		})
		if err != nil {
			break // stop
		}
		if derr != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors or memory: it passes, and the bytes stay in the pipe
		}
	}
	raw.Control(func(fd uintptr) {
		if waiting, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			p.drain(int(fd), stream, waiting)
		}
	})
}

// drain copies until the pipe is empty or limit bytes are copied: a container
// that never stops writing must not keep us from looking whether to stop.
func (p *pump) drain(fd int, stream string, limit int) (more bool, err error) {
	var s *scratch
	for copied := 0; copied < limit; {
		waiting, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != nil || waiting == 0 {
			return false, err
		}
		if s == nil {
			if s, err = getScratch(); err != nil {
				return false, err
			}
			defer s.put()
		}
		n, err := p.piece(fd, stream, s)
		if err != nil {
			s.broken = true
			return false, err
		}
		copied += n
	}
	return true, nil
}

// piece copies one piece: tee, write the record, then discard the same bytes.
// Between the kernel's pipe and the log file there is no moment at which a
// kill of the keeper loses anything.
func (p *pump) piece(fd int, stream string, s *scratch) (int, error) {
	n, err := retry(func() (int64, error) { return unix.Tee(fd, s.w, pieceSize, unix.SPLICE_F_NONBLOCK) })
	if err != nil || n == 0 {
		return 0, err
	}
	for got := 0; got < int(n); {
		r, err := retry(func() (int64, error) {
			m, err := unix.Read(s.r, s.buf[got:n])
			return int64(m), err
		})
		if err != nil {
			return 0, err
		}
		got += int(r)
	}
	p.write(stream, s.buf[:n])
	for left := n; left > 0; {
		m, err := retry(func() (int64, error) { return unix.Splice(fd, nil, s.null, nil, int(left), unix.SPLICE_F_NONBLOCK) })
		if err != nil {
			return 0, err
		}
		left -= m
	}
	return int(n), nil
}

// write gives a piece to the log. It takes as long as the disk does, unless
// there is a queue.
func (p *pump) write(stream string, b []byte) {
	if p.queue != nil {
		p.queue.put(stream, time.Now(), b)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log != nil {
		p.log.write(stream, time.Now(), b)
	}
}

func retry(f func() (int64, error)) (int64, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// scratch is what copying a piece takes. It is borrowed only while there is
// something to copy, so that idle containers cost none.
type scratch struct {
	r, w, null int
	buf        []byte
	broken     bool // a failure may have left bytes in it
}

// spareScratch keeps a few for the next piece.
var spareScratch = make(chan *scratch, 2)

func getScratch() (*scratch, error) {
	select {
	case s := <-spareScratch:
		return s, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, err
	}
	return &scratch{r: fds[0], w: fds[1], null: null, buf: make([]byte, pieceSize)}, nil
}

func (s *scratch) put() {
	if !s.broken {
		select {
		case spareScratch <- s:
			return
		default:
		}
	}
	s.close()
}

func (s *scratch) close() {
	unix.Close(s.r)
	unix.Close(s.w)
	unix.Close(s.null)
}

// dropScratch frees the spare ones, after a burst.
func dropScratch() {
	for {
		select {
		case s := <-spareScratch:
			s.close()
		default:
			return
		}
	}
}
