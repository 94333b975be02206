package apiserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// duplex is a connection that has become frames in both directions.
type duplex struct {
	conn net.Conn
	in   *bufio.Reader
	out  *streamWriter
	gone context.Context // ends when the caller has gone, or left
	left context.CancelCauseFunc

	ready chan struct{} // closed when to is there
	to    sink
}

// wantsDuplex tells whether the caller wants to send input too.
func wantsDuplex(r *http.Request) bool { return r.Header.Get("Upgrade") == api.Upgrade }

// upgrade takes the connection over. From here on errors are control frames. The
// caller closes it; the end of the server does too.
func (s *Server) upgrade(w http.ResponseWriter) (*duplex, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	d := &duplex{conn: conn, in: bufio.NewReaderSize(buffered.Reader, 64<<10), out: newStream(&rawAnswer{Conn: conn}, framesType)}
	d.gone, d.left = context.WithCancelCause(s.ctx)
	d.ready = make(chan struct{})
	s.upgraded.Add(1)
	if a, ok := w.(*answer); ok {
		a.began.Store(true)
	}
	d.out.open()
	s.upgraded.Go(d.receive)
	return d, nil
}

// connect says where the caller's input goes; until then it waits.
func (d *duplex) connect(to sink) {
	d.to = to
	close(d.ready)
}

// close sends what there is to send and ends the connection.
func (s *Server) closeDuplex(d *duplex) {
	stop := context.AfterFunc(s.ctx, func() { _ = d.conn.SetWriteDeadline(time.Now().Add(shutdownWait)) })
	d.out.close()
	stop()
	d.left(nil)
	_ = d.conn.Close()
	s.upgraded.Done()
}

// rawAnswer makes a connection what streamWriter writes to: its header is the
// change of protocols.
type rawAnswer struct {
	net.Conn
	header http.Header
}

func (a *rawAnswer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

func (a *rawAnswer) WriteHeader(int) {
	_, _ = io.WriteString(a.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+api.Upgrade+"\r\n\r\n")
}

func (a *rawAnswer) FlushError() error { return nil }

// errLeft: the caller has left on purpose.
var errLeft = errors.New("left")

// sink is where a caller's input goes.
type sink struct {
	file   *os.File // a pipe, or a terminal's master; nil: input is dropped
	end    func()   // the input has ended; for a terminal it never does
	resize func(api.Size)
	signal func(string)
}

// receive reads the caller's frames until it goes: it then ends d.gone. The input ends with the
// caller, unless it has left on purpose.
func (d *duplex) receive() {
	var buf []byte
	for {
		typ, p, err := api.ReadFrame(d.in, buf)
		if err != nil {
			if d.gone.Err() == nil { // else it is we who end, and the input goes on
				d.left(err)
				d.end()
			}
			return
		}
		if cap(p) > cap(buf) {
			buf = p[:cap(p)]
		}
		switch typ {
		case api.FrameStdin:
			if d.connected() {
				d.input(p)
			}
		case api.FrameControl:
			var m api.Control
			if json.Unmarshal(p, &m) != nil {
				continue
			}
			if m.Detach {
				d.left(errLeft)
				return
			}
			if d.connected() {
				d.word(m)
			}
		}
	}
}

// connected waits until it is known where input goes; false: it never will be.
func (d *duplex) connected() bool {
	select {
	case <-d.ready:
		return true
	case <-d.gone.Done():
	}
	select {
	case <-d.ready: // the caller's last words count
		return true
	default:
		return false
	}
}

func (d *duplex) input(p []byte) {
	if len(p) == 0 {
		d.end()
		return
	}
	if d.to.file == nil {
		return
	}
	if _, err := d.to.file.Write(p); err != nil {
		d.to.file = nil // nobody reads it any more: what comes is dropped
	}
}

// end ends the input, once.
func (d *duplex) end() {
	if d.connected() && d.to.end != nil {
		d.to.end()
		d.to.end, d.to.file = nil, nil
	}
}

func (d *duplex) word(m api.Control) {
	switch {
	case m.Resize != nil && d.to.resize != nil:
		d.to.resize(*m.Resize)
	case m.Signal != "" && d.to.signal != nil:
		d.to.signal(m.Signal)
	}
}

// hasLeft tells whether the caller has left on purpose.
func (d *duplex) hasLeft() bool { return errors.Is(context.Cause(d.gone), errLeft) }

// resizer sets the size of a terminal.
func resizer(master *os.File) func(api.Size) {
	return func(size api.Size) { _ = runtime.SetSize(master, size.Rows, size.Columns) } // it has just ended
}

// copyMaster sends what comes out of a terminal until nobody has it open any more, or its read
// deadline. What cannot be sent is dropped: the process does not wait for a caller that has gone.
func copyMaster(master *os.File, out *streamWriter) {
	buf := make([]byte, 32<<10)
	for {
		n, err := master.Read(buf)
		if n > 0 {
			_ = out.frame(api.FrameStdout, buf[:n])
		}
		if err != nil {
			break
		}
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for range 64 { // no terminal holds more
			n, err := unix.Read(int(fd), buf)
			if err != nil || n <= 0 {
				return
			}
			_ = out.frame(api.FrameStdout, buf[:n])
		}
	})
}
