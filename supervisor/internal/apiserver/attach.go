package apiserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Attacher connects to running containers.
type Attacher interface {
	// Attach finds the container and opens its input, nil if it takes none and has no terminal.
	Attach(ctx context.Context, r api.AttachRequest, by string) (api.Attached, *os.File, error)
	// Output is what the container writes, from the last tail lines on, until its end.
	Output(ctx context.Context, a api.Attached, tail int) iter.Seq2[api.LogLine, error]
	// CloseInput ends the input for good.
	CloseInput(ctx context.Context, a api.Attached) error
	// SignalMain sends a signal to the main process.
	SignalMain(ctx context.Context, a api.Attached, signal, by string) error
	// WaitRun waits for the container's end.
	WaitRun(ctx context.Context, a api.Attached) (api.Exit, error)
}

var errNoUpgrade = &api.Error{Code: api.CodeInvalid, Message: "attach: the connection must be upgraded to " + api.Upgrade}

// getAttachment says what an attach would be connected to.
func (s *Server) getAttachment(w http.ResponseWriter, r *http.Request) error {
	at, file, err := s.Backend.Attach(r.Context(), api.AttachRequest{Target: r.URL.Query().Get("target"), Ask: true}, peerOf(r.Context()).String())
	if file != nil {
		file.Close()
	}
	return reply(w, at, err)
}

// postAttach connects a caller with a container until either goes.
func (s *Server) postAttach(w http.ResponseWriter, r *http.Request) error {
	var req api.AttachRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if !wantsDuplex(r) {
		return errNoUpgrade
	}
	by := peerOf(r.Context()).String()
	at, file, err := s.Backend.Attach(r.Context(), req, by)
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	d, err := s.upgrade(w)
	if err != nil {
		return err
	}
	defer s.closeDuplex(d)
	_ = d.out.control(api.Control{Attached: &at})
	to := s.sinkOf(d, at, file, by)
	if req.NoStdin || !at.Stdin {
		to.file, to.end = nil, nil
	}
	output := s.Backend.Output(d.gone, at, req.Tail) // before any input or new size: what answers to them is part of it
	redraw(file, at, req.Size)
	d.connect(to)
	s.sendOutput(d, output)
	if d.gone.Err() != nil && s.ctx.Err() == nil {
		return nil // the caller has gone; the container goes on
	}
	exit, err := s.Backend.WaitRun(s.ctx, at)
	return s.lastFrame(d, exit, err)
}

// sinkOf is where the input of a caller goes who is attached.
func (s *Server) sinkOf(d *duplex, at api.Attached, file *os.File, by string) sink {
	to := sink{file: file, signal: func(sig string) {
		if err := s.Backend.SignalMain(d.gone, at, sig, by); err != nil && d.gone.Err() == nil {
			s.Log.Debug("signal of an attached caller", "unit", at.Unit, "err", err)
		}
	}}
	if file != nil && at.TTY {
		to.resize = resizer(file)
	} else if file != nil && at.Once {
		to.end = func() {
			file.Close()
			_ = s.Backend.CloseInput(context.WithoutCancel(d.gone), at) // it has ended already
		}
	}
	return to
}

// redraw has a full-screen program draw itself for a caller who has not seen what is
// there: it does so when its terminal changes its size, also back.
func redraw(master *os.File, at api.Attached, size *api.Size) {
	if !at.TTY || master == nil || size == nil || size.Rows == 0 || size.Columns == 0 {
		return
	}
	_ = runtime.SetSize(master, size.Rows+1, size.Columns)
	_ = runtime.SetSize(master, size.Rows, size.Columns)
}

// sendOutput sends output until its end, or until the caller has gone.
func (s *Server) sendOutput(d *duplex, lines iter.Seq2[api.LogLine, error]) {
	for line, err := range lines {
		if err != nil || sendLine(d.out, line) != nil {
			return
		}
	}
}

// lastFrame sends how it ended.
func (s *Server) lastFrame(d *duplex, exit api.Exit, err error) error {
	if err != nil {
		_ = d.out.control(api.Control{Error: toAPI(s.explain(err))})
	} else {
		_ = d.out.control(api.Control{Exit: &exit})
	}
	return nil
}

// execStream is postExec over an upgraded connection.
func (s *Server) execStream(w http.ResponseWriter, req api.ExecRequest, by string) error {
	d, err := s.upgrade(w)
	if err != nil {
		return err
	}
	if req.TTY {
		s.execTerminal(d, req, by)
		return nil
	}
	defer s.closeDuplex(d)
	exit, err := s.execPipes(d, req, by)
	return s.lastFrame(d, exit, err)
}

// execPipes runs a process whose stdin, stdout and stderr are pipes.
func (s *Server) execPipes(d *duplex, req api.ExecRequest, by string) (api.Exit, error) {
	var in *os.File
	var to sink
	if req.Stdin {
		r, w, err := os.Pipe()
		if err != nil {
			return api.Exit{}, fmt.Errorf("input pipe: %w", err)
		}
		defer r.Close()
		defer w.Close()
		in, to = r, sink{file: w, end: func() { w.Close() }}
	}
	stdout, err := newOutput(api.FrameStdout, d.out)
	if err != nil {
		return api.Exit{}, err
	}
	defer stdout.finish()
	stderr, err := newOutput(api.FrameStderr, d.out)
	if err != nil {
		return api.Exit{}, err
	}
	defer stderr.finish()
	d.connect(to)
	return s.Backend.Exec(s.ctx, req, by, in, stdout.write, stderr.write)
}

// execTerminal runs a process on a terminal of its own. A caller that goes away hangs it up; one
// that leaves on purpose lets it go on.
func (s *Server) execTerminal(d *duplex, req api.ExecRequest, by string) {
	console, err := runtime.NewConsole()
	if err != nil {
		_ = s.lastFrame(d, api.Exit{}, err)
		s.closeDuplex(d)
		return
	}
	defer console.Close()
	t := &terminalExec{s: s, d: d, ended: make(chan struct{})}
	ctx, kill := context.WithCancel(s.ctx)
	defer kill()
	go func() {
		defer close(t.ended)
		t.exit, t.err = s.Backend.ExecConsole(ctx, req, by, console.Socket)
	}()
	t.run(console, kill)
}

// terminalExec is a process on a terminal.
type terminalExec struct {
	s     *Server
	d     *duplex
	ended chan struct{} // exit and err are there
	exit  api.Exit
	err   error
}

func (t *terminalExec) run(console *runtime.Console, kill func()) {
	waiting, stop := context.WithCancel(t.d.gone)
	go func() {
		<-t.ended
		stop()
	}()
	master, err := console.Master(waiting)
	stop()
	if err != nil { // it could not be started, or the caller has gone
		kill()
		<-t.ended
		_ = t.s.lastFrame(t.d, t.exit, t.err)
		t.s.closeDuplex(t.d)
		return
	}
	defer master.Close()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		copyMaster(master, t.d.out)
	}()
	t.d.connect(sink{file: master, resize: resizer(master)})
	select {
	case <-t.ended:
	case <-t.d.gone.Done():
		t.abandoned(master, kill)
	}
	<-t.ended
	_ = master.SetReadDeadline(time.Unix(1, 0))
	<-copied
	_ = t.s.lastFrame(t.d, t.exit, t.err)
	t.s.closeDuplex(t.d)
}

// hangupPatience is how long a process may take to end after its terminal has hung up.
const hangupPatience = 10 * time.Second

// abandoned is the end of a terminal whose caller has gone. Most programs end when it hangs up; one that
// does not is killed.
func (t *terminalExec) abandoned(master *os.File, kill func()) {
	if t.d.hasLeft() {
		return
	}
	_ = master.Close()
	select {
	case <-t.ended:
	case <-time.After(hangupPatience):
		kill()
	case <-t.s.ctx.Done():
		kill()
	}
}

// postRunStream is postRun over an upgraded connection.
func (s *Server) postRunStream(w http.ResponseWriter, req api.RunRequest, by string) error {
	d, err := s.upgrade(w)
	if err != nil {
		return err
	}
	defer s.closeDuplex(d)
	name, err := s.Backend.RunUnit(d.gone, req, by, pullProgress(d.out))
	if err != nil {
		return s.lastFrame(d, api.Exit{}, err)
	}
	if d.gone.Err() != nil && s.ctx.Err() == nil && !d.hasLeft() {
		_, err := s.Backend.Remove(s.ctx, api.ActRequest{Units: []string{name}, Force: true}, by)
		return s.lastFrame(d, api.Exit{}, err)
	}
	_ = d.out.control(api.Control{Created: name})
	exit, err := s.runStream(d, name, by)
	return s.lastFrame(d, exit, s.removeAfter(req, name, by, err))
}

// runStream connects the caller with a unit that has started, until its end.
func (s *Server) runStream(d *duplex, name, by string) (api.Exit, error) {
	var to sink
	at, file, err := s.Backend.Attach(d.gone, api.AttachRequest{Target: name, Ask: true, Wait: true}, by)
	switch {
	case err == nil:
		to = s.sinkOf(d, at, file, by)
		if !at.Stdin {
			to.file, to.end = nil, nil
		}
		if file != nil {
			defer file.Close()
		}
	case !errors.Is(err, api.ErrNotRunning): // it may have ended already
		return api.Exit{}, err
	}
	d.connect(to)
	s.sendOutput(d, s.Backend.Logs(d.gone, api.LogsRequest{Target: name, Follow: true, Whole: true}))
	return s.Backend.WaitExit(s.ctx, name)
}
