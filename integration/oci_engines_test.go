package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// engine is somebody else's container engine that calls our runtime.
type engine struct {
	t   *testing.T
	cli []string
	env []string

	missing int // its code for an exec of what is not there
}

func (e *engine) run(args ...string) ociResult {
	e.t.Helper()
	c := exec.Command(e.cli[0], append(e.cli[1:len(e.cli):len(e.cli)], args...)...)
	c.Env = append(os.Environ(), e.env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.WaitDelay = 10 * time.Second // what it leaves behind may hold the pipes
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		e.t.Fatal(err)
	}
	return ociResult{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

func (e *engine) ok(args ...string) string {
	e.t.Helper()
	r := e.run(args...)
	if r.code != 0 {
		e.t.Fatalf("%s: code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

func (e *engine) is(code int, out string, args ...string) ociResult {
	e.t.Helper()
	r := e.run(args...)
	if r.code != code || !strings.Contains(r.out, out) {
		e.t.Errorf("%s: code %d, want %d; %q has to be in %q; stderr: %s", strings.Join(args, " "), r.code, code, out, r.out, r.err)
	}
	return r
}

// empty waits until the engine has no containers: some remove them in the background.
func (e *engine) empty() {
	e.t.Helper()
	harness.Eventually(e.t, 20*time.Second, "no containers are left", func() bool { return e.ok("ps", "-aq") == "" })
}

// life is what an engine's user does with a container all day.
func (e *engine) life(image string) {
	t := e.t
	t.Helper()
	e.ok("create", "--network", "none", "--name", "wt", image, "sh", "-c", "echo begun; trap 'exit 4' TERM; while :; do sleep 0.1; done")
	e.ok("start", "wt")
	harness.Eventually(t, 20*time.Second, "its output", func() bool { return strings.Contains(e.run("logs", "wt").out, "begun") })
	e.is(0, "true", "inspect", "-f", "{{.State.Running}}", "wt")
	e.is(0, "uid=0", "exec", "wt", "id")
	e.is(0, "7", "exec", "-u", "7", "wt", "id", "-u")
	e.is(3, "", "exec", "wt", "sh", "-c", "exit 3")
	e.is(e.missing, "", "exec", "wt", "nonsense")
	e.ok("pause", "wt")
	e.is(0, "paused", "inspect", "-f", "{{.State.Status}}", "wt")
	e.ok("unpause", "wt")
	e.ok("stop", "-t", "60", "wt")
	e.is(0, "4", "inspect", "-f", "{{.State.ExitCode}}", "wt")
	e.ok("start", "wt")
	e.ok("kill", "wt")
	harness.Eventually(t, 20*time.Second, "its end", func() bool {
		return strings.Contains(e.run("inspect", "-f", "{{.State.ExitCode}}", "wt").out, "137")
	})
	e.ok("rm", "wt")

	e.is(9, "out", "run", "--rm", "--network", "none", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "20", image, "sh", "-c", "echo out; exit 9")
	e.is(0, "NoNewPrivs:\t1", "run", "--rm", "--network", "none", "--security-opt", "no-new-privileges", image, "cat", "/proc/self/status")
	if r := e.is(127, "", "run", "--rm", "--network", "none", image, "nonsense"); !strings.Contains(r.err, "not found") {
		t.Errorf("a missing command: %s", r.err)
	}
	e.is(126, "", "run", "--rm", "--network", "none", image, "/bin/plain")
	e.is(0, "hello", "run", "--rm", "--network", "host", image, "echo", "hello")
}

// TestPodman: Debian's podman with ours as its runtime, in a storage of its own.
func TestPodman(t *testing.T) {
	for _, name := range []string{"podman", "conmon"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	o := newOCI(t)
	conf := filepath.Join(o.dir, "containers.conf")
	text := "[engine]\nruntime_supports_json = [\"wherry\"]\n[engine.runtimes]\nwherry = [\"" + o.exe + "\"]\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	storage := filepath.Join(o.dir, "storage")
	defer unmountBelow(storage)
	for name, runtime := range map[string]string{"by path": o.exe, "by name": "wherry"} {
		t.Run(name, func(t *testing.T) {
			e := &engine{t: t, missing: 127, env: []string{"CONTAINERS_CONF=" + conf}, cli: []string{
				"podman", "--root", storage, "--runroot", filepath.Join(o.dir, "run"), "--tmpdir", filepath.Join(o.dir, "tmp"),
				"--storage-driver", "vfs", "--events-backend", "file", "--cgroup-manager", "cgroupfs", "--log-level", "error", "--runtime", runtime,
			}}
			e.load(filepath.Join(o.dir, "rootfs"), "wherrytest")
			e.life("wherrytest")
			script := exec.Command("script", "-qec", strings.Join(append(e.cli, "run", "--rm", "-t", "--network", "none", "wherrytest", "tty"), " "), "/dev/null")
			script.Env = append(os.Environ(), e.env...)
			if out, err := script.CombinedOutput(); err != nil || !strings.Contains(string(out), "/dev/pts/0") {
				t.Errorf("with a terminal: %s, %v", out, err)
			}
			e.empty()
			e.ok("rmi", "-f", "wherrytest")
		})
	}
}

// unmountBelow removes what engines leave mounted in their own folders: a storage, a network namespace.
func unmountBelow(dir string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
}

// load makes an image of a folder.
func (e *engine) load(rootfs, name string) {
	e.t.Helper()
	tar := filepath.Join(e.t.TempDir(), "rootfs.tar")
	if out, err := exec.Command("tar", "-C", rootfs, "-cf", tar, ".").CombinedOutput(); err != nil {
		e.t.Fatalf("%v\n%s", err, out)
	}
	e.ok("import", tar, name)
}

// TestDocker: Debian's dockerd with ours beside its own runtime.
func TestDocker(t *testing.T) {
	for _, name := range []string{"dockerd", "docker", "containerd"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	o := newOCI(t)
	socket := "unix://" + filepath.Join(o.dir, "docker.sock")
	log, err := os.Create(filepath.Join(o.dir, "dockerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command("dockerd", "--data-root", filepath.Join(o.dir, "docker"), "--exec-root", filepath.Join(o.dir, "x"),
		"--pidfile", filepath.Join(o.dir, "docker.pid"), "-H", socket, "--bridge=none", "--iptables=false", "--ip6tables=false",
		"--storage-driver=vfs", "--cgroup-parent", o.parent, "--add-runtime", "wherry="+o.exe, "--default-runtime", "wherry")
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		daemon.Process.Signal(syscall.SIGTERM)
		daemon.Wait()
		unmountBelow(filepath.Join(o.dir, "x"))
	}()
	e := &engine{t: t, missing: 126, cli: []string{"docker", "-H", socket}} // 127 since release 25
	up := false
	for range 1200 {
		if up = e.run("version").code == 0; up {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !up {
		b, _ := os.ReadFile(log.Name())
		t.Skipf("dockerd does not come up here:\n%s", b[max(0, len(b)-2000):])
	}
	e.load(filepath.Join(o.dir, "rootfs"), "wherrytest")
	e.is(0, "wherry", "info", "-f", "{{.DefaultRuntime}}")
	e.life("wherrytest")
	e.ok("run", "-d", "--network", "none", "--name", "wl", "--memory", "64m", "wherrytest", "sleep", "1000")
	e.ok("update", "--memory", "96m", "--memory-swap", "-1", "wl")
	e.is(0, "sleep 1000", "top", "wl")
	e.ok("rm", "-f", "wl")
	e.empty()
}
