package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Host is one daemon with a root, run folder, bridge and cgroup parent of its own.
type Host struct {
	t      testing.TB
	Dir    string // everything below
	Bin    string // folder of the binaries
	Root   string
	RunDir string
	Units  string
	Socket string
	Bridge string
	Cgroup string
	Config string // text of wherry.yaml; may be set before Start

	daemon *exec.Cmd
	done   chan error
	log    *os.File
	small  bool // Root is a mount of SmallDisk
}

// Bin is the folder with wherry and wherry-keeper.
func Bin(t testing.TB) string {
	t.Helper()
	if b := os.Getenv("WHERRY_BIN"); b != "" {
		return b
	}
	b, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b, "wherry-keeper")); err != nil {
		t.Skip("the binaries are not built: scripts/build")
	}
	return b
}

// NewHost makes a host without starting its daemon. At the test's end the
// daemon is stopped, and what it left behind fails the test.
func NewHost(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	id := make([]byte, 3)
	rand.Read(id)
	tag := "whi" + hex.EncodeToString(id)
	// A short path: a Unix socket's may have 107 bytes.
	dir := filepath.Join(os.TempDir(), tag)
	h := &Host{
		t: t, Dir: dir, Bin: Bin(t), Root: dir + "/lib", RunDir: dir + "/run", Units: dir + "/units",
		Socket: dir + "/run/wherry.sock", Bridge: tag, Cgroup: tag,
	}
	for _, d := range []string{h.Root, h.RunDir, h.Units} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.close)
	return h
}

// StartHost makes a host and starts its daemon.
func StartHost(t testing.TB) *Host {
	t.Helper()
	h := NewHost(t)
	h.Start()
	return h
}

// Start starts the daemon and waits until it answers.
func (h *Host) Start(flags ...string) {
	h.t.Helper()
	config := h.Dir + "/wherry.yaml"
	if err := os.WriteFile(config, []byte(h.Config), 0o644); err != nil {
		h.t.Fatal(err)
	}
	if h.log == nil {
		f, err := os.OpenFile(h.Dir+"/daemon.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			h.t.Fatal(err)
		}
		h.log = f
	}
	args := append(append([]string{"daemon", "--config", config}, h.Flags()...), flags...)
	h.daemon = exec.Command(h.Bin+"/wherry", args...)
	h.daemon.Stdout, h.daemon.Stderr = h.log, h.log
	if err := h.daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.done = make(chan error, 1)
	go func(c *exec.Cmd, done chan error) { done <- c.Wait() }(h.daemon, h.done)
	Eventually(h.t, 30*time.Second, "the daemon answers", func() bool {
		select {
		case err := <-h.done:
			h.t.Fatalf("the daemon ended: %v\n%s", err, h.DaemonLog())
		default:
		}
		return h.Run("status").Code == 0
	})
}

// Flags are what keeps this host's daemon apart from others.
func (h *Host) Flags() []string {
	return []string{"--root", h.Root, "--run-dir", h.RunDir, "--units", h.Units, "--socket", h.Socket,
		"--bridge", h.Bridge, "--cgroup-parent", h.Cgroup, "--keeper", h.Bin + "/wherry-keeper"}
}

// SecondDaemon starts one more daemon on the same root, which must fail.
func (h *Host) SecondDaemon() (output string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience*20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, h.daemon.Path, h.daemon.Args[1:]...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// SmallDisk puts a file system of size bytes under Root, before Start.
func (h *Host) SmallDisk(size int64) {
	h.t.Helper()
	// A tmpfs: no journal of its own in the way of the last byte.
	if err := unix.Mount("wherry-test", h.Root, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size)); err != nil {
		h.t.Fatal(err)
	}
	h.small = true
}

// DaemonPid is the daemon's process id.
func (h *Host) DaemonPid() int { return h.daemon.Process.Pid }

// KillKeeper is kill -9 of the keeper; it returns when another one answers.
func (h *Host) KillKeeper() {
	h.t.Helper()
	old := h.keeperPid()
	if old <= 1 {
		h.t.Fatalf("the keeper has pid %d", old)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	Eventually(h.t, 20*time.Second, "a new keeper", func() bool {
		i, err := h.Client().Info(context.Background())
		return err == nil && i.KeeperPid != 0 && i.KeeperPid != old
	})
}

// KillDaemon is kill -9.
func (h *Host) KillDaemon() { h.end(syscall.SIGKILL) }

// StopDaemon ends the daemon gracefully; containers run on.
func (h *Host) StopDaemon() { h.end(syscall.SIGTERM) }

func (h *Host) end(sig syscall.Signal) {
	h.t.Helper()
	if h.daemon == nil {
		return
	}
	h.daemon.Process.Signal(sig)
	select {
	case <-h.done:
	case <-time.After(patience * 60 * time.Second):
		h.daemon.Process.Kill()
		h.t.Errorf("the daemon does not end after %v\n%s", sig, h.DaemonLog())
	}
	h.daemon = nil
}

// logTail is how much of a log a failure shows: its end tells what happened.
const logTail = 8 << 10

// DaemonLog is the last of what the daemons of this host said, and its keeper.
func (h *Host) DaemonLog() string {
	return tail(h.Dir+"/daemon.log") + "--- keeper.log\n" + tail(h.RunDir+"/keeper.log")
}

func tail(file string) string {
	b, _ := os.ReadFile(file)
	if len(b) <= logTail {
		return string(b)
	}
	b = b[len(b)-logTail:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return "[...]\n" + string(b)
}

// Client speaks the daemon's API.
func (h *Host) Client() *api.Client { return api.Dial(h.Socket) }

// Result is what a ctl command said.
type Result struct {
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

// Run runs `wherry ctl ARGS`.
func (h *Host) Run(args ...string) Result {
	h.t.Helper()
	return h.run(60*time.Second, "", args...)
}

// RunIn is Run with a time limit.
func (h *Host) RunIn(limit time.Duration, args ...string) Result {
	h.t.Helper()
	return h.run(limit, "", args...)
}

// Feed is Run with text on stdin, which is otherwise empty.
func (h *Host) Feed(stdin string, args ...string) Result {
	h.t.Helper()
	return h.run(60*time.Second, stdin, args...)
}

func (h *Host) run(limit time.Duration, stdin string, args ...string) Result {
	h.t.Helper()
	limit *= patience
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, h.Bin+"/wherry", append([]string{"ctl", "--socket", h.Socket}, args...)...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	start := time.Now()
	err := c.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		h.t.Fatalf("wherry ctl %s: no end within %v\n%s%s\n%s", strings.Join(args, " "), limit, r.Stdout, r.Stderr, h.DaemonLog())
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		h.t.Fatal(err)
	}
	return r
}

// OK runs a ctl command that must succeed and returns its stdout.
func (h *Host) OK(args ...string) string {
	h.t.Helper()
	r := h.Run(args...)
	if r.Code != 0 {
		h.t.Fatalf("wherry ctl %s: exit code %d\n%s%s\n--- daemon\n%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr, h.DaemonLog())
	}
	return r.Stdout
}

// Fails runs a ctl command that must end with code, and whose stderr must have every part.
func (h *Host) Fails(code int, parts []string, args ...string) Result {
	h.t.Helper()
	r := h.Run(args...)
	if r.Code != code {
		h.t.Errorf("wherry ctl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
	}
	for _, p := range parts {
		if !strings.Contains(r.Stderr, p) {
			h.t.Errorf("wherry ctl %s: no %q in\n%s", strings.Join(args, " "), p, r.Stderr)
		}
	}
	return r
}

// Apply writes a unit file and applies it.
func (h *Host) Apply(name, text string) {
	h.t.Helper()
	h.OK("apply", h.WriteUnit(name, text))
}

// WriteUnit writes a unit file outside the watched folder and returns its path.
func (h *Host) WriteUnit(name, text string) string {
	h.t.Helper()
	file := filepath.Join(h.Dir, name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// Unit is the unit's current state.
func (h *Host) Unit(name string) api.UnitDetail {
	h.t.Helper()
	u, err := h.Client().Unit(context.Background(), name)
	if err != nil {
		h.t.Fatalf("unit %s: %v\n%s", name, err, h.DaemonLog())
	}
	return u
}

// Running waits until the instance runs and returns it.
func (h *Host) Running(unit string, index int) api.Instance {
	h.t.Helper()
	var in api.Instance
	Eventually(h.t, 30*time.Second, fmt.Sprintf("%s.%d runs", unit, index), func() bool {
		u, err := h.Client().Unit(context.Background(), unit)
		if err != nil || len(u.Instances) < index {
			return false
		}
		in = u.Instances[index-1]
		return in.State == "running" && in.Pid > 0
	})
	return in
}

// MainPid is the pid of the user's program in an instance: the child of the
// container's init, or the process itself when there is no init.
func (h *Host) MainPid(in api.Instance) int {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", in.Pid, in.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		return in.Pid
	}
	return pid
}

// patience is how many times longer than a quiet machine would ever need tests wait on one that is slow and loaded.
const patience = 4

// Eventually polls until ok or the limit, which is generous: it is no measurement.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	limit *= patience
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
