package ctl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	xterm "golang.org/x/term"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/api/apitest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// person is somebody at a terminal, on which our command runs.
type person struct {
	t             *testing.T
	master, slave *os.File
	seen          string
}

func newPerson(t *testing.T) *person {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return &person{t: t, master: master, slave: slave}
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// sees reads until the text comes.
func (p *person) sees(text string) {
	p.t.Helper()
	buf := make([]byte, 1024)
	for !strings.Contains(p.seen, text) {
		n, err := p.master.Read(buf)
		if err != nil {
			p.t.Fatalf("no %q in %q: %v", text, p.seen, err)
		}
		p.seen += string(buf[:n])
	}
	_, p.seen, _ = strings.Cut(p.seen, text)
}

// app is our side, with a daemon that pretends.
func (p *person) app() (*app, *apitest.Daemon) {
	p.t.Helper()
	dir, err := os.MkdirTemp("", "whpty")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { os.RemoveAll(dir) })
	d := apitest.New()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	socket := filepath.Join(dir, "s")
	go func() { ended <- d.ListenAndServe(ctx, socket) }()
	p.t.Cleanup(func() {
		cancel()
		<-ended
	})
	getenv := func(string) string { return "" }
	a := &app{in: p.slave, out: term.Open(p.slave, getenv), err: term.Open(p.slave, getenv), args: []string{"wherry"}, socket: socket}
	u := unit.Unit{Kind: unit.Service, Name: "x", Replicas: 1, Network: "bridge",
		Containers: []unit.Container{{Name: "app", Image: "img", Command: []string{"sleep"}}}}
	for {
		if _, err := a.client().Run(ctx, api.RunRequest{Unit: u}, api.RunOutput{}); err == nil {
			return a, d
		}
	}
}

func (p *person) isRaw() bool {
	p.t.Helper()
	got, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return got.Lflag&unix.ICANON == 0
}

func (p *person) raw(want bool) {
	p.t.Helper()
	if raw := p.isRaw(); raw != want {
		p.t.Errorf("raw is %v", raw)
	}
}

var onTerminal = interactiveFlags{stdin: true, tty: true, detachKeys: defaultDetachKeys}

func TestExecOnATerminal(t *testing.T) {
	p := newPerson(t)
	a, _ := p.app()
	if _, _, err := xterm.GetSize(int(p.slave.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 34}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- a.exec(context.Background(), api.ExecRequest{Target: "x", Args: []string{"size"}}, onTerminal)
	}()
	p.sees("12 34")
	p.raw(true)
	p.types("\n")
	p.sees("12 34")
	p.types("\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	p.raw(false)
}

func TestDetachKeys(t *testing.T) {
	p := newPerson(t)
	a, _ := p.app()
	ended := make(chan error, 1)
	go func() {
		ended <- a.exec(context.Background(), api.ExecRequest{Target: "x", Args: []string{"cat"}}, onTerminal)
	}()
	for !p.isRaw() { // until then its own side would echo, and take ctrl-q
		if t.Context().Err() != nil {
			t.Fatal("it never becomes raw")
		}
	}
	p.types("hello\r")
	p.sees("hello")
	p.types("\x10\x11")
	p.sees("detached")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	p.raw(false)
}

func TestNoTerminal(t *testing.T) {
	p := newPerson(t)
	a, _ := p.app()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a.in = r
	err = a.exec(context.Background(), api.ExecRequest{Target: "x", Args: []string{"cat"}}, onTerminal)
	if err == nil || err.Error() != "the input device is not a TTY" {
		t.Error(err)
	}
}
