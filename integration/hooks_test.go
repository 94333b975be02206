package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestHooks: what is run in a container after its start and before its stop.
func TestHooks(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	h.Apply("hooky", `
image: `+r.Ref("busybox")+`
network: none
userns: host
stop_grace_period: 1m
volumes: ["`+dir+`:/out"]
command: [sh, -c, "trap 'echo signal >> /out/log; exit 0' TERM; echo up >> /out/log; while :; do sleep 0.1; done"]
post_start:
  - {command: [sh, -c, "until grep -q up /out/log; do sleep 0.1; done; echo post $A >> /out/log"], environment: {A: started}}
pre_stop:
  - {command: [sh, -c, "echo pre >> /out/log; echo telling; exit 3"]}
  - {command: [sh, -c, "sleep 600"], timeout: 1s}
`)
	written := func() string {
		raw, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Join(strings.Fields(string(raw)), " ")
	}
	if got := written(); got != "up post started" {
		t.Errorf("up, and there is %q", got)
	}
	h.OK("stop", "hooky")
	if got := written(); got != "up post started pre signal" {
		t.Errorf("stopped, and there is %q", got)
	}
	events := h.OK("events", "--format", "json")
	for _, want := range []string{"pre_stop sh -c echo pre", "exited with code 3: telling", "killed after 1s"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event has %q:\n%s", want, events)
		}
	}
}

// TestNothingIsLeftOfStop: what does not heed its signal, has left its session, or stands still.
func TestNothingIsLeftOfStop(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	mark := "4711" + strings.Trim(filepath.Base(t.TempDir()), "0") // in the command lines
	h.Apply("deaf", `
image: `+r.Ref("busybox")+`
network: none
stop_grace_period: 500ms
command: [sh, -c, "trap '' TERM; (setsid sh -c 'sleep `+mark+` & sleep `+mark+`' &); setsid sleep `+mark+` & while :; do sleep 0.1; done"]
`)
	h.OK("stop", "deaf")
	h.OK("start", "deaf")
	h.OK("pause", "deaf")
	h.OK("stop", "deaf")
	if out, err := exec.Command("pgrep", "-f", "sleep "+mark).Output(); err == nil {
		t.Errorf("processes are left: %s", out)
	}
}
