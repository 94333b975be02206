package runtime

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// TestAnswerToNobody: a descriptor that comes for who has just given up is not kept open until the garbage is
// collected. It may be the end of a pipe that somebody waits for.
func TestAnswerToNobody(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	giveUp := make(chan context.CancelFunc, 1)
	keeper := make(chan error, 1)
	go func() {
		sock, err := listener.AcceptUnix()
		if err != nil {
			keeper <- err
			return
		}
		conn := wire.NewConn(sock)
		defer conn.Close()
		for {
			m, err := conn.Receive()
			if err != nil {
				keeper <- nil
				return
			}
			answer, _ := wire.New(wire.Reply, m.ID, wire.HelloReply{Version: wire.Version})
			switch m.Type {
			case wire.Cancel:
				continue
			case wire.Attach:
				answer.Files = []*os.File{w}
				(<-giveUp)()
			}
			conn.Send(answer)
		}
	}()
	l, err := dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 500
	for range calls {
		ctx, cancel := context.WithCancel(t.Context())
		giveUp <- cancel
		if m, err := l.call(ctx, wire.Attach, nil); err == nil {
			m.CloseFiles()
		}
		cancel()
	}
	// An answer to this one comes after all the others have been dealt with.
	if _, err := l.call(t.Context(), wire.List, nil); err != nil {
		t.Fatal(err)
	}
	l.close()
	if err := <-keeper; err != nil {
		t.Error(err)
	}
	w.Close()
	end := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
	if _, err := unix.Poll(end, 0); err != nil || end[0].Revents != unix.POLLHUP {
		t.Errorf("somebody still holds the other end: %x, %v", end[0].Revents, err)
	}
}

// TestAskedAgain: a connection to a keeper that has died is none as soon as a call over it has failed, though its end is
// still to be read: who asks again must come to the next keeper.
func TestAskedAgain(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	died := make(chan error, 1)
	go func() {
		sock, err := listener.AcceptUnix()
		if err != nil {
			died <- err
			return
		}
		conn := wire.NewConn(sock)
		for err == nil {
			var m *wire.Message
			if m, err = conn.Receive(); err != nil {
				break
			}
			answer, _ := wire.New(wire.Reply, m.ID, wire.HelloReply{Version: wire.Version})
			if m.Type == wire.Hello {
				err = conn.Send(answer)
				continue
			}
			for range 3 {
				err = errors.Join(err, conn.Send(answer))
			}
			break
		}
		died <- errors.Join(err, conn.Close())
	}()
	l, err := dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	id, _ := l.expect(1) // nobody takes the second answer, so nobody reads what comes behind it
	m, err := wire.New(wire.Subscribe, id, nil)
	if err == nil {
		err = l.conn.Send(m)
	}
	if err = errors.Join(err, <-died); err != nil {
		t.Fatal(err)
	}
	if _, err := l.call(t.Context(), wire.List, nil); !errors.Is(err, ErrKeeper) || l.alive() {
		t.Errorf("%v; alive: %v", err, l.alive())
	}
}
