package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// cancelPatience is how long a canceled request may take to say what became of
// it: a start has to be undone first.
const cancelPatience = 15 * time.Second

// link is one connection to a keeper, shared by all calls.
type link struct {
	conn  *wire.Conn
	hello wire.HelloReply
	gone  chan struct{} // closed when the connection has ended
	ctx   context.Context
	done  context.CancelFunc // nobody listens any more

	mu      sync.Mutex
	next    uint32
	pending map[uint32]chan *wire.Message
	err     error // why it ended
}

// dial connects to the keeper at path and agrees on a version.
func dial(ctx context.Context, path string) (*link, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	sock := c.(*net.UnixConn)
	if err := wire.CheckPeer(sock); err != nil {
		sock.Close()
		return nil, err
	}
	l := &link{conn: wire.NewConn(sock), gone: make(chan struct{}), pending: map[uint32]chan *wire.Message{}}
	l.ctx, l.done = context.WithCancel(context.Background())
	go l.receive()
	m, err := l.call(ctx, wire.Hello, wire.HelloRequest{Versions: wire.Ours()})
	if err == nil {
		err = m.Decode(&l.hello)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.conn.Speak(l.hello.Version)
	return l, nil
}

func (l *link) close() {
	l.done()
	l.conn.Close()
}

// receive hands answers to whoever waits for them.
func (l *link) receive() {
	for {
		m, err := l.conn.Receive()
		if err != nil {
			l.fail(err)
			return
		}
		ch := l.hand(m)
		if ch == nil {
			continue
		}
		select {
		case ch <- m:
		case <-l.ctx.Done():
			m.CloseFiles()
		}
	}
}

// hand gives an answer to whoever waits for it, whom a release does not miss meanwhile. The
// result is where there is no room: only a subscription is ever behind.
func (l *link) hand(m *wire.Message) (full chan *wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.pending[m.ID]
	if ch == nil {
		m.CloseFiles() // whoever asked has gone
		return nil
	}
	select {
	case ch <- m:
		return nil
	default:
		return ch
	}
}

func (l *link) fail(err error) {
	l.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	close(l.gone)
}

// alive says whether the connection still stands.
func (l *link) alive() bool {
	select {
	case <-l.gone:
		return false
	default:
		return true
	}
}

// expect reserves an id for answers.
func (l *link) expect(room int) (uint32, chan *wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	ch := make(chan *wire.Message, room)
	l.pending[l.next] = ch
	return l.next, ch
}

// release gives an id up. An answer that came while nobody took it any more is closed at once: its descriptor may be
// the end of a container's input.
func (l *link) release(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.pending[id]
	delete(l.pending, id)
	select {
	case m := <-ch:
		m.CloseFiles()
	default:
	}
}

// lost is the error of calls that the end of the connection cut off.
func (l *link) lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrKeeper, l.err)
}

// call sends a request and waits for its answer. A request whose context ends
// is canceled at the keeper too.
func (l *link) call(ctx context.Context, t wire.Type, body any, files ...*os.File) (*wire.Message, error) {
	if err := wire.Check(t, l.conn.Version()); err != nil {
		return nil, err
	}
	id, ch := l.expect(1)
	defer l.release(id)
	m, err := wire.New(t, id, body)
	if err != nil {
		return nil, err
	}
	m.Files = files
	if err := l.conn.Send(m); err != nil {
		if !errors.Is(err, wire.ErrProtocol) { // whoever asks again must not find a connection whose end receive has not seen yet
			l.close()
			<-l.gone
		}
		return nil, fmt.Errorf("%w: %w", ErrKeeper, err)
	}
	select {
	case m := <-ch:
		return m, answerError(m)
	case <-l.gone:
		return l.lastWord(ch)
	case <-ctx.Done():
	}
	l.conn.Send(&wire.Message{Version: wire.Version, Type: wire.Cancel, ID: id})
	if t != wire.Start && t != wire.Exec && t != wire.AwaitExec && t != wire.MakeNamespaces {
		return nil, ctx.Err()
	}
	// These leave nothing behind, but only once the keeper says so.
	patience := time.NewTimer(cancelPatience)
	defer patience.Stop()
	select {
	case m := <-ch:
		err := answerError(m)
		if errors.Is(err, context.Canceled) {
			err = ctx.Err() // the keeper does not know why
		}
		return m, err
	case <-l.gone:
		return l.lastWord(ch)
	case <-patience.C:
		return nil, ctx.Err()
	}
}

// lastWord looks for an answer that came just before the end.
func (l *link) lastWord(ch chan *wire.Message) (*wire.Message, error) {
	select {
	case m := <-ch:
		return m, answerError(m)
	default:
		return nil, l.lost()
	}
}

// sentinels are the errors that survive the way over the wire.
var sentinels = map[wire.Code]error{
	wire.NotFound: ErrNotFound, wire.Exists: ErrExists, wire.NotRunning: ErrNotRunning,
	wire.Command: ErrCommand, wire.NotExecutable: ErrNotExecutable, wire.Busy: ErrBusy,
	wire.NoInput: ErrNoInput, wire.Paused: ErrPaused, wire.Unsupported: errors.ErrUnsupported,
	wire.Canceled: context.Canceled,
}

// remoteError is an error of the keeper's, in its own words.
type remoteError struct {
	message string
	cause   error // one of sentinels, or nil
}

func (e *remoteError) Error() string { return e.message }
func (e *remoteError) Unwrap() error { return e.cause }

func answerError(m *wire.Message) error {
	if m.Type != wire.Error {
		return nil
	}
	defer m.CloseFiles()
	var r wire.ErrorReply
	if err := m.Decode(&r); err != nil {
		return err
	}
	var err error = &remoteError{message: r.Message, cause: sentinels[r.Code]}
	if r.Step != "" {
		err = &StepError{Step: Step(r.Step), Err: err}
	}
	return err
}

// keeperGone says whether err means that the call may be tried with another
// keeper.
func keeperGone(err error) bool { return errors.Is(err, ErrKeeper) }
