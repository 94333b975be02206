package apiserver

import (
	"context"
	"iter"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// painter is a container on a terminal, which it would draw anew when that changes its size.
type painter struct {
	Backend
	t      *testing.T
	master *os.File
	before api.Size // when its output was asked for
	then   api.Size // when that was read
}

func (p *painter) Attach(context.Context, api.AttachRequest, string) (api.Attached, *os.File, error) {
	return api.Attached{TTY: true, Stdin: true}, p.master, nil
}

func (p *painter) Output(context.Context, api.Attached, int) iter.Seq2[api.LogLine, error] {
	p.before = p.size()
	return func(func(api.LogLine, error) bool) { p.then = p.size() }
}

func (p *painter) WaitRun(context.Context, api.Attached) (api.Exit, error) {
	return api.Exit{Code: 7}, nil
}

func (p *painter) size() (s api.Size) {
	var err error
	if s.Rows, s.Columns, err = runtime.Size(p.master); err != nil {
		p.t.Error(err)
	}
	return s
}

// TestRedrawIsSeen: what a program draws because somebody attaches is part of what that one is shown.
func TestRedrawIsSeen(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &painter{t: t, master: master}
	dir, err := os.MkdirTemp("", "wh") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- (&Server{Backend: p}).Serve(ctx, l) }()
	c := api.Dial(dir + "/s")
	exit, err := c.Attach(t.Context(), api.AttachRequest{Target: "web", Size: &api.Size{Rows: 31, Columns: 99}}, api.Input{}, api.Output{}, nil)
	c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err != nil || exit.Code != 7 {
		t.Fatalf("%+v, %v", exit, err)
	}
	if p.before != (api.Size{}) || p.then != (api.Size{Rows: 31, Columns: 99}) {
		t.Errorf("the terminal had %+v when its output was asked for, and %+v when it was read", p.before, p.then)
	}
}
