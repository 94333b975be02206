package runtime_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// buildKeeper builds the keeper once for all tests of the package, as the
// product's build does. A machine without a compiler gets a built one by
// WHERRY_TEST_KEEPER.
var buildKeeper = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("WHERRY_TEST_KEEPER"); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "wherry-keeper-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "wherry-keeper")
	cmd := exec.Command("go", "build", "-tags", "seccomp netgo osusergo",
		"-ldflags", `-s -w -extldflags "-static"`, "-o", bin, "../cmd/wherry-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if builtKeeper != "" && os.Getenv("WHERRY_TEST_KEEPER") == "" {
		os.RemoveAll(filepath.Dir(builtKeeper))
	}
	os.Exit(code)
}

var builtKeeper string // by needRoot, for TestMain to remove

// world is a runtime on folders of its own, with a busybox to run.
type world struct {
	tb    testing.TB
	root  string
	run   string
	group string
	lower string
	rt    *runtime.Runtime
	n     int
}

func busybox(tb testing.TB) string {
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	tb.Skip("no busybox: apt-get install busybox-static")
	return ""
}

// newWorld starts a keeper, and checks at the end that nothing is left of it.
func newWorld(tb testing.TB) *world {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("containers need root")
	}
	bb := busybox(tb)
	keeper, err := buildKeeper()
	if err != nil {
		tb.Fatal(err)
	}
	builtKeeper = keeper
	dir, err := os.MkdirTemp("", "whk-")
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{
		tb: tb, root: filepath.Join(dir, "root"), run: filepath.Join(dir, "run"),
		group: "/" + filepath.Base(dir), lower: filepath.Join(dir, "lower"),
	}
	w.makeLower(bb)
	w.rt = w.open(keeper)
	tb.Cleanup(func() { w.close(dir) })
	return w
}

func (w *world) open(keeper string) *runtime.Runtime {
	w.tb.Helper()
	var log *slog.Logger
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := runtime.Open(w.ctx(), runtime.Options{
		Root: w.root, RunDir: w.run, Keeper: keeper, CgroupParent: w.group, Logger: log,
		CgroupDriver: os.Getenv("WHERRY_TEST_CGROUP_DRIVER"),
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return rt
}

// on is w for a subtest.
func (w *world) on(tb testing.TB) *world {
	v := *w
	v.tb = tb
	w.n++
	v.n = w.n * 100
	return &v
}

// patience is a time that no healthy test needs, on a slow and loaded machine either.
const patience = 3 * time.Minute

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.tb.Cleanup(cancel)
	return ctx
}

func (w *world) makeLower(bb string) {
	w.tb.Helper()
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc", "data/sub"} {
		if err := os.MkdirAll(filepath.Join(w.lower, d), 0o755); err != nil {
			w.tb.Fatal(err)
		}
	}
	b, err := os.ReadFile(bb)
	if err != nil {
		w.tb.Fatal(err)
	}
	files := map[string]string{
		"bin/busybox": string(b), "bin/plain": "not a program\n", "bin/lost": "#!/no/such/interpreter\n",
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n",
		"etc/group":  "root:x:0:\nweb:x:1001:\nextra:x:1002:web\n",
		"data/a":     "content of a\n", "data/sub/b": "content of b\n",
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if name == "bin/busybox" || name == "bin/lost" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(w.lower, name), []byte(text), mode); err != nil {
			w.tb.Fatal(err)
		}
	}
	for _, applet := range []string{"sh", "true", "sleep", "cat", "id", "env", "tail", "echo", "ls", "touch", "dd", "kill", "ps", "grep", "mkdir", "stat", "seq", "unshare"} {
		if err := os.Symlink("busybox", filepath.Join(w.lower, "bin", applet)); err != nil {
			w.tb.Fatal(err)
		}
	}
}

// config is a container that runs args, and goes away with the test.
func (w *world) config(args ...string) runtime.Config {
	w.tb.Helper()
	w.n++
	run := fmt.Sprintf("t.%d-run", w.n)
	dir := filepath.Join(w.root, "overlay", run)
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			w.tb.Fatal(err)
		}
	}
	return runtime.Config{
		Unit: "t", Instance: fmt.Sprintf("t.%d", w.n), Run: run, Container: "app",
		Spec: testSpec(args...),
		Rootfs: []specs.Mount{{Destination: "/", Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir+=" + w.lower, "upperdir=" + dir + "/upper", "workdir=" + dir + "/work",
		}}},
		Init: true,
		Log:  runtime.LogConfig{Path: filepath.Join(w.root, "logs", run+".log")},
	}
}

// testSpec is what a container needs at least, in the shape of Docker's.
func testSpec(args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	return &specs.Spec{
		Version: "1.2.0",
		Process: &specs.Process{
			Args: args, Cwd: "/", NoNewPrivileges: true,
			Env:          []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root:     &specs.Root{},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace},
			},
			Resources:   &specs.LinuxResources{Devices: testDevices()},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys"},
			Seccomp: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow,
				Architectures: []specs.Arch{specs.ArchX86_64},
				Syscalls:      []specs.LinuxSyscall{{Names: []string{"unshare"}, Action: specs.ActErrno}},
			},
		},
	}
}

func testDevices() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
}

// start starts c or fails the test.
func (w *world) start(c runtime.Config) runtime.Status {
	w.tb.Helper()
	st, err := w.rt.Start(w.ctx(), c)
	if err != nil {
		w.tb.Fatalf("start: %v\n%s", err, w.keeperLog())
	}
	return st
}

// finish waits for the end of c, removes it and returns how it ended.
func (w *world) finish(c runtime.Config) runtime.Exit {
	w.tb.Helper()
	exit, err := w.rt.Wait(w.ctx(), c.ID())
	if err != nil {
		w.tb.Fatalf("wait: %v\n%s", err, w.keeperLog())
	}
	if err := w.rt.Remove(w.ctx(), c.ID()); err != nil {
		w.tb.Fatalf("remove: %v", err)
	}
	return exit
}

// text is the output of c so far.
func (w *world) text(c runtime.Config) string {
	w.tb.Helper()
	raw, err := os.ReadFile(c.Log.Path)
	if err != nil && !os.IsNotExist(err) { // without output there is no file
		w.tb.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4) // time, stream, tag, text
		if len(f) < 4 || strings.HasPrefix(line, "#") {
			continue
		}
		b.WriteString(f[3])
		if f[2] == "F" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (w *world) keeperLog() string {
	b, _ := os.ReadFile(filepath.Join(w.run, "keeper.log"))
	return string(b)
}

// close ends everything and looks for what may have been left.
func (w *world) close(dir string) {
	ctx := context.Background()
	list, err := w.rt.List(ctx)
	if err != nil {
		w.tb.Errorf("list at the end: %v", err)
	}
	for _, st := range list {
		w.rt.Kill(ctx, st.ID)
		w.rt.Wait(ctx, st.ID)
		if err := w.rt.Remove(ctx, st.ID); err != nil {
			w.tb.Errorf("remove at the end: %v", err)
		}
	}
	pid := w.rt.KeeperPid()
	if err := w.rt.StopKeeper(ctx); err != nil {
		w.tb.Errorf("stop keeper: %v", err)
	}
	w.gone(pid)
	if log := w.keeperLog(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") || strings.Contains(log, "level=ERROR") {
		w.tb.Error("the keeper was in trouble")
	}
	if w.tb.Failed() {
		w.tb.Logf("keeper's log:\n%s", w.keeperLog())
	}
	w.checkLeft(dir)
	os.RemoveAll(dir)
}

// gone waits for the end of process pid.
func (w *world) gone(pid int) {
	w.tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err := unix.Kill(pid, 0); err != nil {
			return
		}
	}
	w.tb.Errorf("process %d is still there", pid)
}

func (w *world) checkLeft(dir string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), dir) {
		w.tb.Errorf("a mount is left below %s", dir)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + w.group)
	v2, _ := filepath.Glob("/sys/fs/cgroup" + w.group)
	if left := append(groups, v2...); len(left) > 0 {
		w.tb.Errorf("control groups are left: %v", left)
	}
	w.checkScopesLeft()
	for _, d := range []string{w.run + "/containers", w.run + "/libcontainer", w.root + "/runs"} {
		if left, _ := os.ReadDir(d); len(left) > 0 {
			w.tb.Errorf("left in %s: %v", d, left)
		}
	}
}

// checkScopesLeft gives systemd a moment to take away the scopes of runs.
func (w *world) checkScopesLeft() {
	slice := strings.ReplaceAll(filepath.Base(w.group), "-", "_") + ".slice"
	dir := "/sys/fs/cgroup/" + slice
	if _, err := os.Stat(dir); err != nil {
		return
	}
	var left []string
	for range 500 {
		if left, _ = filepath.Glob(dir + "/*.scope"); len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) > 0 {
		w.tb.Errorf("scopes are left: %v", left)
	}
	if out, err := exec.Command("systemctl", "stop", slice).CombinedOutput(); err != nil {
		w.tb.Errorf("stop %s: %v: %s", slice, err, out)
	}
}

func bind(from, to string, options ...string) specs.Mount {
	return specs.Mount{Destination: to, Type: "bind", Source: from, Options: append([]string{"rbind"}, options...)}
}

// checkContainersLeft looks for traces of containers while the keeper lives.
func (w *world) checkContainersLeft() {
	w.tb.Helper()
	for _, d := range []string{w.run + "/containers", w.run + "/libcontainer", w.root + "/runs"} {
		if left, _ := os.ReadDir(d); len(left) > 0 {
			w.tb.Errorf("left in %s: %v", d, left)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + w.group + "/t.*")
	if len(groups) > 0 {
		w.tb.Errorf("control groups are left: %v", groups)
	}
}
