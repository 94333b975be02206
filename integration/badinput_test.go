package integration

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// failsToStart applies a unit that cannot start and waits for an error of its
// instance that has all parts; the unit is then tried again, not given up.
func failsToStart(t *testing.T, h *harness.Host, name, text string, parts ...string) {
	t.Helper()
	h.Run("apply", "--no-wait", h.WriteUnit(name, text))
	var last string
	harness.Eventually(t, 40*time.Second, fmt.Sprintf("unit %s says %q", name, parts), func() bool {
		u := h.Unit(name)
		if len(u.Instances) == 0 {
			return false
		}
		last = "unit " + name + ": container " + u.Instances[0].Name + ": " + u.Instances[0].Error
		for _, p := range parts {
			if !strings.Contains(last, p) {
				return false
			}
		}
		return true
	})
	if u := h.Unit(name); u.State == "running" {
		t.Errorf("unit %s runs", name)
	}
	h.OK("rm", "-f", name)
	h.NothingLeft("unit " + name)
}

func TestBadStarts(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	taken, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	image := r.Ref("busybox")
	for _, c := range []struct {
		name, text string
		parts      []string
	}{
		{"nocmd", "image: " + image + "\nnetwork: none\ncommand: [no-such-thing]\n", []string{"unit nocmd", "container nocmd.1", "process", "no-such-thing", "not found"}},
		{"noexec", "image: " + image + "\nnetwork: none\ncommand: [/etc/passwd]\n", []string{"unit noexec", "container noexec.1", "process", "/etc/passwd"}},
		{"noimage", "image: " + r.Addr + "/nothing:here\nnetwork: none\n", []string{"unit noimage", "container noimage.1", "nothing:here"}},
		{"noregistry", "image: 127.0.0.1:1/busybox\nnetwork: none\n", []string{"unit noregistry", "container noregistry.1", "connection refused"}},
		{"taken", fmt.Sprintf("image: %s\nports: [\"%d:80\"]\ncommand: [sleep, \"100\"]\n", image, port), []string{"unit taken", "container taken.1", "network", fmt.Sprint(port), "address already in use"}},
		{"nobind", "image: " + image + "\nnetwork: none\nvolumes: [\"/no/such/folder:/x\"]\n", []string{"unit nobind", "container nobind.1", "/no/such/folder"}},
		{"nouser", "image: " + image + "\nnetwork: none\nuser: nobody-here\ncommand: [\"true\"]\n", []string{"unit nouser", "container nouser.1", "nobody-here"}},
	} {
		failsToStart(t, h, c.name, c.text, c.parts...)
	}
}

// TestStartIsRetried: what time cures is cured without anybody's help.
func TestStartIsRetried(t *testing.T) {
	own := harness.StartRegistry(t, "busybox")
	h := harness.StartHost(t)
	own.Stop()
	h.Run("apply", "--no-wait", h.WriteUnit("later", "image: "+own.Ref("busybox")+"\nnetwork: none\ncommand: [sleep, \"1000\"]\n"))
	harness.Eventually(t, 30*time.Second, "the pull fails", func() bool {
		u := h.Unit("later")
		return len(u.Instances) > 0 && u.Instances[0].Error != ""
	})
	own.Restart(t)
	h.Running("later", 1)
}

func TestBadUnits(t *testing.T) {
	h := harness.StartHost(t)
	for _, c := range []struct {
		text  string
		parts []string
	}{
		{"image: x\ncomand: [a]\n", []string{"bad.yaml:2:1", `"comand"`, `"command"`}},
		{"image: x\nreplicas: many\n", []string{"bad.yaml:2:11", "replicas"}},
		{"image: x\nprobes: {}\n", []string{"bad.yaml:2:1", "not supported yet"}},
		{"image: x\nresources: {limits: {memory: 512}}\n", []string{"bad.yaml:2:30", "512MiB"}},
		{"network: none\n", []string{"bad.yaml", "image"}},
		{"image: x\ndepends_on: [nowhere]\n", []string{"nowhere"}},
	} {
		h.Fails(2, c.parts, "apply", h.WriteUnit("bad", c.text))
	}
	if units := h.OK("list", "-q"); units != "" {
		t.Errorf("units after bad files: %q", units)
	}
	h.Fails(2, []string{"bad.yaml:1:1"}, "validate", h.WriteUnit("bad", "imag: x\n"))
}

// TestSecondDaemon: one root has one daemon.
func TestSecondDaemon(t *testing.T) {
	h := harness.StartHost(t)
	out, err := h.SecondDaemon()
	if err == nil || !strings.Contains(out, h.Root) || !strings.Contains(out, fmt.Sprint(h.DaemonPid())) {
		t.Errorf("second daemon: %v\n%s", err, out)
	}
	h.OK("status")
}

// TestDaemonDown: the message names the next command.
func TestDaemonDown(t *testing.T) {
	h := harness.NewHost(t)
	h.Fails(5, []string{"wherry"}, "status")
}

// TestDiskFull: a pull onto a full disk fails with the numbers, a container
// that logs onto a full disk goes on, and both recover.
func TestDiskFull(t *testing.T) {
	r := registry(t)
	h := harness.NewHost(t)
	h.SmallDisk(24 << 20)
	h.Start()
	res := h.Fails(1, []string{"space"}, "pull", r.Ref("nginx"))
	_ = res
	h.OK("pull", "-q", r.Ref("busybox"))
	h.Apply("log", fmt.Sprintf(`
image: %s
network: none
restart: no
logging: {max_size: 64MiB, max_file: 2}
command: [sh, -c, "p=$(head -c 500 /dev/zero | tr '\\0' .); i=0; while :; do i=$((i+1)); echo n $i $p; usleep 5000; done"]
`, r.Ref("busybox")))
	in := h.Running("log", 1)
	filler := h.Root + "/filler"
	fill(t, filler)
	// More than the last page of the log can hold.
	before, pid := written(t, h.MainPid(in)), h.MainPid(in)
	harness.Eventually(t, 30*time.Second, "it writes on", func() bool { return written(t, pid) > before+32<<10 })
	if got := h.Running("log", 1); got.Pid != in.Pid {
		t.Errorf("pid %d, was %d", got.Pid, in.Pid)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "the log goes on and says what is missing", func() bool {
		out := h.Run("logs", "log")
		_, after, ok := strings.Cut(out.Stdout+out.Stderr, "dropped")
		return ok && (strings.Contains(after, "n ") || strings.Contains(out.Stdout, "n "))
	})
}

// written is how many bytes a process has written so far.
func written(t *testing.T, pid int) (n int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "wchar: ")
	fmt.Sscan(after, &n)
	return n
}

// fill writes until there is no space left.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		b := make([]byte, size)
		for {
			if _, err := f.Write(b); err != nil {
				break
			}
		}
	}
}
