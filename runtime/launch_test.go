package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// TestTwoRuntimes: two clients share a keeper; the one that comes second starts
// none.
func TestTwoRuntimes(t *testing.T) {
	w := newWorld(t)
	other := w.open("/no/such/keeper")
	defer other.Close()
	if other.KeeperPid() != w.rt.KeeperPid() {
		t.Errorf("keepers %d and %d", other.KeeperPid(), w.rt.KeeperPid())
	}
	c := w.config("sleep", "1000")
	w.start(c)
	if st, err := other.Get(t.Context(), c.ID()); err != nil || st.State != runtime.Running {
		t.Errorf("seen by the other: %+v, %v", st, err)
	}
}

// TestKeeperCannotStart: the error says what the keeper said.
func TestKeeperCannotStart(t *testing.T) {
	w := newWorld(t)
	_, err := runtime.Open(t.Context(), runtime.Options{Root: w.root, RunDir: filepath.Join(w.root, "run2"), Keeper: "/bin/false"})
	if !errors.Is(err, runtime.ErrKeeper) || !strings.Contains(err.Error(), "/bin/false") {
		t.Errorf("error = %v", err)
	}
	_, err = runtime.Open(t.Context(), runtime.Options{Root: "/dev/null/x", RunDir: filepath.Join(w.root, "run3"), Keeper: builtKeeper})
	if !errors.Is(err, runtime.ErrKeeper) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("error = %v", err)
	}
}

// TestKeeperKilledAtItsStart: one that is killed before it is of use is started again, one that ends by itself is not.
func TestKeeperKilledAtItsStart(t *testing.T) {
	w := newWorld(t)
	if err := w.rt.StopKeeper(w.ctx()); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(w.run, "keeper.sh")
	write := func(first string) {
		t.Helper()
		text := "#!/bin/sh\nif mkdir $0.once 2>/dev/null; then " + first + "; fi\nexec " + builtKeeper + " \"$@\"\n"
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("exit 7")
	o := runtime.Options{Root: w.root, RunDir: w.run, Keeper: script, CgroupParent: w.group}
	if _, err := runtime.Open(w.ctx(), o); err == nil || !strings.Contains(err.Error(), "it ended at once") {
		t.Errorf("one that fails: %v", err)
	}
	for name, first := range map[string]string{
		"one that was killed":                      "kill -9 $$",
		"one that was killed after it was ready":   "echo >&3; kill -9 $$",
		"one that ended before anybody came to it": "echo >&3; exit 0",
	} {
		os.Remove(script + ".once")
		write(first)
		rt, err := runtime.Open(w.ctx(), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := rt.StopKeeper(w.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(script + ".once")
	w.rt = w.open(builtKeeper)
}

// TestStopKeeperStartsNone: whoever loses the keeper over its end does not bring it back.
func TestStopKeeperStartsNone(t *testing.T) {
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	script := filepath.Join(dir, "keeper.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n: > "+started+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	first := make(chan *wire.Conn, 1)
	fakeKeeper(t, dir, func(conn *wire.Conn) {
		select {
		case first <- conn:
		default:
		}
		answerFake(conn, wire.HelloReply{}, func() { // its socket goes and other connections end before it answers
			os.Remove(filepath.Join(dir, "keeper.sock"))
			(<-first).Close()
			time.Sleep(300 * time.Millisecond) // in which another one would be started
		})
	})
	rt, err := runtime.Open(t.Context(), runtime.Options{Root: dir, RunDir: dir, Keeper: script})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.StopKeeper(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(started); err == nil {
		t.Error("another keeper was started")
	}
	if _, err := rt.List(t.Context()); !errors.Is(err, runtime.ErrKeeper) {
		t.Errorf("afterwards: %v", err)
	}
}

// answerFake answers as a keeper of version 1 that knows no containers. It does shutdown when it is asked to end.
func answerFake(conn *wire.Conn, hello wire.HelloReply, shutdown func()) {
	defer conn.Close()
	conn.Speak(1)
	hello.Version, hello.Pid, hello.Instance = 1, 42, "fake"
	for {
		m, err := conn.Receive()
		if err != nil {
			return
		}
		var body any
		switch m.Type {
		case wire.Hello:
			body = hello
		case wire.Shutdown:
			shutdown()
		}
		r, err := wire.New(wire.Reply, m.ID, body)
		if err != nil || conn.Send(r) != nil || m.Type == wire.Shutdown {
			return
		}
	}
}

// TestStopKeeperThatIsManaged: it is left to whoever manages it, and the connection to it ends.
func TestStopKeeperThatIsManaged(t *testing.T) {
	dir := t.TempDir()
	ended := make(chan struct{}) // the first connection, that of Open
	var opened atomic.Int32
	fakeKeeper(t, dir, func(conn *wire.Conn) {
		if opened.Add(1) == 1 {
			defer close(ended)
		}
		answerFake(conn, wire.HelloReply{Managed: true}, func() { t.Error("it is asked to end") })
	})
	rt, err := runtime.Open(t.Context(), runtime.Options{Root: dir, RunDir: dir, Keeper: "/no/such/keeper"})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.StopKeeper(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the connection stays")
	}
}
