package apiserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Refuse answers every request on ln with the error until ctx ends, and leaves ln open for somebody who has better answers. It tells false at
// once for a listener that it could not give back: then those who call wait.
func Refuse(ctx context.Context, ln net.Listener, because error) bool {
	d, ok := ln.(deadliner)
	if !ok {
		return false
	}
	e := toAPI(because)
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeError(w, e) }),
		ReadHeaderTimeout: headerWait,
	}
	srv.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(&lent{deadliner: d})
	}()
	<-ctx.Done()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	if srv.Shutdown(limited) != nil {
		_ = srv.Close()
	}
	<-ended
	_ = d.SetDeadline(time.Time{})
	return true
}

// deadliner is a listener whose Accept can be ended without closing it.
type deadliner interface {
	net.Listener
	SetDeadline(time.Time) error
}

// lent is a listener that its owner gets back.
type lent struct {
	deadliner
	closed atomic.Bool
}

func (l *lent) Accept() (net.Conn, error) {
	c, err := l.deadliner.Accept()
	var timeout net.Error
	if l.closed.Load() && errors.As(err, &timeout) && timeout.Timeout() {
		return nil, net.ErrClosed
	}
	return c, err
}

func (l *lent) Close() error {
	l.closed.Store(true)
	return l.SetDeadline(time.Unix(1, 0))
}
