package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
)

// Limits of one request and of the end.
const (
	maxBody      = 16 << 20 // an apply carries unit files and their env files
	headerWait   = 10 * time.Second
	idleWait     = 2 * time.Minute
	shutdownWait = 3 * time.Second
)

// Backend is what the server needs of a supervisor, noun by noun.
type Backend interface {
	Daemon
	Physician
	Undertaker
	Units
	Assessor
	Obituarist
	Actor
	Handler
	Applier
	Runner
	Execer
	Attacher
	Copier
	Debugger
	Logger
	Eventer
	Waiter
	Operator
	Tidier
}

// Supervisor is a Backend that has an image store, as *supervisor.Supervisor.
type Supervisor interface {
	Backend
	Images() *image.Store
}

// Server answers the API.
type Server struct {
	Backend Backend
	Images  Images
	Log     *slog.Logger // nil: discards

	ctx      context.Context // ends with Serve; set by it
	upgraded sync.WaitGroup  // connections that net/http knows nothing of any more, and their readers
}

// Serve answers on ln until ctx ends. It closes ln.
func Serve(ctx context.Context, ln net.Listener, s Supervisor, log *slog.Logger) error {
	return (&Server{Backend: s, Images: s.Images(), Log: log}).Serve(ctx, ln)
}

// Serve answers on ln until ctx ends; it closes ln. Running requests see their
// context end and get a moment to say goodbye.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.ctx = ctx
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	own := ln
	if d, ok := ln.(deadliner); ok {
		own = &lent{deadliner: d}
	}
	go func() { ended <- srv.Serve(limitReaders(own)) }()
	select {
	case err := <-ended:
		_ = ln.Close()
		return err
	case <-ctx.Done():
	}
	// The end of accepting comes first: Shutdown would overlook a connection that has just been accepted, and its caller would
	// get no answer. Those that come later wait for the next daemon, if the socket is systemd's.
	_ = own.Close()
	err := <-ended
	_ = ln.Close()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	if srv.Shutdown(limited) != nil {
		_ = srv.Close() // a caller does not read its stream: nothing to wait for
	}
	s.upgraded.Wait()
	if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// ownUID is who the daemon runs as.
func ownUID() uint32 { return uint32(os.Geteuid()) }
