package runtime_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// interactive is a container that has one, or whose stdin is a pipe.
func (w *world) interactive(tty bool, args ...string) runtime.Config {
	c := w.config(args...)
	c.Spec.Process.Terminal, c.Stdin = tty, true
	return c
}

// says waits until the container's output holds want.
func (w *world) says(c runtime.Config, want string) {
	w.tb.Helper()
	w.until("output "+want, func() bool { return strings.Contains(w.text(c), want) },
		func() string { return w.text(c) })
}

func (w *world) until(what string, ok func() bool, now func() string) {
	w.tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.tb.Fatalf("no %s; there is %q\n%s", what, now(), w.keeperLog())
}

func (w *world) attach(c runtime.Config) *os.File {
	w.tb.Helper()
	f, err := w.rt.Attach(w.ctx(), c.ID())
	if err != nil {
		w.tb.Fatalf("attach: %v", err)
	}
	w.tb.Cleanup(func() { f.Close() })
	return f
}

func send(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatalf("write %q: %v", text, err)
	}
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(true, "sh")
	c.Rows, c.Columns = 33, 101
	w.start(c)
	master := w.attach(c)
	send(t, master, "busybox stty size; busybox tty; echo a''b\n")
	w.says(c, "ab\r\n")
	if got := w.text(c); !strings.Contains(got, "33 101\r\n") || !strings.Contains(got, "/dev/pts/0\r\n") {
		t.Errorf("terminal: %q", got)
	}
	if err := runtime.SetSize(master, 44, 55); err != nil {
		t.Fatal(err)
	}
	send(t, master, "busybox stty size\n")
	w.says(c, "44 55\r\n")
	send(t, master, "sleep 1000; echo in''terrupted\n")
	w.until("sleep", func() bool { return w.has(c, "sleep") }, func() string { return w.text(c) })
	send(t, master, "\x03")
	send(t, master, "echo an''d on\n")
	w.says(c, "and on\r\n")
	if strings.Contains(w.text(c), "interrupted\r") {
		t.Errorf("ctrl-c did not end the list: %q", w.text(c))
	}
	send(t, master, "sleep 1000\n")
	w.until("sleep", func() bool { return w.has(c, "sleep") }, func() string { return w.text(c) })
	send(t, master, "\x1a")
	w.says(c, "Stopped")
	send(t, master, "kill -9 %1; exit 7\nexit 7\n") // the first is refused if the job is still known
	if exit := w.finish(c); exit.Code != 7 || exit.Signal != "" {
		t.Errorf("exit = %+v", exit)
	}
}

// has tells whether a process of the container has this name.
func (w *world) has(c runtime.Config, name string) bool {
	out, _, _ := w.exec(c.ID(), runtime.Process{Args: []string{"ps", "-o", "args"}})
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, name) {
			return true
		}
	}
	return false
}

// TestTerminalToTheEnd: what is written last is not lost when the terminal hangs up.
func TestTerminalToTheEnd(t *testing.T) {
	w := newWorld(t)
	for range 10 {
		c := w.interactive(true, "sh", "-c", "seq 1 20000; echo en''d")
		w.start(c)
		if exit := w.finish(c); exit.Code != 0 {
			t.Errorf("exit = %+v", exit)
		}
		got := w.text(c)
		if n := strings.Count(got, "\r\n"); n != 20001 || !strings.HasSuffix(got, "20000\r\nend\r\n") {
			t.Fatalf("%d lines, the last is %q", n, got[max(0, len(got)-30):])
		}
	}
}

func TestTerminalBinary(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(true, "sh", "-c", `busybox stty raw -echo; echo; busybox printf 'a\001\200\377\000b\rc'; read x`)
	w.start(c)
	w.says(c, "a\x01\x80\xff\x00b\rc")
	send(t, w.attach(c), "\n")
	w.finish(c)
}

func TestTerminalSurvivesKeeper(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(true, "sh")
	st := w.start(c)
	w.await("the runtime to hold its terminal", holdsTerminal)
	master := w.attach(c)
	send(t, master, "echo be''fore\n")
	w.says(c, "before\r\n")
	old := w.rt.KeeperPid()
	unix.Kill(old, unix.SIGKILL)
	send(t, master, "echo mean''while\n")
	w.says(c, "meanwhile\r\n")
	again := w.attach(c)
	send(t, again, "busybox stty size; echo af''ter\n")
	w.says(c, "after\r\n")
	if now, err := w.rt.Get(w.ctx(), c.ID()); err != nil || now.Pid != st.Pid || now.State != runtime.Running {
		t.Errorf("status = %+v, %v", now, err)
	}
	send(t, again, "exit 3\n")
	if exit := w.finish(c); exit.Code != 3 {
		t.Errorf("exit = %+v", exit)
	}
}

// holdsTerminal says whether this process has the master of some terminal open.
func holdsTerminal() bool {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, err := os.Readlink(fd)
		return err == nil && filepath.Base(to) == "ptmx"
	})
}

func TestTerminalSurvivesUpgrade(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(true, "sh")
	w.start(c)
	send(t, w.attach(c), "echo be''fore\n")
	w.says(c, "before\r\n")
	if err := w.rt.Upgrade(w.ctx(), builtKeeper); err != nil {
		t.Fatal(err)
	}
	send(t, w.attach(c), "echo af''ter; exit\n")
	w.says(c, "after\r\n")
	w.finish(c)
}

func TestInput(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(false, "busybox", "sha256sum")
	w.start(c)
	in := w.attach(c)
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(in, sum), io.LimitReader(rand.New(rand.NewSource(1)), 24<<20)); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if now, err := w.rt.Get(w.ctx(), c.ID()); err != nil || now.State != runtime.Running {
		t.Errorf("the end of a writer ended the input: %+v, %v", now, err)
	}
	if err := w.rt.CloseStdin(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(c); exit.Code != 0 {
		t.Errorf("exit = %+v", exit)
	}
	if want := hex.EncodeToString(sum.Sum(nil)); !strings.HasPrefix(w.text(c), want) {
		t.Errorf("checksum %q, want %s", w.text(c), want)
	}
}

func TestInputSurvivesKeeper(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(false, "cat")
	w.start(c)
	in := w.attach(c)
	send(t, in, "one\n")
	in.Close()
	w.says(c, "one\n")
	unix.Kill(w.rt.KeeperPid(), unix.SIGKILL)
	in = w.attach(c)
	send(t, in, "two\n")
	in.Close()
	w.says(c, "two\n")
	if err := w.rt.CloseStdin(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(c); exit.Code != 0 || w.text(c) != "one\ntwo\n" {
		t.Errorf("exit = %+v, output %q", exit, w.text(c))
	}
}

func TestInputRefused(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	w.start(c)
	if _, err := w.rt.Attach(w.ctx(), c.ID()); !errors.Is(err, runtime.ErrNoInput) {
		t.Errorf("attach: %v", err)
	}
	if err := w.rt.CloseStdin(w.ctx(), c.ID()); !errors.Is(err, runtime.ErrNoInput) {
		t.Errorf("close: %v", err)
	}
	d := w.interactive(false, "sh", "-c", "read x; exec <&-; echo closed; sleep 1000")
	w.start(d)
	in := w.attach(d)
	send(t, in, "\n")
	w.says(d, "closed\n")
	if _, err := in.WriteString("x"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v", err)
	}
	if _, err := w.rt.Attach(w.ctx(), d.ID()); !errors.Is(err, runtime.ErrNoInput) {
		t.Errorf("attach: %v", err)
	}
}

// TestNoInitInput: without an init of ours the keeper holds the pipe open.
func TestNoInitInput(t *testing.T) {
	w := newWorld(t)
	c := w.interactive(false, "cat")
	c.Init = false
	w.start(c)
	in := w.attach(c)
	send(t, in, "one\n")
	in.Close()
	w.says(c, "one\n")
	if err := w.rt.CloseStdin(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(c); exit.Code != 0 {
		t.Errorf("exit = %+v", exit)
	}
}

// execTerminal runs p on a terminal and returns the terminal, what comes out of it, and how it ends.
func (w *world) execTerminal(ctx context.Context, id string, p runtime.Process) (*os.File, func() string, <-chan runtime.Exit) {
	w.tb.Helper()
	console, err := runtime.NewConsole()
	if err != nil {
		w.tb.Fatal(err)
	}
	p.Console = console.Socket
	ended := make(chan runtime.Exit, 1)
	go func() {
		exit, err := w.rt.Exec(ctx, id, p)
		console.Close()
		if err != nil {
			exit.Cause = err.Error()
		}
		ended <- exit
	}()
	master, err := console.Master(w.ctx())
	if err != nil {
		w.tb.Fatal(err)
	}
	out := &collected{}
	go io.Copy(out, master)
	return master, out.String, ended
}

func TestExecTerminal(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	w.start(c)
	p := runtime.Process{Args: []string{"sh"}, User: "web", Cwd: "/tmp", Env: []string{"A=b"}, Rows: 20, Columns: 70}
	master, out, ended := w.execTerminal(t.Context(), c.ID(), p)
	send(t, master, "busybox stty size; id -u; busybox pwd; echo $A; echo a''b\n")
	w.until("output", func() bool { return strings.Contains(out(), "ab\r\n") }, out)
	for _, want := range []string{"20 70\r\n", "1000\r\n", "/tmp\r\n", "b\r\n"} {
		if !strings.Contains(out(), want) {
			t.Errorf("no %q in %q", want, out())
		}
	}
	send(t, master, "sleep 999\n")
	w.until("sleep", func() bool { return w.has(c, "sleep 999") }, out)
	send(t, master, "\x03")
	send(t, master, "exit 5\n")
	if exit := <-ended; exit.Code != 5 || exit.Cause != "" {
		t.Errorf("exit = %+v", exit)
	}
	master.Close()

	// A terminal that goes away takes its processes along.
	master, out, ended = w.execTerminal(t.Context(), c.ID(), runtime.Process{Args: []string{"sh", "-c", "echo x; cat"}})
	w.until("output", func() bool { return strings.Contains(out(), "x") }, out)
	master.Close()
	if exit := <-ended; exit.Signal != "SIGHUP" {
		t.Errorf("after a hangup: %+v", exit)
	}
}

func TestExecPrivileged(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	w.start(c)
	if _, exit, err := w.exec(c.ID(), runtime.Process{Args: []string{"unshare", "-n", "true"}}); err != nil || exit.Code == 0 {
		t.Errorf("unprivileged: %+v, %v", exit, err)
	}
	out, exit, err := w.exec(c.ID(), runtime.Process{Privileged: true, Args: []string{"unshare", "-n", "true"}})
	if err != nil || exit.Code != 0 {
		t.Errorf("privileged: %q %+v, %v", out, exit, err)
	}
}

// collected is output that is looked at while it comes.
type collected struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *collected) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

func (c *collected) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}
