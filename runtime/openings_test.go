package runtime_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/spec"
)

// A device gets the host's numbers under its name inside, and may be used as far as asked.
func TestDevices(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		c := w.attack(mapped, spec.Container{Devices: []spec.Device{
			{Source: "/dev/kmsg", Target: "/dev/messages", Permissions: "r"}, {Source: "/dev/zero", Target: "/nothing/zero", Permissions: "rw"},
		}}, "sh", "-c", "stat -c '%n %t:%T %u' /dev/messages /nothing/zero; /attacker write=/dev/messages; dd if=/nothing/zero bs=4 count=1 2>/dev/null | cat -A; test ! -e /dev/kmsg")
		want := "/dev/messages 1:b 0\n/nothing/zero 1:5 0\n/dev/messages: EPERM\n^@^@^@^@"
		if got := w.output(c); strings.TrimSpace(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
		c = w.attack(mapped, spec.Container{Devices: []spec.Device{{Source: "/dev/no-such-device", Target: "/dev/x", Permissions: "r"}}}, "true")
		_, err := w.rt.Start(w.ctx(), c)
		if err == nil || !strings.Contains(err.Error(), "device /dev/no-such-device: no such file or directory") {
			t.Errorf("a device that the host has not: %v", err)
		}
	})
}

// Privileged is as in Docker: all capabilities that the host has, all devices, no masks,
// no filter, writable kernel files.
func TestPrivileged(t *testing.T) {
	w := newWorld(t)
	c := w.attack(false, spec.Container{Privileged: true, NewPrivileges: true}, "sh", "-c",
		"grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status; test -c /dev/kmsg && echo dev; test -w /proc/sys/vm/swappiness && echo proc; test ! -c /proc/kcore && unshare -m true && echo open")
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(own), "CapEff:")
	want := "CapEff:\t" + strings.Fields(rest)[0] + "\nNoNewPrivs:\t0\nSeccomp:\t0\ndev\nproc\nopen\n"
	if got := w.output(c); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The init lives under a filter of its own where the program's would be its end.
func TestProfileAgainstInit(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		profile := json.RawMessage(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
			{"names": ["wait4", "waitid", "kill", "rt_sigtimedwait", "clone", "fork", "vfork", "clone3"], "action": "SCMP_ACT_KILL_PROCESS"},
			{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "includes": {"caps": ["CAP_CHOWN"]}},
			{"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}}]}`)
		custom := spec.Container{Seccomp: "mine.json", SeccompProfile: profile}
		for _, init := range []bool{true, false} {
			c := w.attack(mapped, custom, "mkdir", "/tmp/x")
			c.Init = init
			w.start(c)
			if exit := w.finish(c); exit.Code != 1 || exit.Signal != "" {
				t.Errorf("init %v: %+v", init, exit)
			}
		}
		c := w.attack(mapped, custom, "kill", "-9", "1")
		w.start(c)
		if exit := w.finish(c); exit.Signal != "SIGSYS" {
			t.Errorf("a call that kills: %+v", exit)
		}
		c = w.attack(mapped, custom, "sleep", "1000")
		w.start(c)
		if text := w.execOutput(c, runtime.Process{Args: []string{"grep", "Seccomp_filters", "/proc/self/status", "/proc/1/status"}}); strings.Count(text, "\t1\n") != 2 {
			t.Errorf("filters: %q", text)
		}
		if exit, err := w.rt.Stop(w.ctx(), c.ID(), 0); err != nil || exit.Signal == "" {
			t.Errorf("stop: %+v, %v", exit, err)
		}
		w.finish(c)
		// Without no_new_privs libcontainer loads it, before the init runs.
		custom.NewPrivileges = true
		if _, err := w.rt.Start(w.ctx(), w.attack(mapped, custom, "true")); err == nil || !strings.Contains(err.Error(), "the profile forbids") {
			t.Errorf("a profile that would end the init: %v", err)
		}
	})
}

// Set-user-id programs work where the unit wants it, with the filter still in place.
func TestNewPrivileges(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		for _, gain := range []bool{false, true} {
			c := w.attack(mapped, spec.Container{NewPrivileges: gain, User: "web"}, "sh", "-c", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status")
			want := fmt.Sprintf("NoNewPrivs:\t%d\nSeccomp:\t2\n", map[bool]int{false: 1, true: 0}[gain])
			if got := w.output(c); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}

// Limits, groups, parameters and shared memory are as asked for.
func TestSmallOpenings(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		c := w.attack(mapped, spec.Container{
			Ulimits: []spec.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}, {Name: "core", Soft: 0, Hard: 0}, {Name: "nofile", Soft: 101, Hard: 1 << 40}},
			Sysctls: map[string]string{"net.core.somaxconn": "77", "kernel.msgmax": "4321"}, ShmSize: 1 << 20, OOMScoreAdj: 500, User: "web",
		}, "sh", "-c", "ulimit -n; ulimit -c; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/self/oom_score_adj; stat -f -c %b /dev/shm; id -G; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
		c.GroupAdd = []string{"extra", "4711"}
		if got, want := w.output(c), "101\n0\n77\n4321\n500\n256\n1001 1002 4711\n0\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		c = w.attack(mapped, spec.Container{}, "true")
		c.GroupAdd = []string{"nobody-knows"}
		if _, err := w.rt.Start(w.ctx(), c); err == nil || !strings.Contains(err.Error(), `group_add "nobody-knows"`) {
			t.Errorf("an unknown group: %v", err)
		}
	})
}

// Hooks, as vendors of CDI devices have them, find the container's folder and specification.
func TestHooks(t *testing.T) {
	w := newWorld(t)
	c := w.attack(false, spec.Container{}, "true")
	seen := filepath.Join(w.root, "hook")
	c.Spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c",
		`bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/'); grep -o '"path":"[^"]*"' $bundle/config.json >` + seen}}}}
	w.output(c)
	if b, err := os.ReadFile(seen); err != nil || !strings.Contains(string(b), "rootfs") {
		t.Errorf("%q, %v", b, err)
	}
}
