package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// server answers the clients of one keeper.
type server struct {
	k        *Keeper
	listener *net.UnixListener
	instance string
	build    string
	managed  bool   // a service manager runs us
	refused  string // why the binary that should have replaced this one did not
	upgrade  func(binary string) error
	shutdown func() error
}

// acceptPause keeps a listener that cannot accept from taking a whole processor.
const acceptPause = 100 * time.Millisecond

// serve accepts connections until the listener is closed.
func (s *server) serve() error {
	for {
		sock, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors or memory: it passes, and the containers need us meanwhile.
			s.k.logger.Error("cannot accept a connection", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		if err := wire.CheckPeer(sock); err != nil {
			s.k.logger.Warn("connection refused", "err", err)
			sock.Close()
			continue
		}
		go s.handle(sock)
	}
}

// client is one connection. Each request has a goroutine, so that a slow start
// holds up nobody.
type client struct {
	s    *server
	conn *wire.Conn
	ctx  context.Context // ends with the connection

	mu      sync.Mutex
	cancels map[uint32]context.CancelFunc // of requests under way
}

func (s *server) handle(sock *net.UnixConn) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{s: s, conn: wire.NewConn(sock), ctx: ctx, cancels: map[uint32]context.CancelFunc{}}
	defer c.conn.Close()
	defer cancel()
	for {
		m, err := c.conn.Receive()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.k.logger.Warn("connection lost", "err", err)
			return
		}
		if m.Type == wire.Cancel {
			c.cancel(m.ID)
			continue
		}
		c.begin(m)
	}
}

// gone tells whether the client has ended, of which ctx may not have heard yet: its last requests are read before.
func (c *client) gone() bool { return c.ctx.Err() != nil || c.conn.Ended() }

func (c *client) cancel(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.cancels[id]; cancel != nil {
		cancel()
	}
}

// begin runs a request. A start goes on if the client dies: the next one finds
// the container.
func (c *client) begin(m *wire.Message) {
	base := c.ctx
	if m.Type == wire.Start {
		base = context.WithoutCancel(base)
	}
	ctx, cancel := context.WithCancel(base)
	c.mu.Lock()
	c.cancels[m.ID] = cancel
	c.mu.Unlock()
	go func() {
		defer m.CloseFiles()
		defer func() {
			c.mu.Lock()
			delete(c.cancels, m.ID)
			c.mu.Unlock()
			cancel()
		}()
		body, files, err := c.answer(ctx, m)
		if err == errAnswered {
			return
		}
		c.reply(m.ID, body, files, err)
	}()
}

// errAnswered: the request has sent what there was to send.
var errAnswered = errors.New("answered")

func (c *client) reply(id uint32, body any, files []*os.File, err error) {
	t := wire.Reply
	if err != nil {
		t, body = wire.Error, errorReply(err)
	}
	m, merr := wire.New(t, id, body)
	if merr != nil {
		m, _ = wire.New(wire.Error, id, wire.ErrorReply{Code: wire.Internal, Message: merr.Error()})
	}
	m.Files = files
	defer m.CloseFiles()
	err = c.conn.Send(m) // a client that is gone misses nothing: List tells it later
	if errors.Is(err, wire.ErrProtocol) {
		// An answer that cannot be sent must not leave the client waiting for it.
		m, _ = wire.New(wire.Error, id, wire.ErrorReply{Code: wire.Internal, Message: err.Error()})
		c.conn.Send(m)
	}
}

// decode reads a request's body.
func decode[T any](m *wire.Message) (*T, error) {
	v := new(T)
	return v, m.Decode(v)
}

func (c *client) answer(ctx context.Context, m *wire.Message) (any, []*os.File, error) {
	if err := wire.Check(m.Type, c.conn.Version()); err != nil {
		return nil, nil, err
	}
	switch m.Type {
	case wire.Hello:
		return c.hello(m)
	case wire.Start:
		return c.start(ctx, m)
	case wire.List:
		return c.s.k.list(), nil, nil
	case wire.Exec:
		return c.exec(ctx, m)
	case wire.Signal:
		r, err := decode[wire.SignalRequest](m)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, c.s.k.signal(r.ID, r.Signal)
	case wire.Namespaces:
		f, err := newNetNS()
		if err != nil {
			return nil, nil, err
		}
		return nil, []*os.File{f}, nil
	case wire.MakeNamespaces:
		r, err := decode[runtime.Namespaces](m)
		if err != nil {
			return nil, nil, err
		}
		files, err := c.s.k.makeNamespaces(ctx, c.gone, r)
		return nil, files, err
	case wire.ReleaseNamespaces:
		r, err := decode[wire.RunRequest](m)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, c.s.k.releaseNamespaces(ctx, r.Run)
	case wire.Update:
		r, err := decode[wire.UpdateRequest](m)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, c.s.k.setLimits(r.ID, r.Limits)
	case wire.Subscribe:
		c.s.k.subscribe(ctx, c.conn, m.ID)
		return nil, nil, errAnswered
	case wire.Upgrade:
		r, err := decode[wire.UpgradeRequest](m)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, c.s.upgrade(r.Binary)
	case wire.Shutdown:
		return nil, nil, c.s.shutdown()
	case wire.Heirlooms:
		c.s.k.heirlooms.serve(ctx, c.conn, m.ID)
		return nil, nil, errAnswered
	case wire.GiveBack:
		return nil, nil, c.s.k.acceptHeirlooms(m)
	case wire.AwaitExec:
		r, err := decode[wire.AwaitExecRequest](m)
		if err != nil {
			return nil, nil, err
		}
		exit, err := c.s.k.awaitExec(ctx, r)
		return exit, nil, err
	case wire.Examine:
		r, err := decode[wire.ExamineRequest](m)
		if err != nil {
			return nil, nil, err
		}
		return runtime.OwnVitals(r.Collect, r.Stacks), nil, nil
	case wire.Get, wire.Kill, wire.Wait, wire.Remove, wire.Pause, wire.Resume, wire.Attach, wire.CloseStdin, wire.Root:
		return c.byID(ctx, m)
	}
	return nil, nil, wire.Needs(fmt.Sprintf("request %d", m.Type), wire.Version+1, wire.Version)
}

// byID answers what takes nothing but a container's id.
func (c *client) byID(ctx context.Context, m *wire.Message) (any, []*os.File, error) {
	r, err := decode[wire.ContainerRequest](m)
	if err != nil {
		return nil, nil, err
	}
	k := c.s.k
	switch m.Type {
	case wire.Kill:
		return nil, nil, k.kill(ctx, r.ID)
	case wire.Remove:
		return nil, nil, k.remove(ctx, r.ID)
	case wire.Pause:
		return nil, nil, k.pause(ctx, r.ID)
	case wire.Resume:
		return nil, nil, k.resume(r.ID)
	case wire.CloseStdin:
		return nil, nil, k.closeStdin(r.ID)
	case wire.Attach:
		f, err := k.attach(r.ID)
		return fileReply(f, err)
	case wire.Root:
		f, err := k.openRoot(ctx, r.ID)
		return fileReply(f, err)
	case wire.Wait:
		st, err := k.wait(ctx, r.ID)
		return st, nil, err
	}
	ct, err := k.find(r.ID)
	if err != nil {
		return nil, nil, err
	}
	return ct.snapshot().Status, nil, nil
}

// fileReply answers with one descriptor.
func fileReply(f *os.File, err error) (any, []*os.File, error) {
	if err != nil {
		return nil, nil, err
	}
	return nil, []*os.File{f}, nil
}

func (c *client) hello(m *wire.Message) (any, []*os.File, error) {
	r, err := decode[wire.HelloRequest](m)
	if err != nil {
		return nil, nil, err
	}
	v, err := wire.Negotiate(wire.Ours(), r.Versions)
	if err != nil {
		return nil, nil, err
	}
	c.conn.Speak(v)
	return wire.HelloReply{Version: v, Pid: os.Getpid(), Instance: c.s.instance, Build: c.s.build, Managed: c.s.managed, Refused: c.s.refused}, nil, nil
}

func (c *client) start(ctx context.Context, m *wire.Message) (any, []*os.File, error) {
	r, err := decode[wire.StartRequest](m)
	if err != nil {
		return nil, nil, err
	}
	var cfg runtime.Config
	if err := json.Unmarshal(r.Config, &cfg); err != nil {
		return nil, nil, fmt.Errorf("start: config: %w", err)
	}
	var netns *os.File
	if r.NetNS {
		if len(m.Files) != 1 {
			return nil, nil, fmt.Errorf("start: %w: %d descriptors instead of a namespace", wire.ErrProtocol, len(m.Files))
		}
		netns = m.Files[0]
	}
	st, err := c.s.k.start(ctx, c.gone, &cfg, netns)
	return st, nil, err
}

func (c *client) exec(ctx context.Context, m *wire.Message) (any, []*os.File, error) {
	r, err := decode[wire.ExecRequest](m)
	if err != nil {
		return nil, nil, err
	}
	var files execFiles
	next := 0
	for i := range files.stdio {
		if r.Stdio&(1<<i) == 0 {
			continue
		}
		if next == len(m.Files) {
			return nil, nil, fmt.Errorf("exec: %w: a descriptor is missing", wire.ErrProtocol)
		}
		files.stdio[i] = m.Files[next]
		next++
	}
	if r.Console {
		if next == len(m.Files) {
			return nil, nil, fmt.Errorf("exec: %w: the console is missing", wire.ErrProtocol)
		}
		files.console = m.Files[next]
	}
	exit, err := c.s.k.exec(ctx, r, files)
	return exit, nil, err
}

// errorReply translates an error for the other side.
func errorReply(err error) wire.ErrorReply {
	r := wire.ErrorReply{Code: wire.Internal, Message: err.Error()}
	var se *runtime.StepError
	if errors.As(err, &se) {
		r.Step, r.Message = string(se.Step), se.Err.Error()
	}
	for code, sentinel := range map[wire.Code]error{
		wire.NotFound: runtime.ErrNotFound, wire.Exists: runtime.ErrExists, wire.NotRunning: runtime.ErrNotRunning,
		wire.Command: runtime.ErrCommand, wire.NotExecutable: runtime.ErrNotExecutable,
		wire.Canceled: context.Canceled, wire.Busy: runtime.ErrBusy,
		wire.NoInput: runtime.ErrNoInput, wire.Paused: runtime.ErrPaused, wire.Unsupported: errors.ErrUnsupported,
	} {
		if errors.Is(err, sentinel) {
			r.Code = code
		}
	}
	return r
}
