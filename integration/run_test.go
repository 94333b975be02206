package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestRun covers the docker-style calls that scripts make of a runtime.
func TestRun(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	image := r.Ref("busybox")

	h.OK("pull", "-q", image)
	if ids := strings.Fields(h.OK("images", "-q")); len(ids) != 1 {
		t.Errorf("images -q: %q", ids)
	}
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "kill -9 $$"}, 137},
		{[]string{"no-such-command"}, 127},
		{[]string{"/etc/passwd"}, 126},
	} {
		for _, net := range []string{"host", "bridge", "none"} {
			res := h.Run(append([]string{"run", "--rm", "--net", net, image}, c.args...)...)
			if res.Code != c.code {
				t.Errorf("run --net %s %q: code %d, want %d\n%s", net, c.args, res.Code, c.code, res.Stderr)
			}
		}
	}
	res := h.Run("run", "--rm", "--net", "host", image, "sh", "-c", `printf 'a\nb'; echo err >&2; printf '\000\377'`)
	if res.Stdout != "a\nb\x00\xff" || res.Stderr != "err\n" {
		t.Errorf("streams: stdout %q, stderr %q", res.Stdout, res.Stderr)
	}
	if res := h.Run("run", "--rm", "--net", "host", image, "sh", "-c", "seq 1 20000"); res.Stdout != seq(20000) {
		t.Errorf("20000 lines came as %d bytes", len(res.Stdout))
	}

	dir := filepath.Join(h.Dir, "t")
	os.Mkdir(dir, 0o755)
	h.OK("run", "-d", "--net", "host", "--name", "x", "--restart", "always", "-v", dir+":/t", image, "sh", "-c", "echo x >>/t/s; echo out; exec sleep 86000")
	in := h.Running("x", 1)
	if out := h.OK("exec", "x", "sh", "-c", "until [ -s /t/s ]; do usleep 10000; done; cat /t/s"); out != "x\n" {
		t.Errorf("exec: %q", out)
	}
	if res := h.Run("exec", "x", "sh", "-c", "echo o; echo e >&2; exit 9"); res.Code != 9 || res.Stdout != "o\n" || res.Stderr != "e\n" {
		t.Errorf("exec: %+v", res)
	}
	if res := h.Run("exec", "x", "no-such-command"); res.Code != 127 {
		t.Errorf("exec of no command: %+v", res)
	}
	if out := strings.TrimSpace(h.OK("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "x")); out != fmt.Sprintf("%d running", in.Pid) {
		t.Errorf("inspect -f: %q", out)
	}
	kill9(t, h.MainPid(in))
	harness.Eventually(t, 30*time.Second, "x is restarted", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "s"))
		return string(b) == "x\nx\n"
	})
	harness.Eventually(t, 30*time.Second, "logs of both runs of x", func() bool { return h.OK("logs", "x") == "out\nout\n" })

	h.OK("run", "-d", "--net", "none", "--name", "seven", image, "sh", "-c", "sleep 0.3; exit 7")
	if out := h.OK("wait", "seven"); out != "7\n" {
		t.Errorf("wait: %q", out)
	}
	if out := h.OK("ps", "-a", "--format", "{{.Names}} {{.Status}}"); !regexp.MustCompile(`(?m)^seven Exited \(7\) .*$`).MatchString(out) || !regexp.MustCompile(`(?m)^x Up .*$`).MatchString(out) {
		t.Errorf("ps -a: %q", out)
	}
	h.Fails(125, []string{"x"}, "run", "-d", "--net", "none", "--name", "x", image, "true")
	ids := strings.Fields(h.OK("ps", "-aq"))
	if len(ids) != 2 {
		t.Errorf("ps -aq: %q", ids)
	}
	h.OK(append([]string{"rm", "-f"}, ids...)...)
	if out := h.OK("ps", "-aq"); out != "" {
		t.Errorf("ps -aq after rm: %q", out)
	}
	h.OK("rmi", "-f", image)
	if out := h.OK("images", "-q"); out != "" {
		t.Errorf("images -q after rmi: %q", out)
	}
}

func seq(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// TestFollow: logs -f goes on over restarts and ends with the unit.
func TestFollow(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.OK("run", "-d", "--net", "none", "--name", "f", r.Ref("busybox"), "sh", "-c", "for i in $(seq 1 50); do echo line $i; usleep 20000; done")
	out := h.OK("logs", "-f", "f")
	if n := strings.Count(out, "line "); n != 50 {
		t.Errorf("%d lines of 50:\n%s", n, out)
	}
}

// TestIntent: what an operator stopped stays stopped, also across daemons.
func TestIntent(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("s", fmt.Sprintf("image: %s\nnetwork: none\ncommand: [sleep, \"1000\"]\nstop_grace_period: 1s\n", r.Ref("busybox")))
	h.Running("s", 1)
	h.OK("stop", "s")
	if u := h.Unit("s"); u.State != "stopped" {
		t.Errorf("state %s after stop", u.State)
	}
	h.Fails(3, nil, "status", "s")
	h.StopDaemon()
	h.Start()
	if u := h.Unit("s"); u.State != "stopped" {
		t.Errorf("state %s after a restart of the daemon", u.State)
	}
	h.OK("start", "s")
	first := h.Running("s", 1)
	h.OK("restart", "s")
	if again := h.Running("s", 1); again.Run == first.Run {
		t.Errorf("restart kept run %s", again.Run)
	}
	if u := h.Unit("s"); u.Restarts != 0 {
		t.Errorf("%d restarts of a unit that nothing happened to but by hand", u.Restarts)
	}
}

// TestUpdate: a changed file replaces what runs, an unchanged one does not.
func TestUpdate(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	text := "image: " + r.Ref("busybox") + "\nnetwork: none\nreplicas: 2\nstop_grace_period: 1s\ncommand: [sleep, \"%d\"]\n"
	file := h.WriteUnit("u", fmt.Sprintf(text, 1000))
	h.OK("apply", file)
	one, two := h.Running("u", 1), h.Running("u", 2)
	h.OK("diff", file)
	h.OK("apply", file)
	if got := h.Running("u", 1); got.Run != one.Run {
		t.Errorf("an unchanged file replaced run %s by %s", one.Run, got.Run)
	}
	h.WriteUnit("u", fmt.Sprintf(text, 2000))
	if res := h.Fails(1, nil, "diff", file); !strings.Contains(res.Stdout, "2000") {
		t.Errorf("diff does not show the change:\n%s", res.Stdout)
	}
	h.OK("apply", file)
	harness.Eventually(t, 30*time.Second, "both instances are replaced", func() bool {
		u := h.Unit("u")
		return u.State == "running" && u.Running == 2 && u.Instances[0].Run != one.Run && u.Instances[1].Run != two.Run
	})
	if u := h.Unit("u"); u.Restarts != 0 {
		t.Errorf("%d restarts: an update is none", u.Restarts)
	}
	if u := h.Unit("u"); u.Revision != 2 || len(u.Revisions) != 2 {
		t.Errorf("revision %d of %d", u.Revision, len(u.Revisions))
	}
}
