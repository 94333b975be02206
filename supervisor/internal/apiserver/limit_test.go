package apiserver

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
)

// pipes is a listener of connections that have no credentials.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// TestReaderLimit: who may only read cannot take all descriptors of the daemon.
func TestReaderLimit(t *testing.T) {
	in := make(pipes, maxReaderConns+2)
	ln := limitReaders(in)
	connect := func() net.Conn {
		theirs, ours := net.Pipe()
		in <- ours
		return theirs
	}
	var accepted []net.Conn
	for range maxReaderConns {
		connect()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if p := peerOfConn(c); p.admin() {
			t.Fatal("a connection without credentials is an admin's")
		}
		accepted = append(accepted, c)
	}
	refused := connect()
	close(in)
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("one more than the limit: %v", err)
	}
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the one too many was not closed: %v", err)
	}
	in = make(pipes, 1)
	ln.(*readerLimit).Listener = in
	accepted[0].Close()
	accepted[0].Close() // counts once
	connect()
	if _, err := ln.Accept(); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	connect()
	close(in)
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection that was closed twice made room for two: %v", err)
	}
}

func TestListenLeavesFilesAlone(t *testing.T) {
	path := t.TempDir() + "/precious"
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(path, ""); err == nil {
		ln.Close()
		t.Error("it listens in the place of a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "text" {
		t.Errorf("the file is gone: %q, %v", b, err)
	}
}
