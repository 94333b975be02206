package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Execer runs further processes in running instances.
type Execer interface {
	Exec(ctx context.Context, r api.ExecRequest, by string, stdin, stdout, stderr *os.File) (api.Exit, error)
	// ExecConsole runs it on a terminal, whose master is sent on console.
	ExecConsole(ctx context.Context, r api.ExecRequest, by string, console *os.File) (api.Exit, error)
}

// postExec runs a process and sends its output, then its exit. What the
// process wrote before its end is sent; what its children write later is not.
func (s *Server) postExec(w http.ResponseWriter, r *http.Request) error {
	var req api.ExecRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if len(req.Args) == 0 {
		return fmt.Errorf("%w: no command", errBody)
	}
	target, err := s.target(req.Target)
	if err != nil {
		return err
	}
	req.Target = target
	by := peerOf(r.Context()).String()
	if wantsDuplex(r) {
		return s.execStream(w, req, by)
	}
	if req.Stdin || req.TTY {
		return fmt.Errorf("%w: input and a terminal need an upgraded connection", errBody)
	}

	out := newStream(w, framesType)
	defer out.close()
	stdout, err := newOutput(api.FrameStdout, out)
	if err != nil {
		return err
	}
	stderr, err := newOutput(api.FrameStderr, out)
	if err != nil {
		stdout.finish()
		return err
	}
	// The process outlives a caller that goes away, as it does a daemon that
	// dies; only the server's end stops the waiting for it.
	exit, err := s.Backend.Exec(s.ctx, req, by, nil, stdout.write, stderr.write)
	stdout.finish()
	stderr.finish()
	switch {
	case err == nil:
		return out.control(api.Control{Exit: &exit})
	case began(w):
		return out.control(api.Control{Error: toAPI(s.explain(err))})
	}
	return s.explain(err)
}

// output is a pipe whose bytes become frames.
type output struct {
	write *os.File // for the process
	read  *os.File
	typ   byte
	to    *streamWriter
	done  sync.WaitGroup
}

func newOutput(typ byte, to *streamWriter) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("output pipe: %w", err)
	}
	o := &output{write: w, read: r, typ: typ, to: to}
	o.done.Go(o.copy)
	return o, nil
}

// finish is called once the process has ended: it waits until all that is in
// the pipe is sent. Somebody may hold the pipe open, such as a child in the
// background; it is not waited for.
func (o *output) finish() {
	_ = o.write.Close()
	_ = o.read.SetReadDeadline(time.Now())
	o.done.Wait()
}

// copy sends until the pipe's end. After the deadline of finish it sends only
// what is already there. A caller that has gone closes the pipe.
func (o *output) copy() {
	defer o.read.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := o.read.Read(buf)
		if n > 0 && o.to.frame(o.typ, buf[:n]) != nil {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if o.buffered() == 0 {
				return
			}
			// Reading fails at once behind a deadline, even if bytes are there.
			_ = o.read.SetReadDeadline(time.Time{})
			n, err = o.read.Read(buf)
			_ = o.read.SetReadDeadline(time.Now())
			if n > 0 && o.to.frame(o.typ, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// buffered is how many bytes are in the pipe.
func (o *output) buffered() (n int) {
	raw, err := o.read.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
