package main

import (
	"bufio"
	"context"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/api/apitest"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wherry": main})
}

// TestScripts runs each script with a pretended daemon of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":   runWithCode,
			"calls":  checkCalls,
			"end":    endUnit,
			"signal": signalled,

			"interrupt": interrupted,
			"break":     breakImage,
			"fail":      failCalls,
			"heal":      func(ts *testscript.TestScript, _ bool, _ []string) { daemonOf(ts).Heal() },
		},
	})
}

type daemonKey struct{}

// setup starts the daemon at $WHERRY_SOCKET.
func setup(e *testscript.Env) error {
	d := apitest.New()
	populate(d)
	dir, err := os.MkdirTemp("", "whctl")
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.ListenAndServe(ctx, socket) }()
	e.Defer(func() {
		cancel()
		<-done
		os.RemoveAll(dir)
	})
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			break
		}
		select {
		case err := <-done:
			return err
		case <-time.After(time.Millisecond):
		}
	}
	e.Values[daemonKey{}] = d
	e.Setenv("WHERRY_SOCKET", socket)
	e.Setenv("TZ", "UTC")
	// The race detector has every program sleep for a second before it exits, and the scripts run hundreds.
	e.Setenv("GORACE", "atexit_sleep_ms=20")
	return nil
}

// populate makes a small world: a unit in each state that matters.
func populate(d *apitest.Daemon) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d - 100*time.Millisecond) }
	web := api.Unit{Name: "web", Kind: "service", State: plan.StateRunning, Intent: "running", Revision: 3, Image: "nginx:1.27",
		Command: []string{"nginx", "-g", "daemon off;"}, Network: "bridge", Replicas: 2, Running: 2, Restarts: 1,
		CreatedAt: ago(3 * time.Hour), Since: ago(2 * time.Hour), Labels: map[string]string{"team": "shop"},
		Ports: []unit.Port{{HostPort: 80, Port: 8080, Protocol: "tcp"}},
		Instances: []api.Instance{
			{Name: "web.1", State: plan.StateRunning, Run: "web.1-7f3k", Pid: 4001, Address: "10.88.0.2/16", StartedAt: ago(2 * time.Hour)},
			{Name: "web.2", State: plan.StateRunning, Run: "web.2-9d2x", Pid: 4002, Address: "10.88.0.3/16", StartedAt: ago(time.Hour), Restarts: 1},
		}}
	definition := unit.Unit{Kind: unit.Service, Name: "web", Replicas: 2, Network: "bridge", Restart: unit.DefaultRestart(),
		Containers: []unit.Container{{Name: "app", Image: "nginx:1.27", Environment: map[string]string{"A": "b"}, User: "1000",
			Volumes: []unit.Volume{{Type: "bind", Source: "/srv", Target: "/www", ReadOnly: true}}}}}
	d.Add(api.UnitDetail{Unit: web, Definition: definition, Digest: "sha256:abc", Stale: true,
		Revisions: []api.Revision{{Number: 3, AppliedAt: now, By: "root (uid 0, pid 1)", Source: "/etc/wherry/units/web.yaml"}}},
		line("web.1", "stdout", "one", now), line("web.2", "stderr", "two", now), line("web.1", "stdout", "three", now))

	one := func(name, state string, i api.Instance) api.Unit {
		i.Name, i.State = name+".1", state
		running := 0
		if state == plan.StateRunning {
			running = 1
		}
		return api.Unit{Name: name, Kind: "service", State: state, Intent: "running", Revision: 1, Image: "busybox", Network: "host",
			Replicas: 1, Running: running, CreatedAt: ago(time.Minute), Since: ago(time.Minute), Instances: []api.Instance{i}}
	}
	d.Add(api.UnitDetail{Unit: one("db", plan.StateRunning, api.Instance{Pid: 5001, StartedAt: ago(3 * time.Minute)})},
		api.LogLine{Unit: "db", Instance: "db.1", Stream: "stdout", Time: now, Partial: true, Text: []byte("no ")},
		line("db.1", "stdout", "newline", now), line("db.1", "stderr", "wrong", now))
	seven := one("seven", plan.StateFailed, api.Instance{StartedAt: ago(8 * time.Minute), EndedAt: ago(5 * time.Minute),
		Exit: &api.Exit{Code: 7, At: ago(5 * time.Minute)}})
	d.Add(api.UnitDetail{Unit: seven})
	killed := one("killed", plan.StateFailed, api.Instance{Exit: &api.Exit{Signal: "SIGKILL", OOM: true, Cause: "limit 64 MiB", At: ago(5 * time.Minute)}})
	d.Add(api.UnitDetail{Unit: killed})
	d.KeepExit(api.ExitRecord{Unit: "killed", Instance: "killed.1", Run: "killed.1-0", Container: "app", Revision: 1, At: ago(6 * time.Minute),
		Step: "rootfs", Error: "no such file"})
	worker := api.Task{Pid: 77, Comm: "worker", RSS: 60 << 20}
	d.KeepExit(api.ExitRecord{Unit: "killed", Instance: "killed.1", Run: "killed.1-1", Container: "app", Revision: 1, At: ago(5 * time.Minute),
		Exit: &api.Exit{Signal: "SIGKILL", Status: 9, OOM: true, At: ago(5 * time.Minute)}, Memory: &api.MemoryUse{Peak: 64 << 20, Limit: 64 << 20},
		Pressure: &cgroup.Pressure{Host: true, Memory: cgroup.Stall{Some10: 55}},
		LastOOM:  &api.OOM{Kills: 1, Victim: &worker, Tasks: []api.Task{worker}},
		Output:   []api.OutputLine{{Time: ago(5 * time.Minute), Stream: "stdout", Text: "last words"}}})
	sick := one("sick", plan.StateBackoff, api.Instance{NextTry: now.Add(time.Hour), Attempt: 3,
		Error: "unit sick: container app: network: port 80: address already in use"})
	sick.Reason = "the last start failed"
	d.Add(api.UnitDetail{Unit: sick})

	d.AddImage(api.Image{Names: []string{"127.0.0.1:5000/busybox:latest"}, ConfigID: "sha256:0123456789abcdef0123", Digest: "sha256:fedcba9876543210",
		Platform: "linux/amd64", Size: 1_234_567, Created: ago(48 * time.Hour), PulledAt: ago(time.Hour)})
	d.AddOperation(api.Operation{ID: "pull-web", Kind: "pull", Object: "nginx:1.27", Unit: "web", Instance: "web.2", StartedAt: now,
		Step: "fetch", Done: 1000, Total: 4000, Rate: 500, Left: 6 * time.Second})
	d.AddEvent(api.Event{Time: time.Unix(1_700_000_000, 0).UTC(), Type: "start", Unit: "web", Instance: "web.1", Message: "runs as pid 4001"})
	d.AddEvent(api.Event{Time: time.Unix(1_700_000_001, 0).UTC(), Type: "intent", Unit: "db", Message: "restart", By: "root (uid 0, pid 1)"})
}

func line(instance, stream, text string, at time.Time) api.LogLine {
	name, _, _ := strings.Cut(instance, ".")
	return api.LogLine{Unit: name, Instance: instance, Stream: stream, Time: at, Text: []byte(text)}
}

// runWithCode is `code N wherry ARGS...`: the command must end with that code.
func runWithCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s: exit code %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

func daemonOf(ts *testscript.TestScript) *apitest.Daemon {
	return ts.Value(daemonKey{}).(*apitest.Daemon)
}

// checkCalls is `calls TEXT`: the daemon was asked for it.
func checkCalls(ts *testscript.TestScript, neg bool, args []string) {
	all := strings.Join(daemonOf(ts).Calls(), "\n")
	if found := strings.Contains(all, args[0]); found == neg {
		ts.Fatalf("calls %q: found %v in\n%s", args[0], found, all)
	}
}

// endUnit is `end UNIT`: the unit ends with code 0.
func endUnit(ts *testscript.TestScript, _ bool, args []string) {
	daemonOf(ts).End(args[0], api.Exit{})
}

// signalled is `signal SIGNAL LINE CODE COMMAND...`: the command gets the signal
// once it has printed the line, and must end with the code.
func signalled(ts *testscript.TestScript, _ bool, args []string) {
	path, err := lookPath(ts, args[3])
	ts.Check(err)
	c := exec.Command(path, args[4:]...)
	c.Env = []string{"WHERRY_SOCKET=" + ts.Getenv("WHERRY_SOCKET"), "PATH=" + ts.Getenv("PATH")}
	out, err := c.StdoutPipe()
	ts.Check(err)
	ts.Check(c.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != args[1] {
	}
	ts.Check(c.Process.Signal(map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM}[args[0]]))
	_, _ = io.Copy(io.Discard, out)
	_ = c.Wait()
	if got := strconv.Itoa(c.ProcessState.ExitCode()); got != args[2] {
		ts.Fatalf("exit code %s, want %s", got, args[2])
	}
}

// lookPath finds a command of the script's PATH.
func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", exec.ErrNotFound
}

// breakImage is `break`: the image has a file that differs and a blob that is
// missing.
func breakImage(ts *testscript.TestScript, _ bool, _ []string) {
	daemonOf(ts).Break("sha256:fedcba9876543210",
		image.Damage{Layer: "sha256:1111111111111111", Path: "/bin/sh", What: "content differs"},
		image.Damage{Blob: "sha256:2222222222222222", What: "missing"})
}

// failCalls is `fail METHOD CODE`: the daemon's method fails from now on.
func failCalls(ts *testscript.TestScript, _ bool, args []string) {
	daemonOf(ts).Fail(args[0], &api.Error{Code: args[1], Message: "made to fail"})
}

// interrupted is `interrupt CODE TEXT COMMAND...`: the command gets Ctrl-C after
// its first line on stderr, must then write the text there and end with the code.
func interrupted(ts *testscript.TestScript, _ bool, args []string) {
	path, err := lookPath(ts, args[2])
	ts.Check(err)
	c := exec.Command(path, args[3:]...)
	c.Env = []string{"WHERRY_SOCKET=" + ts.Getenv("WHERRY_SOCKET"), "PATH=" + ts.Getenv("PATH")}
	errs, err := c.StderrPipe()
	ts.Check(err)
	ts.Check(c.Start())
	in := bufio.NewReader(errs)
	_, err = in.ReadString('\n')
	ts.Check(err)
	ts.Check(c.Process.Signal(os.Interrupt))
	rest, _ := io.ReadAll(in)
	_ = c.Wait()
	if got := strconv.Itoa(c.ProcessState.ExitCode()); got != args[0] || !strings.Contains(string(rest), args[1]) {
		ts.Fatalf("exit code %s, want %s; %q, want %q", got, args[0], rest, args[1])
	}
}
