package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/integration/harness"
)

// ociHost is a scratch root for the OCI command line, without any daemon.
type ociHost struct {
	t      testing.TB
	exe    string // a link named wherry-oci
	dir    string
	root   string
	parent string // of the containers' groups
}

func newOCI(t testing.TB) *ociHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs busybox-static:", err)
	}
	dir := t.TempDir()
	o := &ociHost{t: t, exe: filepath.Join(dir, "wherry-oci"), dir: dir, root: filepath.Join(dir, "state")}
	o.parent = fmt.Sprintf("/whoci%d", os.Getpid())
	if err := os.Symlink(filepath.Join(harness.Bin(t), "wherry-keeper"), o.exe); err != nil {
		t.Fatal(err)
	}
	o.makeRootfs()
	t.Cleanup(o.nothingLeft)
	return o
}

func (o *ociHost) makeRootfs() {
	rootfs := filepath.Join(o.dir, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			o.t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin/busybox"), b, 0o755); err != nil {
		o.t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "echo", "sleep", "cat", "id", "ls", "mkdir", "stty", "tty", "grep", "kill", "head"} {
		if err := os.Symlink("busybox", filepath.Join(rootfs, "bin", name)); err != nil {
			o.t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(rootfs, "bin/plain"), []byte("text"), 0o644)
	os.WriteFile(filepath.Join(rootfs, "bin/lost"), []byte("#!/no/such\n"), 0o755)
}

// nothingLeft is what the end of every test is judged by. An engine's shim cleans up in the background.
func (o *ociHost) nothingLeft() {
	var left []string
	for range 1200 {
		if left = o.left(); len(left) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, l := range left {
		o.t.Errorf("left: %s", l)
	}
	for _, h := range groupTrees() {
		unix.Rmdir(filepath.Join(h, o.parent)) // the parent is ours to remove, as with runc
	}
}

func (o *ociHost) left() (l []string) {
	for _, h := range groupTrees() {
		groups, _ := filepath.Glob(filepath.Join(h, o.parent) + "/*/cgroup.procs")
		l = append(l, groups...)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		o.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, o.dir) {
			l = append(l, "mount "+strings.TrimSpace(line))
		}
	}
	states, _ := os.ReadDir(o.root)
	for _, e := range states {
		if e.Name() != ".wherry" {
			l = append(l, "state "+e.Name())
		}
	}
	return l
}

func groupTrees() []string {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	out := []string{"/sys/fs/cgroup"}
	for _, d := range dirs {
		out = append(out, filepath.Dir(d))
	}
	return out
}

// bundle writes a bundle whose command is args, and returns its folder.
func (o *ociHost) bundle(id string, change func(*specs.Spec), args ...string) string {
	o.t.Helper()
	dir := filepath.Join(o.dir, "bundle-"+id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		o.t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "config.json"))
	o.ok("spec", "-b", dir)
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		o.t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		o.t.Fatal(err)
	}
	s.Process.Terminal, s.Process.Args = false, args
	s.Root = &specs.Root{Path: filepath.Join(o.dir, "rootfs")}
	s.Linux.CgroupsPath = o.parent + "/" + id
	if change != nil {
		change(&s)
	}
	if b, err = json.Marshal(s); err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return dir
}

// ownFilter makes the container's filter one that our init loads.
func ownFilter(s *specs.Spec) { filterOut(s, true) }

// itsFilter makes it one that has to be loaded with privileges.
func itsFilter(s *specs.Spec) { filterOut(s, false) }

func filterOut(s *specs.Spec, noNewPrivileges bool) {
	errno := uint(unix.ENOSYS)
	s.Process.NoNewPrivileges = noNewPrivileges
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
}

type ociResult struct {
	out, err string
	code     int
}

func (o *ociHost) command(args ...string) *exec.Cmd {
	return exec.Command(o.exe, append([]string{"--root", o.root}, args...)...)
}

func (o *ociHost) run(args ...string) ociResult { return o.finish(o.command(args...)) }

func (o *ociHost) finish(c *exec.Cmd) ociResult {
	o.t.Helper()
	var out, errs bytes.Buffer
	if c.Stdout == nil {
		c.Stdout = &out
	}
	c.Stderr = &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	return ociResult{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// create is apart: what it starts keeps our stdio, so that must be a file.
func (o *ociHost) create(id, bundle string, flags ...string) ociResult {
	o.t.Helper()
	f, err := os.Create(filepath.Join(o.dir, id+".out"))
	if err != nil {
		o.t.Fatal(err)
	}
	defer f.Close()
	c := o.command(slices.Concat([]string{"create", "--bundle", bundle}, flags, []string{id})...)
	c.Stdout, c.Stderr = f, f
	err = c.Run()
	return ociResult{o.output(id), fmt.Sprint(err), c.ProcessState.ExitCode()}
}

func (o *ociHost) output(id string) string {
	b, _ := os.ReadFile(filepath.Join(o.dir, id+".out"))
	return string(b)
}

func (o *ociHost) ok(args ...string) string {
	o.t.Helper()
	r := o.run(args...)
	if r.code != 0 {
		o.t.Fatalf("%s: code %d: %s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

func (o *ociHost) fails(code int, part string, args ...string) {
	o.t.Helper()
	r := o.run(args...)
	if r.code != code || !strings.Contains(r.err, part) {
		o.t.Errorf("%s: code %d, want %d; %q has to be in %q", strings.Join(args, " "), r.code, code, part, r.err)
	}
}

func (o *ociHost) state(id string) (s struct {
	Version string `json:"ociVersion"`
	ID      string
	Pid     int
	Status  string
	Bundle  string
}) {
	o.t.Helper()
	if err := json.Unmarshal([]byte(o.ok("state", id)), &s); err != nil {
		o.t.Fatal(err)
	}
	return s
}

func (o *ociHost) becomes(id, status string) {
	o.t.Helper()
	harness.Eventually(o.t, 10*time.Second, id+" is "+status, func() bool { return o.state(id).Status == status })
}

// TestOCILife goes through a container's life call by call, with either way to
// load its filter.
func TestOCILife(t *testing.T) {
	for name, filter := range map[string]func(*specs.Spec){"own": ownFilter, "libcontainer": itsFilter, "none": nil} {
		t.Run(name, func(t *testing.T) {
			o := newOCI(t)
			pidFile := filepath.Join(o.dir, "pid")
			dir := o.bundle("c", filter, "sh", "-c", "echo up; mkdir /tmp/x; ls /proc/self/fd; exec sleep 1000")
			if r := o.create("c", dir, "--pid-file", pidFile); r.code != 0 {
				t.Fatal(r.out)
			}
			defer o.run("delete", "--force", "c")
			s := o.state("c")
			b, _ := os.ReadFile(pidFile)
			if s.Status != "created" || s.ID != "c" || s.Bundle != dir || s.Version == "" || string(b) != strconv.Itoa(s.Pid) {
				t.Errorf("created: %+v, pid file %q", s, b)
			}
			if o.output("c") != "" {
				t.Errorf("output before start: %s", o.output("c"))
			}
			o.fails(1, "already exists", "create", "-b", dir, "c")
			o.ok("start", "c")
			harness.Eventually(t, 10*time.Second, "output", func() bool { return strings.Contains(o.output("c"), "up\n") })
			o.becomes("c", "running")
			o.fails(1, "already running", "start", "c")
			if list := o.ok("list", "-q"); list != "c\n" {
				t.Errorf("list: %q", list)
			}
			if ps := o.ok("ps", "--format", "json", "c"); !strings.HasPrefix(ps, fmt.Sprintf("[%d", s.Pid)) { // its shell may have a child
				t.Errorf("ps: %q, want %d first", ps, s.Pid)
			}
			checkOCIExec(t, o, filter != nil)
			o.ok("pause", "c")
			o.becomes("c", "paused")
			o.fails(255, "paused", "exec", "c", "true")
			o.ok("resume", "c")
			o.fails(1, "not stopped", "delete", "c")
			o.ok("kill", "c", "KILL")
			o.becomes("c", "stopped")
			if pid := o.state("c").Pid; pid != 0 {
				t.Errorf("pid of a stopped container: %d", pid)
			}
			o.fails(1, "not running", "kill", "c")
			o.ok("kill", "--all", "c")
			o.ok("delete", "c")
			o.fails(1, "does not exist", "state", "c")
			o.fails(1, "does not exist", "delete", "c")
			o.ok("delete", "--force", "c")
		})
	}
}

func checkOCIExec(t *testing.T, o *ociHost, filtered bool) {
	t.Helper()
	for _, tt := range []struct {
		args []string
		code int
		out  string
		err  string
	}{
		{[]string{"c", "id", "-u"}, 0, "0\n", ""},
		{[]string{"--user", "7:8", "--cwd", "/tmp", "c", "sh", "-c", "id -u; id -g; pwd"}, 0, "7\n8\n/tmp\n", ""},
		{[]string{"-e", "A=b", "--env", "C=d", "c", "sh", "-c", "echo $A$C"}, 0, "bd\n", ""},
		{[]string{"c", "sh", "-c", "exit 7"}, 7, "", ""},
		{[]string{"c", "sh", "-c", "kill -9 $$"}, 137, "", ""},
		{[]string{"c", "nonsense"}, 255, "", "executable file not found in $PATH"},
		{[]string{"c", "/no/such"}, 255, "", "no such file or directory"},
		{[]string{"c", "/bin/plain"}, 255, "", "permission denied"},
		{[]string{"c"}, 255, "", "usage"},
		{[]string{"nobody", "true"}, 255, "", "does not exist"},
	} {
		r := o.run(append([]string{"exec"}, tt.args...)...)
		if r.code != tt.code || r.out != tt.out || !strings.Contains(r.err, tt.err) {
			t.Errorf("exec %v: %+v, want %+v", tt.args, r, tt)
		}
	}
	r := o.run("exec", "c", "mkdir", "/tmp/forbidden")
	if filtered != strings.Contains(r.err, "not implemented") {
		t.Errorf("exec of a forbidden call: %+v", r)
	}
}

func TestOCIRun(t *testing.T) {
	o := newOCI(t)
	for _, tt := range []struct {
		name   string
		change func(*specs.Spec)
		args   []string
		code   int
		out    string
		err    string
	}{
		{"code", ownFilter, []string{"sh", "-c", "echo out; exit 3"}, 3, "out\n", ""},
		{"first process", ownFilter, []string{"sh", "-c", "echo $$"}, 0, "1\n", ""},
		{"own init", func(s *specs.Spec) {
			ownFilter(s)
			s.Annotations = map[string]string{"run.wherry.init": "true"}
		}, []string{"head", "-n", "1", "/proc/1/status"}, 0, "Name:\twherry-init\n", ""},
		{"not found", ownFilter, []string{"nonsense"}, 1, "", "executable file not found in $PATH"},
		{"not found by libcontainer", nil, []string{"nonsense"}, 1, "", "executable file not found in $PATH"},
		{"no such file", ownFilter, []string{"/no/such"}, 1, "", "no such file or directory"},
		{"not executable", ownFilter, []string{"/bin/plain"}, 1, "", "permission denied"},
		{"no interpreter", ownFilter, []string{"/bin/lost"}, 127, "", "exec /bin/lost"},
		{"missing folder", func(s *specs.Spec) { s.Root.Path = "/no/such" }, []string{"true"}, 1, "", "/no/such"},
		{"relative cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" }, []string{"true"}, 1, "", "not absolute"},
		{"bad mount", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Source: "/no/such", Type: "bind", Options: []string{"bind"}})
		}, []string{"true"}, 1, "", "rootfs: "},
		{"no command", nil, nil, 1, "", "args must not be empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o.t = t
			dir := o.bundle("r", tt.change, tt.args...)
			r := o.run("run", "-b", dir, "r")
			if r.code != tt.code || r.out != tt.out || !strings.Contains(r.err, tt.err) {
				t.Errorf("%+v, want code %d, out %q, in err %q", r, tt.code, tt.out, tt.err)
			}
		})
	}
	o.t = t
}

// TestOCIErrors are about the command line itself.
func TestOCIErrors(t *testing.T) {
	o := newOCI(t)
	for _, tt := range []struct {
		code int
		part string
		args []string
	}{
		{1, "no command", []string{"nonsense"}},
		{1, "incorrect usage", []string{"start"}},
		{1, "incorrect usage", []string{"state", "a", "b"}},
		{1, "not defined: -nonsense", []string{"create", "--nonsense", "a"}},
		{1, "does not exist", []string{"start", "a"}},
		{1, "invalid container ID", []string{"delete", "--force", "../state"}},
		{1, "unknown signal", []string{"kill", "a", "NONSENSE"}},
		{1, "config.json", []string{"run", "-b", o.dir, "a"}},
		{1, "without setting console socket", []string{"create", "-b", o.bundle("tty", func(s *specs.Spec) { s.Process.Terminal = true }, "true"), "a"}},
	} {
		if tt.args[0] == "kill" {
			o.create("a", o.bundle("a", nil, "sleep", "1000"))
			defer o.run("delete", "--force", "a")
		}
		o.fails(tt.code, tt.part, tt.args...)
	}
	log := filepath.Join(o.dir, "log")
	r := o.run("--log", log, "--log-format=json", "state", "nobody")
	b, _ := os.ReadFile(log)
	var line struct{ Level, Msg string }
	if err := json.Unmarshal(b, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "does not exist") || r.code != 1 {
		t.Errorf("log %q, code %d", b, r.code)
	}
	if out := o.ok("--version"); !strings.HasPrefix(out, "wherry-oci version ") || !strings.Contains(out, "\nspec: 1.") {
		t.Errorf("version: %q", out)
	}
	var features struct{ OCIVersionMax string }
	if err := json.Unmarshal([]byte(o.ok("features")), &features); err != nil || features.OCIVersionMax == "" {
		t.Errorf("features: %+v, %v", features, err)
	}
}

// TestOCIDelete: a container can be removed in every state.
func TestOCIDelete(t *testing.T) {
	o := newOCI(t)
	dir := o.bundle("d", ownFilter, "sleep", "1000")
	o.create("d", dir)
	o.ok("delete", "d") // created: nothing of the user's has run
	o.create("d", dir)
	o.ok("kill", "d", "9")
	o.becomes("d", "stopped")
	o.fails(1, "has stopped", "start", "d")
	o.ok("delete", "d")
	o.create("d", dir)
	o.ok("start", "d")
	o.ok("delete", "--force", "d")
	o.create("d", dir)
	o.ok("pause", "d")
	o.ok("delete", "-f", "d")
}

func TestOCILimits(t *testing.T) {
	o := newOCI(t)
	limit, pids := int64(64<<20), int64(30)
	dir := o.bundle("l", func(s *specs.Spec) {
		s.Linux.Resources.Memory, s.Linux.Resources.Pids = &specs.LinuxMemory{Limit: &limit}, &specs.LinuxPids{Limit: &pids}
	}, "sleep", "1000")
	o.create("l", dir)
	defer o.run("delete", "--force", "l")
	o.ok("start", "l")
	if got := o.limit("l"); got != limit {
		t.Errorf("memory: %d", got)
	}
	o.ok("update", "--memory", "96m", "l")
	if got := o.limit("l"); got != 96<<20 {
		t.Errorf("memory after update: %d", got)
	}
	c := o.command("update", "-r", "-", "l")
	c.Stdin = strings.NewReader(`{"memory": {"limit": 134217728}}`)
	if r := o.finish(c); r.code != 0 || o.limit("l") != 128<<20 {
		t.Errorf("update from stdin: %+v, %d", r, o.limit("l"))
	}
	o.fails(1, "usage", "update", "--memory", "much", "l")
	var event struct {
		Type, ID string
		Data     struct {
			Memory struct{ Usage struct{ Limit int64 } }
			Pids   struct{ Current, Limit int64 }
		}
	}
	// The threads of who has made the container count until its program has taken their place.
	harness.Eventually(t, 10*time.Second, "a single process is counted", func() bool {
		if err := json.Unmarshal([]byte(o.ok("events", "--stats", "l")), &event); err != nil {
			t.Fatal(err)
		}
		return event.Data.Pids.Current == 1
	})
	if event.Type != "stats" || event.ID != "l" || event.Data.Memory.Usage.Limit != 128<<20 {
		t.Errorf("events: %+v", event)
	}
}

func (o *ociHost) limit(id string) int64 {
	for _, p := range []string{"/sys/fs/cgroup/memory" + o.parent + "/" + id + "/memory.limit_in_bytes", "/sys/fs/cgroup" + o.parent + "/" + id + "/memory.max"} {
		if b, err := os.ReadFile(p); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return n
		}
	}
	return -1
}

// TestOCITerminal gets the terminal's master over --console-socket, as engines do.
func TestOCITerminal(t *testing.T) {
	o := newOCI(t)
	path := filepath.Join(o.dir, "console.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := o.bundle("t", func(s *specs.Spec) {
		ownFilter(s)
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 111}
	}, "sh", "-c", "stty size; read x; echo got $x; tty")
	masters := make(chan *os.File, 1)
	go func() { masters <- acceptMaster(l) }()
	if r := o.create("t", dir, "--console-socket", path); r.code != 0 {
		t.Fatal(r.out)
	}
	defer o.run("delete", "--force", "t")
	master := <-masters
	if master == nil {
		t.Fatal("no terminal came")
	}
	defer master.Close()
	o.ok("start", "t")
	if _, err := master.WriteString("word\n"); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	got.ReadFrom(master) // ends with an error once the container has ended
	for _, part := range []string{"33 111", "got word", "/dev/pts/0"} {
		if !strings.Contains(got.String(), part) {
			t.Errorf("%q is not in %q", part, got.String())
		}
	}
	o.becomes("t", "stopped")
}

func acceptMaster(l *net.UnixListener) *os.File {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil
	}
	defer c.Close()
	b, oob := make([]byte, 4096), make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "master")
}

// TestOCIDescriptors: none but stdio reaches the container, except what --preserve-fds names.
func TestOCIDescriptors(t *testing.T) {
	o := newOCI(t)
	const list = "cd /proc/self/fd && for f in *; do [ $f -gt 2 ] && [ -e $f ] && echo $f; done; cat <&3"
	for name, change := range map[string]func(*specs.Spec){"own": ownFilter, "libcontainer": itsFilter} {
		f, err := os.Open("/etc/hostname")
		if err != nil {
			t.Skip(err)
		}
		want, _ := os.ReadFile("/etc/hostname")
		c := o.command("run", "--preserve-fds", "1", "-b", o.bundle("f", change, "sh", "-c", list), "f")
		c.ExtraFiles = []*os.File{f, f, f} // two more than allowed
		r := o.finish(c)
		f.Close()
		if r.code != 0 || r.out != "3\n"+string(want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestOCIHooks: all six, in their order, each in its namespaces.
func TestOCIHooks(t *testing.T) {
	o := newOCI(t)
	log := filepath.Join(o.dir, "rootfs/tmp/hooks")
	outside, _ := os.Readlink("/proc/self/ns/mnt")
	hook := func(name, file string) []specs.Hook {
		return []specs.Hook{{
			Path: "/bin/busybox", Args: []string{"busybox", "sh", "-c",
				fmt.Sprintf("busybox cat >/dev/null; echo %s $(busybox readlink /proc/self/ns/mnt) >>%s", name, file)},
			Env: []string{"PATH=/bin"},
		}}
	}
	dir := o.bundle("h", func(s *specs.Spec) {
		ownFilter(s)
		s.Root.Readonly = false
		s.Hooks = &specs.Hooks{
			//lint:ignore SA1019 deprecated, but engines still use it
			Prestart: hook("prestart", log), CreateRuntime: hook("createRuntime", log), CreateContainer: hook("createContainer", log),
			StartContainer: hook("startContainer", "/tmp/hooks"), Poststart: hook("poststart", log), Poststop: hook("poststop", log),
		}
	}, "true")
	if r := o.run("run", "-b", dir, "h"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		name, ns, _ := strings.Cut(strings.TrimSpace(line), " ")
		names = append(names, name)
		inside := name == "createContainer" || name == "startContainer"
		if inside == (ns == outside) {
			t.Errorf("%s ran in %s, the host's is %s", name, ns, outside)
		}
	}
	slices.Sort(names[3:min(5, len(names))]) // poststart comes when libcontainer's init waits or has gone on
	want := []string{"prestart", "createRuntime", "createContainer", "poststart", "startContainer", "poststop"}
	if !slices.Equal(names, want) {
		t.Errorf("hooks: %v, want %v", names, want)
	}
}

// TestOCIHookFiltered: a hook inside the container is under the container's filter.
func TestOCIHookFiltered(t *testing.T) {
	o := newOCI(t)
	for name, change := range map[string]func(*specs.Spec){"own": ownFilter, "libcontainer": itsFilter} {
		dir := o.bundle("h", func(s *specs.Spec) {
			change(s)
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/mkdir", Args: []string{"mkdir", "/dev/shm/x"}}}}
		}, "true")
		if r := o.run("run", "-b", dir, "h"); r.code == 0 || !strings.Contains(r.err, "not implemented") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestOCIKilled: whenever a create is killed, delete leaves nothing.
func TestOCIKilled(t *testing.T) {
	o := newOCI(t)
	dir := o.bundle("k", ownFilter, "sleep", "1000")
	for after := range 30 {
		c := o.command("create", "-b", dir, "k")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(after) * 2 * time.Millisecond) // where it is killed, chance decides
		c.Process.Kill()
		c.Wait()
		o.ok("delete", "--force", "k")
		for _, h := range groupTrees() {
			if _, err := os.Stat(filepath.Join(h, o.parent, "k")); err == nil {
				t.Fatalf("killed after %d ms: %s is left", 2*after, filepath.Join(h, o.parent, "k"))
			}
		}
	}
}
