package apiserver

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/wherry-run/wherry/supervisor/api"
)

// TestRefuse: callers hear why there is no answer, and the listener serves others after that.
func TestRefuse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() {
		done <- Refuse(ctx, ln, &api.Error{Code: api.CodeUnavailable, Message: "waits for its keeper", Hint: "start it"})
	}()
	var e *api.Error
	c := api.Dial(path)
	if _, err := c.Info(t.Context()); !errors.As(err, &e) || e.Message != "waits for its keeper" || e.Hint != "start it" || e.Code != api.CodeUnavailable {
		t.Errorf("answered %v", err)
	}
	stop()
	if !<-done {
		t.Error("refuses this listener")
	}
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = c.Write([]byte("hello"))
			c.Close()
		}
		done <- err == nil
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !<-done {
		t.Error("the listener accepts no more")
	}
}
