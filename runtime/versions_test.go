package runtime_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// client is a connection to a keeper that speaks as an older program does.
type client struct {
	t    *testing.T
	conn *wire.Conn
	id   uint32
}

func dialKeeper(t *testing.T, socket string, versions wire.Versions) (*client, wire.HelloReply) {
	t.Helper()
	s, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: wire.NewConn(s.(*net.UnixConn))}
	t.Cleanup(func() { c.conn.Close() })
	c.conn.Speak(1)
	m := c.call(wire.Hello, wire.HelloRequest{Versions: versions})
	var r wire.HelloReply
	if err := m.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func (c *client) call(typ wire.Type, body any) *wire.Message {
	c.t.Helper()
	c.id++
	m, err := wire.New(typ, c.id, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.conn.Send(m); err != nil {
		c.t.Fatal(err)
	}
	if m, err = c.conn.Receive(); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// TestOldClient: a program of version 1 talks to a keeper of version 2, and what
// it cannot know is refused by name.
func TestOldClient(t *testing.T) {
	w := newWorld(t)
	conf := w.config("sleep", "1000")
	w.start(conf)
	c, hello := dialKeeper(t, filepath.Join(w.run, "keeper.sock"), wire.Versions{Min: 1, Max: 1})
	if hello.Version != 1 {
		t.Errorf("agreed on %d", hello.Version)
	}
	m := c.call(wire.List, nil)
	var list []runtime.Status
	if err := m.Decode(&list); err != nil || m.Version != 1 || len(list) != 1 || list[0].State != runtime.Running {
		t.Errorf("list = %+v, %v in version %d", list, err, m.Version)
	}
	var exit runtime.Exit
	m = c.call(wire.Exec, map[string]any{"id": conf.ID(), "args": []string{"sh", "-c", "exit 4"}})
	if err := m.Decode(&exit); err != nil || exit.Code != 4 {
		t.Errorf("exec: %+v, %v", exit, err)
	}
	for _, typ := range []wire.Type{wire.MakeNamespaces, wire.Update, wire.Attach, wire.Heirlooms, wire.AwaitExec, 99} {
		m := c.call(typ, wire.ContainerRequest{ID: conf.ID()})
		var e wire.ErrorReply
		if err := m.Decode(&e); m.Type != wire.Error || err != nil || !strings.Contains(e.Message, "needs keeper protocol ") {
			t.Errorf("request %d: %+v, %v", typ, e, err)
		}
	}
	if _, err := w.rt.Get(t.Context(), conf.ID()); err != nil {
		t.Errorf("for the others: %v", err)
	}
}

// fakeKeeper listens where a keeper does.
func fakeKeeper(t *testing.T, dir string, answer func(*wire.Conn)) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "keeper.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			s, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go answer(wire.NewConn(s))
		}
	}()
}

// answerOld answers as a keeper of version 1 does.
func answerOld(conn *wire.Conn) {
	defer conn.Close()
	conn.Speak(1)
	for {
		m, err := conn.Receive()
		if err != nil {
			return
		}
		typ, body := wire.Reply, any(nil)
		switch m.Type {
		case wire.Hello:
			body = wire.HelloReply{Version: 1, Pid: 42, Instance: "old"}
		case wire.List:
			body = []map[string]any{{"id": "web.1-7f3k.app", "state": "running", "pid": 7}}
		case wire.Start:
			body = map[string]any{"id": "web.1-7f3k.app", "state": "running", "pid": 7}
		default:
			typ, body = wire.Error, wire.ErrorReply{Code: wire.Internal, Message: "unsupported operation"}
		}
		r, err := wire.New(typ, m.ID, body)
		if err != nil || m.Type > wire.Cancel || conn.Send(r) != nil {
			return // what version 1 does not know must never be sent to it
		}
	}
}

// TestOldKeeper: the other way round. A container of which an old keeper would leave out a
// part is not started.
func TestOldKeeper(t *testing.T) {
	dir := t.TempDir()
	fakeKeeper(t, dir, answerOld)
	rt, err := runtime.Open(t.Context(), runtime.Options{Root: dir, RunDir: dir, Keeper: "/no/such/keeper"})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list, err := rt.List(ctx)
	if err != nil || len(list) != 1 || list[0].Pid != 7 {
		t.Errorf("list = %+v, %v", list, err)
	}
	c := runtime.Config{Run: "web.1-7f3k", Container: "app", Spec: testSpec("true")}
	if st, err := rt.Start(ctx, c); err != nil || st.Pid != 7 {
		t.Errorf("start: %+v, %v", st, err)
	}
	needs := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "needs keeper protocol 2") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = rt.MakeNamespaces(ctx, runtime.Namespaces{Run: "r", Net: true})
	needs("namespaces", err)
	for name, change := range map[string]func(*runtime.Config){
		"join": func(c *runtime.Config) { c.Join = true }, "id map": func(c *runtime.Config) { c.IDMap = &runtime.IDMap{Size: 1} },
		"oom": func(c *runtime.Config) { c.OOM = "process" }, "stdin": func(c *runtime.Config) { c.Stdin = true },
		"groups": func(c *runtime.Config) { c.GroupAdd = []string{"x"} },
		"tty":    func(c *runtime.Config) { c.Spec = testSpec("true"); c.Spec.Process.Terminal = true },
	} {
		d := c
		change(&d)
		_, err := rt.Start(ctx, d)
		needs(name, err)
	}
	_, err = rt.Exec(ctx, "web.1-7f3k.app", runtime.Process{Args: []string{"true"}, Privileged: true})
	needs("exec", err)
}
