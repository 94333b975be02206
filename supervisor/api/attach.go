package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// Upgrade is the protocol that a call of exec, run or attach asks for in its Upgrade
// header, to send input too: frames in both directions (frame.go). Without it exec and
// run answer with a stream of output alone.
const Upgrade = "wherry-frames"

// AttachRequest connects to a running container: what it writes from now on, or a little
// earlier, and its input. POST /v1/attach, upgraded. The first frame is a control frame with Attached.
// Any number may be attached to one container, and none of them slows it down.
type AttachRequest struct {
	Target  string `json:"target"`             // see SplitTarget
	NoStdin bool   `json:"no_stdin,omitempty"` // output alone
	Tail    int    `json:"tail,omitempty"`     // begin with the last n lines
	Size    *Size  `json:"size,omitempty"`     // of the caller's terminal
	Ask     bool   `json:"-"`                  // only to know what there is: no event
	Wait    bool   `json:"-"`                  // until it runs, unless it has ended for good
}

// Attached says what a stream is connected to.
type Attached struct {
	Unit      string `json:"unit"`
	Instance  string `json:"instance"`
	Container string `json:"container"`
	Run       string `json:"run"`
	TTY       bool   `json:"tty,omitempty"`   // it has a terminal
	Stdin     bool   `json:"stdin,omitempty"` // it takes input
	Once      bool   `json:"once,omitempty"`  // its input ends with that of the first who is attached
}

// Size is a terminal's size in characters.
type Size struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// ErrDetached says that the caller has left a stream; the other side goes on. A
// reader that is a stream's Stdin leaves the stream by returning it.
var ErrDetached = errors.New("detached")

// Input is what a caller sends. The reader of Stdin is left to itself when the
// stream ends, possibly in the middle of a Read.
type Input struct {
	Stdin  io.Reader     // nil: none. At its end the other side reads the end of its input
	Resize <-chan Size   // of the caller's terminal
	Signal <-chan string // for the main process, "SIGINT"
}

// Output says where a stream's output goes; nil is nowhere. With a terminal all of it is stdout.
type Output struct{ Stdout, Stderr io.Writer }

// ExecStream is Exec with input; see ExecRequest's Stdin, TTY and Size. When ctx ends,
// or the connection does, a process on a terminal is hung up; any other goes on.
func (c *Client) ExecStream(ctx context.Context, r ExecRequest, in Input, out Output) (Exit, error) {
	s, err := c.duplex(ctx, "/exec", r)
	if err != nil {
		return Exit{}, err
	}
	var exit Exit
	err = s.run(in, out, started, func(m Control) bool {
		if m.Exit != nil {
			exit = *m.Exit
		}
		return m.Exit != nil
	})
	return exit, err
}

// Attachment says what an Attach would be connected to. GET /v1/attach?target=TARGET.
func (c *Client) Attachment(ctx context.Context, target string) (a Attached, err error) {
	return a, c.call(ctx, http.MethodGet, "/attach", url.Values{"target": {target}}, nil, &a)
}

// Attach connects to a container until its end, which it returns, or until in's Stdin says ErrDetached.
// attached, which may be nil, is called first.
func (c *Client) Attach(ctx context.Context, r AttachRequest, in Input, out Output, attached func(Attached)) (Exit, error) {
	s, err := c.duplex(ctx, "/attach", r)
	if err != nil {
		return Exit{}, err
	}
	var exit Exit
	err = s.run(in, out, started, func(m Control) bool {
		switch {
		case m.Attached != nil && attached != nil:
			attached(*m.Attached)
		case m.Exit != nil:
			exit = *m.Exit
			return true
		}
		return false
	})
	return exit, err
}

// RunStream is Run with input, for a unit whose container has stdin_open. Until the unit
// has started, input waits. RunResult's Exit is nil with ErrDetached.
func (c *Client) RunStream(ctx context.Context, r RunRequest, in Input, o RunOutput) (RunResult, error) {
	r.Attach = true
	s, err := c.duplex(ctx, "/run", r)
	if err != nil {
		return RunResult{}, err
	}
	return s.runCreated(in, o)
}

// runCreated is run for what has to be started first.
func (s *duplex) runCreated(in Input, o RunOutput) (result RunResult, err error) {
	created := make(chan struct{})
	err = s.run(in, Output{o.Stdout, o.Stderr}, created, func(m Control) bool {
		switch {
		case m.Progress != nil && o.Progress != nil:
			o.Progress(*m.Progress)
		case m.Created != "":
			result.Unit = m.Created
			close(created)
			if o.Created != nil {
				o.Created(m.Created)
			}
		case m.Exit != nil:
			result.Exit = m.Exit
			return true
		}
		return false
	})
	return result, err
}

// duplex is an upgraded connection.
type duplex struct {
	c    *Client
	ctx  context.Context
	conn io.ReadWriteCloser

	mu sync.Mutex // one frame at a time
}

// duplex makes a call whose connection becomes a stream of frames both ways.
func (c *Client) duplex(ctx context.Context, path string, body any) (*duplex, error) {
	h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {Upgrade}}
	res, err := c.openWith(ctx, http.MethodPost, path, nil, body, h)
	if err != nil {
		return nil, err
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		res.Body.Close()
		return nil, &Error{Code: CodeInvalid, Message: "this daemon takes no input over the API",
			Hint: "client and daemon are of different versions: compare `wherry version` with `wherry ctl status`"}
	}
	return &duplex{c: c, ctx: ctx, conn: conn}, nil
}

// started is of a stream whose input may begin at once.
var started = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// run moves frames until done says so, the caller detaches or ctx ends. Input is sent
// from begin on: as long as none comes, the daemon sees a caller that goes away.
func (s *duplex) run(in Input, out Output, begin <-chan struct{}, done func(Control) bool) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	defer s.conn.Close()
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	var left atomic.Bool
	go func() {
		select {
		case <-begin:
		case <-ctx.Done():
			return
		}
		go s.sendWords(ctx, in)
		if in.Stdin != nil {
			if err := s.sendInput(in.Stdin); errors.Is(err, ErrDetached) {
				left.Store(true) // before: the other side's end may come before our own
				_ = s.control(Control{Detach: true})
				cancel(ErrDetached)
			}
		}
	}()
	err := s.c.frames(s.ctx, bufio.NewReader(s.conn), out.Stdout, out.Stderr, done)
	if left.Load() {
		return ErrDetached
	}
	return s.c.cutOff(s.ctx, err)
}

// inputPiece is how much input is sent at once.
const inputPiece = 128 << 10

// sendInput sends what r gives, then its end. That nobody takes it any more is no
// error: the output tells what became of the other side.
func (s *duplex) sendInput(r io.Reader) error {
	buf := make([]byte, frameHead+inputPiece)
	for {
		n, err := r.Read(buf[frameHead:])
		if n > 0 {
			if werr := s.send(FrameStdin, buf[:frameHead+n]); werr != nil {
				return nil
			}
		}
		switch {
		case errors.Is(err, ErrDetached):
			return err
		case err != nil: // of a terminal that has gone too: no more will come
			return s.send(FrameStdin, buf[:frameHead])
		}
	}
}

// sendWords sends sizes and signals as they come.
func (s *duplex) sendWords(ctx context.Context, in Input) {
	for in.Resize != nil || in.Signal != nil {
		var m Control
		select {
		case <-ctx.Done():
			return
		case size, ok := <-in.Resize:
			if !ok {
				in.Resize = nil
				continue
			}
			m.Resize = &size
		case sig, ok := <-in.Signal:
			if !ok {
				in.Signal = nil
				continue
			}
			m.Signal = sig
		}
		if s.control(m) != nil {
			return
		}
	}
}

func (s *duplex) control(m Control) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.send(FrameControl, append(make([]byte, frameHead), b...))
}

// send sends a frame in whose buffer room for the head is left.
func (s *duplex) send(typ byte, b []byte) error {
	putHead(b, typ, len(b)-frameHead)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Write(b)
	return err
}
