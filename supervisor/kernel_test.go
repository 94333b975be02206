package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// buildKeeper builds the keeper once, as the product's build does.
var buildKeeper = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wherry-keeper-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "wherry-keeper")
	cmd := exec.Command("go", "build", "-tags", "seccomp netgo osusergo", "-ldflags", `-s -w -extldflags "-static"`,
		"-o", bin, "../cmd/wherry-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	keeperDir = dir
	return bin, nil
})

var keeperDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if keeperDir != "" {
		os.RemoveAll(keeperDir)
	}
	os.Exit(code)
}

// host is a root, a run folder, a bridge and a registry of a test's own.
type host struct {
	t       testing.TB
	opts    supervisor.Options
	image   string
	running *supervisor.Supervisor
	cancel  context.CancelFunc
	ended   chan error
}

func newHost(t testing.TB) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	bb, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox: apt-get install busybox-static")
	}
	keeper, err := buildKeeper()
	if err != nil {
		t.Fatal(err)
	}
	reg := imagetest.Start()
	t.Cleanup(reg.Close)
	img, err := imagetest.Busybox(bb)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Push("busybox:1", img); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "whs-")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dir)
	h := &host{t: t, image: reg.Host + "/busybox:1", opts: supervisor.Options{Root: filepath.Join(dir, "root"), RunDir: filepath.Join(dir, "run"),
		Keeper: keeper, CgroupParent: name, Bridge: "whs" + name[len(name)-8:], StopAtExit: true, Logger: slog.New(slog.DiscardHandler)}}
	if testing.Verbose() {
		h.opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(func() { h.nothingLeft(dir) })
	return h
}

func (h *host) begin() *supervisor.Supervisor {
	h.t.Helper()
	s, err := supervisor.New(h.opts)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.running, h.cancel, h.ended = s, cancel, make(chan error, 1)
	go func() { h.ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-h.ended:
		cancel()
		h.t.Fatal("Run ended: ", err)
	}
	return s
}

func (h *host) end() {
	h.t.Helper()
	h.cancel()
	if err := <-h.ended; err != nil {
		h.t.Error("Run: ", err)
	}
	h.running = nil
}

// nothingLeft ends what runs and asserts that the host is as before.
func (h *host) nothingLeft(dir string) {
	if h.running != nil {
		h.end()
	}
	deadline := time.Now().Add(time.Minute)
	for {
		left := h.leftovers(dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			h.t.Errorf("left over: %s", strings.Join(left, ", "))
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = exec.Command("ip", "link", "del", h.opts.Bridge).Run()
	_ = exec.Command("nft", "delete", "table", "ip", h.opts.Bridge).Run()
	os.RemoveAll(dir)
}

func (h *host) leftovers(dir string) (left []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + h.opts.CgroupParent + "/*.*", "/sys/fs/cgroup/" + h.opts.CgroupParent + "/*.*", h.opts.Root + "/runs/*"} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			if st, err := os.Stat(f); err == nil && st.IsDir() {
				left = append(left, f)
			}
		}
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		if raw, err := os.Readlink("/sys/class/net/" + l.Name + "/master"); err == nil && filepath.Base(raw) == h.opts.Bridge {
			left = append(left, "device "+l.Name)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		raw, _ := os.ReadFile(p)
		if strings.Contains(string(raw), dir) {
			left = append(left, "process "+filepath.Base(filepath.Dir(p))+" "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	return left
}

func (h *host) apply(text string) {
	h.t.Helper()
	_, err := h.running.Apply(h.ctx(), api.ApplyRequest{Files: []api.File{{Source: "/units/u.yaml", Text: text}}}, "test")
	if err != nil {
		h.t.Fatal(err)
	}
}

// patience is a time that no healthy test needs, on a slow and loaded machine either.
const patience = 3 * time.Minute

func (h *host) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *host) unit(name string) api.Unit {
	h.t.Helper()
	for _, u := range h.running.Units() {
		if u.Name == name {
			return u
		}
	}
	h.t.Fatalf("no unit %s", name)
	return api.Unit{}
}

func (h *host) state(name, state string) {
	h.t.Helper()
	if err := h.running.WaitState(h.ctx(), []string{name}, state); err != nil {
		h.t.Fatalf("%v: %+v", err, h.running.Units())
	}
}

func (h *host) logs(target string) string {
	h.t.Helper()
	var b strings.Builder
	for l, err := range h.running.Logs(h.ctx(), api.LogsRequest{Target: target}) {
		if err != nil {
			h.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n", l.Text)
	}
	return b.String()
}

// A crash is healed, and the daemon's end and return disturb nothing.
func TestRealHealAndAdopt(t *testing.T) {
	h := newHost(t)
	h.opts.StopAtExit = false
	h.begin()
	h.apply("name: web\nimage: " + h.image + "\ncommand: [sh, -c, 'echo began $HOSTNAME; exec sleep 1000']\nreplicas: 2\n" +
		"resources: {limits: {memory: 64MiB, pids: 50}}\nvolumes: [data:/data, /anon]\n")
	h.state("web", "running")
	before := h.unit("web").Instances
	h.until("two starts in the log", func() bool { return strings.Count(h.logs("web"), "began") == 2 })
	if err := unix.Kill(before[0].Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.until("healed", func() bool { u := h.unit("web"); return u.Instances[0].Run != before[0].Run && u.State == "running" })
	t.Logf("healed in %v", time.Since(began))
	u := h.unit("web")
	if u.Instances[0].Restarts != 1 || u.Instances[1].Pid != before[1].Pid {
		t.Fatalf("%+v", u)
	}
	h.end()
	h.begin()
	h.state("web", "running")
	again := h.unit("web")
	for i := range again.Instances {
		if again.Instances[i].Pid != u.Instances[i].Pid || again.Instances[i].Address != u.Instances[i].Address || again.Instances[i].Address == "" {
			t.Errorf("after a restart of the daemon %+v, before %+v", again.Instances[i], u.Instances[i])
		}
	}
	h.until("three starts in the log", func() bool { return strings.Count(h.logs("web"), "began") == 3 })
	// A run that ends while nobody watches is known afterwards.
	h.end()
	if err := unix.Kill(again.Instances[1].Pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.until("its end", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", again.Instances[1].Pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
	h.begin()
	h.state("web", "running")
	if _, err := h.running.Remove(h.ctx(), api.ActRequest{Units: []string{"web"}}, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.opts.Root + "/volumes/data/data"); err != nil {
		t.Error(err)
	}
	h.end()
	h.opts.StopAtExit = true
	h.begin()
}

func TestRealRun(t *testing.T) {
	h := newHost(t)
	s := h.begin()
	def := func(network string, args ...string) unit.Unit {
		return unit.Unit{Network: network, Containers: []unit.Container{{Image: h.image, Init: true, Command: args}}}
	}
	for _, network := range []string{"host", "bridge", "none"} {
		for range 5 {
			began := time.Now()
			name, err := s.RunUnit(h.ctx(), api.RunRequest{Unit: def(network, "true"), Remove: true, Attach: true}, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			started := time.Since(began)
			x, err := s.WaitExit(h.ctx(), name)
			if err != nil || x.Code != 0 || x.Unknown {
				t.Fatalf("%+v %v", x, err)
			}
			exited := time.Since(began)
			// After a while it goes by itself.
			if _, err := s.Remove(h.ctx(), api.ActRequest{Units: []string{name}, Force: true}, "test"); err != nil && !errors.Is(err, api.ErrNoSuchUnit) {
				t.Fatal(err)
			}
			t.Logf("%s: started %v, exited %v, removed %v", network, started, exited, time.Since(began))
		}
	}
	_, err := s.RunUnit(h.ctx(), api.RunRequest{Unit: def("bridge", "/no/such"), Remove: true}, "test", nil)
	if !errors.Is(err, runtime.ErrCommand) {
		t.Errorf("command not found: %v", err)
	}
	_, err = s.RunUnit(h.ctx(), api.RunRequest{Unit: def("bridge", "/etc/passwd"), Remove: true}, "test", nil)
	if !errors.Is(err, runtime.ErrNotExecutable) {
		t.Errorf("not executable: %v", err)
	}
	if left := s.Units(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	name, err := s.RunUnit(h.ctx(), api.RunRequest{Unit: def("host", "sh", "-c", "echo out; echo err >&2; exit 7")}, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	var streams []string
	for l, err := range s.Logs(h.ctx(), api.LogsRequest{Target: name, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, l.Stream+" "+string(l.Text))
	}
	if len(streams) != 2 {
		t.Errorf("%v", streams)
	}
	if x, err := s.WaitExit(h.ctx(), name); err != nil || x.Code != 7 {
		t.Errorf("%+v %v", x, err)
	}
}

func TestRealExecAndStop(t *testing.T) {
	h := newHost(t)
	s := h.begin()
	h.apply("name: x\nimage: " + h.image + "\ncommand: [sh, -c, 'trap \"exit 5\" TERM; echo ready; while :; do sleep 0.1; done']\nports: [\"18473:80\"]\nrestart: \"no\"\nstop_grace_period: 3m\n")
	h.state("x", "running")
	h.until("ready", func() bool { return strings.Contains(h.logs("x"), "ready") })
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	x, err := s.Exec(h.ctx(), api.ExecRequest{Target: "x", Args: []string{"sh", "-c", "cat /etc/hostname /etc/hosts; exit 3"}}, "test", nil, out, nil)
	if err != nil || x.Code != 3 {
		t.Fatal(x, err)
	}
	text, _ := os.ReadFile(out.Name())
	if address := h.unit("x").Instances[0].Address; !strings.Contains(string(text), "x-1\n") || !strings.Contains(string(text), address+"\t") {
		t.Errorf("names inside: %q", text)
	}
	// The port is taken: the other unit is refused by name.
	_, err = s.Apply(h.ctx(), api.ApplyRequest{Files: []api.File{{Source: "/y.yaml", Text: "image: i\nports: [\"18473:1\"]\n"}}}, "test")
	if err == nil || !strings.Contains(err.Error(), "published by unit x") {
		t.Errorf("second unit on a port: %v", err)
	}
	if _, err := s.Stop(h.ctx(), api.ActRequest{Units: []string{"x"}}, "test"); err != nil {
		t.Fatal(err)
	}
	u := h.unit("x")
	if u.State != "stopped" || u.Instances[0].Exit == nil || u.Instances[0].Exit.Code != 5 {
		t.Errorf("%+v", u)
	}
	if d, err := s.Unit(h.ctx(), "x"); err != nil || d.Digest == "" {
		t.Error(d, err)
	}
}

// The keeper's death disturbs no container, and what ends meanwhile is known.
func TestRealKeeperKilled(t *testing.T) {
	h := newHost(t)
	s := h.begin()
	h.apply("name: web\nimage: " + h.image + "\ncommand: [sh, -c, 'trap \"exit 9\" TERM; echo ready; while :; do sleep 0.05; done']\n")
	h.state("web", "running")
	h.until("ready", func() bool { return strings.Contains(h.logs("web"), "ready") })
	before, keeper := h.unit("web").Instances[0], s.Info().KeeperPid
	if err := unix.Kill(keeper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.until("a new keeper", func() bool { p := s.Info().KeeperPid; return p != 0 && p != keeper })
	if now := h.unit("web").Instances[0]; now.Pid != before.Pid || now.Run != before.Run {
		t.Fatalf("%+v, before %+v", now, before)
	}
	if x, err := s.Exec(h.ctx(), api.ExecRequest{Target: "web", Args: []string{"true"}}, "test", nil, nil, nil); err != nil || x.Code != 0 {
		t.Error(x, err)
	}
	if err := unix.Kill(s.Info().KeeperPid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(before.Pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.until("healed", func() bool {
		now := h.unit("web").Instances[0]
		return now.Run != before.Run && now.State == "running"
	})
	for e, err := range s.Events(h.ctx(), 0, false) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "exit" && e.Run == before.Run && (e.Exit.Code != 9 || e.Exit.Unknown) {
			t.Errorf("exit %+v", e.Exit)
		}
	}
}
