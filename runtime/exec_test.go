package runtime_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

// run executes p in container id and returns its output.
func (w *world) exec(id string, p runtime.Process) (string, runtime.Exit, error) {
	w.tb.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		w.tb.Fatal(err)
	}
	defer r.Close()
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	p.Stdout, p.Stderr = out, out
	exit, err := w.rt.Exec(w.ctx(), id, p)
	out.Close()
	return <-text, exit, err
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	c.Spec.Process.Env = append(c.Spec.Process.Env, "FROM=container")
	c.User = "web"
	c.Spec.Process.Capabilities.Effective, c.Spec.Process.Capabilities.Permitted = nil, nil // as spec.Build does for others than root
	st := w.start(c)
	tests := []struct {
		name string
		p    runtime.Process
		want string
		exit runtime.Exit
		err  error
	}{
		{"code", runtime.Process{Args: []string{"sh", "-c", "exit 5"}}, "", runtime.Exit{Code: 5}, nil},
		{"signal", runtime.Process{Args: []string{"sh", "-c", "kill -TERM $$"}}, "", runtime.Exit{Signal: "SIGTERM"}, nil},
		{"the container's user", runtime.Process{Args: []string{"id"}}, "uid=1000(web) gid=1001(web) groups=1001(web),1002(extra)\n", runtime.Exit{}, nil},
		{"another user", runtime.Process{Args: []string{"id"}, User: "root"}, "uid=0(root) gid=0(root) groups=0(root)\n", runtime.Exit{}, nil},
		{"environment", runtime.Process{Args: []string{"sh", "-c", "echo $FROM $HOME $ADDED"}, Env: []string{"ADDED=exec"}}, "container /home/web exec\n", runtime.Exit{}, nil},
		{"root's capabilities", runtime.Process{Args: []string{"grep", "CapEff", "/proc/self/status"}, User: "root"}, "CapEff:\t00000000000000e1\n", runtime.Exit{}, nil},
		{"another user's capabilities", runtime.Process{Args: []string{"grep", "CapEff", "/proc/self/status"}}, "CapEff:\t0000000000000000\n", runtime.Exit{}, nil},
		{"home of another user", runtime.Process{Args: []string{"sh", "-c", "echo $HOME"}, User: "0"}, "/root\n", runtime.Exit{}, nil},
		{"working directory", runtime.Process{Args: []string{"ls"}, Cwd: "/data"}, "a\nsub\n", runtime.Exit{}, nil},
		{"not found", runtime.Process{Args: []string{"nonsense"}}, "", runtime.Exit{}, runtime.ErrCommand},
		{"not executable", runtime.Process{Args: []string{"/bin/plain"}}, "", runtime.Exit{}, runtime.ErrNotExecutable},
		{"seccomp", runtime.Process{Args: []string{"grep", "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status"}}, "NoNewPrivs:\t1\nSeccomp:\t2\n", runtime.Exit{}, nil},
		{"descriptors", runtime.Process{Args: []string{"ls", "/proc/self/fd"}}, "0\n1\n2\n3\n", runtime.Exit{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, exit, err := w.on(t).exec(c.ID(), tt.p)
			if !errors.Is(err, tt.err) || out != tt.want || exit.Code != tt.exit.Code || exit.Signal != tt.exit.Signal {
				t.Errorf("%q, %+v, %v; want %q, %+v, %v", out, exit, err, tt.want, tt.exit, tt.err)
			}
		})
	}
	for want, p := range map[string]runtime.Process{
		`exec "nonsense": command not found`:                                {Args: []string{"nonsense"}},
		`process: working directory "/nonsense": no such file or directory`: {Args: []string{"ls"}, Cwd: "/nonsense"},
	} {
		if _, _, err := w.exec(c.ID(), p); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	killKeeper(w)
	if out, _, err := w.exec(c.ID(), runtime.Process{Args: []string{"echo", "adopted"}}); err != nil || out != "adopted\n" {
		t.Errorf("exec after an adoption: %q, %v", out, err)
	}
	if now, _ := w.rt.Get(t.Context(), c.ID()); now.Pid != st.Pid {
		t.Errorf("pid changed: %+v", now)
	}
	w.rt.Kill(t.Context(), c.ID())
	w.rt.Wait(t.Context(), c.ID())
	if _, _, err := w.exec(c.ID(), runtime.Process{Args: []string{"true"}}); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("exec in an ended container: %v", err)
	}
	if _, _, err := w.exec("none", runtime.Process{Args: []string{"true"}}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("exec in no container: %v", err)
	}
}

// TestExecCanceled: a probe that takes too long is killed.
func TestExecCanceled(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	w.start(c)
	for _, after := range []time.Duration{3, 6, 9, 200} { // before and after its program runs
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		if _, err := w.rt.Exec(ctx, c.ID(), runtime.Process{Args: []string{"sleep", "999"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %d ms: error = %v", after, err)
		}
		cancel()
	}
	if out, _, _ := w.exec(c.ID(), runtime.Process{Args: []string{"ps"}}); strings.Contains(out, "999") {
		t.Errorf("the process is still there:\n%s", out)
	}
}

// TestInit looks at the container's first process from inside.
func TestInit(t *testing.T) {
	w := newWorld(t)
	// The init takes its name on while the program begins.
	c := w.config("sh", "-c", `until ps -o args | grep -q "^wherry-init sh"; do sleep 0.01; done; cat /proc/1/comm; ps -o pid,args; grep -E '^(Seccomp|NoNewPrivs|SigIgn|SigBlk)' /proc/self/status; ls /proc/self/fd; cat /proc/1/exe > /dev/null || echo hidden; unshare -U true || echo refused`)
	c.Spec.Process.Capabilities = &specs.LinuxCapabilities{}
	w.start(c)
	w.finish(c)
	text := w.text(c)
	for _, want := range []string{
		"wherry-init\n", "1 wherry-init sh -c", "NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		"SigIgn:\t0000000000000000\n", "SigBlk:\t0000000000000000\n", "\n0\n1\n2\n3\n", "hidden\n", "refused\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestInitReapsAndForwards: orphans do not stay as zombies, signals reach the
// program, an orphan's end is not the container's.
func TestInitReapsAndForwards(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", `trap 'echo got HUP' HUP; trap 'echo got TERM; exit 4' TERM; (sh -c "exit 9" &) ; echo ready; while true; do sleep 1 & wait; done`)
	c.StopSignal = "SIGTERM"
	w.start(c)
	w.await("ready", func() bool { return strings.Contains(w.text(c), "ready") })
	w.await("no zombies", func() bool { // the orphan may be at its end just now
		out, _, err := w.exec(c.ID(), runtime.Process{Args: []string{"ps", "-o", "stat,args"}})
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(out, "Z")
	})
	if err := w.rt.Signal(t.Context(), c.ID(), "hup"); err != nil {
		t.Fatal(err)
	}
	w.await("the signal", func() bool { return strings.Contains(w.text(c), "got HUP") })
	exit, err := w.rt.Stop(t.Context(), c.ID(), patience)
	if err != nil || exit.Code != 4 {
		t.Errorf("stop: %+v, %v, want code 4", exit, err)
	}
}

func TestStopKills(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 1; done")
	w.start(c)
	w.await("ready", func() bool { return strings.Contains(w.text(c), "ready") })
	begin := time.Now()
	exit, err := w.rt.Stop(t.Context(), c.ID(), 300*time.Millisecond)
	if err != nil || exit.Signal != "SIGKILL" || exit.OOM {
		t.Errorf("stop: %+v, %v, want SIGKILL", exit, err)
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("killed after %v, before the grace period was over", took)
	}
	if again, err := w.rt.Stop(t.Context(), c.ID(), time.Second); err != nil || again.Signal != "SIGKILL" {
		t.Errorf("stop of a stopped container: %+v, %v", again, err)
	}
}

func TestPopulateAndUser(t *testing.T) {
	w := newWorld(t)
	volume := filepath.Join(w.root, "volume")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(w.lower, "data/a"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	c := w.config("sh", "-c", "cat /data/a /data/sub/b; stat -c %u:%g /data/a; echo changed > /data/sub/b; id -u; echo $HOME")
	c.Populate = []runtime.Populate{{Path: "/data", Into: volume}}
	c.Spec.Mounts = append(c.Spec.Mounts, bind(volume, "/data"))
	w.start(c)
	w.finish(c)
	if got, want := w.text(c), "content of a\ncontent of b\n1000:1001\n0\n/root\n"; got != want {
		t.Errorf("output = %q, want %q", got, want)
	}
	w.start(c) // the volume has content now, and keeps it
	w.finish(c)
	if b, _ := os.ReadFile(filepath.Join(volume, "sub/b")); string(b) != "changed\n" {
		t.Errorf("content of the volume = %q", b)
	}
}

// TestHostileAccounts: an image cannot make the keeper read the host's files.
func TestHostileAccounts(t *testing.T) {
	w := newWorld(t)
	secret := filepath.Join(w.root, "secret")
	if err := os.WriteFile(secret, []byte("intruder:x:4242:4242::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(w.lower, "etc/passwd")
	for _, target := range []string{secret, "../../../../../../../../.." + secret, "/proc/self/root" + secret} {
		os.Remove(passwd)
		if err := os.Symlink(target, passwd); err != nil {
			t.Fatal(err)
		}
		c := w.config("true")
		c.User = "intruder"
		if _, err := w.rt.Start(t.Context(), c); err == nil {
			t.Errorf("passwd at %s was read", target)
			w.finish(c)
		}
	}
}

func TestNamespaces(t *testing.T) {
	w := newWorld(t)
	ns, err := w.rt.Namespaces(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var ids []string
	for range 2 {
		c := w.config("sh", "-c", "exec ls -l /proc/self/ns/net")
		c.NetNS = ns
		w.start(c)
		w.finish(c)
		_, id, _ := strings.Cut(w.text(c), "net:")
		ids = append(ids, id)
	}
	own, _ := os.Readlink("/proc/self/ns/net")
	if ids[0] == "" || ids[0] != ids[1] || strings.Contains(own, strings.TrimSpace(ids[0])) {
		t.Errorf("namespaces %q, ours %q", ids, own)
	}
}

func TestLeftBehind(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "(sleep 1000; echo never) & echo done")
	c.Spec.Linux.Namespaces = c.Spec.Linux.Namespaces[1:] // the host's PID namespace: nothing ends them but us
	w.start(c)
	if exit := w.finish(c); exit.Code != 0 || exit.Signal != "" {
		t.Errorf("exit = %+v", exit)
	}
	w.checkContainersLeft()
}

func TestExists(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	w.start(c)
	if _, err := w.rt.Start(t.Context(), c); !errors.Is(err, runtime.ErrExists) {
		t.Errorf("second start: %v", err)
	}
	if err := w.rt.Remove(t.Context(), c.ID()); err == nil {
		t.Error("a running container was removed")
	}
	if err := w.rt.StopKeeper(t.Context()); !errors.Is(err, runtime.ErrBusy) {
		t.Errorf("stop of a busy keeper: %v", err)
	}
	stats, err := w.rt.Stats(t.Context(), c.ID())
	if err != nil || stats.Pids == 0 {
		t.Errorf("stats = %+v, %v", stats, err)
	}
}
