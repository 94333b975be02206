package cgroup

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		l    Limits
		want string
	}{
		{Limits{}, ""},
		{Limits{Memory: 512 << 20, CPUs: 1.5, Pids: 100}, ""},
		{Limits{Memory: -1}, "limit memory: -1B is negative"},
		{Limits{Memory: 1 << 20}, "limit memory: 1MiB is too little to start a process; at least 6MiB"},
		{Limits{CPUs: -1}, "limit cpus: -1 is negative"},
		{Limits{CPUs: 0.001}, "limit cpus: 0.001 is less than the kernel can give; at least 0.01"},
		{Limits{CPUs: math.NaN()}, "limit cpus: NaN is not a number of cores"},
		{Limits{CPUs: math.Inf(1)}, "limit cpus: +Inf is not a number of cores"},
		{Limits{Pids: -1}, "limit pids: -1 is negative"},
	} {
		got := ""
		if err := c.l.Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c.l, got)
		}
	}
}

func TestResources(t *testing.T) {
	for _, c := range []struct {
		l    Limits
		want string
	}{
		{Limits{}, `{}`},
		{Limits{Memory: 512 << 20}, `{"memory":{"limit":536870912,"swap":536870912}}`},
		{Limits{CPUs: 1.5}, `{"cpu":{"quota":150000,"period":100000}}`},
		{Limits{CPUs: 0.01}, `{"cpu":{"quota":1000,"period":100000}}`},
		{Limits{Pids: 7}, `{"pids":{"limit":7}}`},
	} {
		got, err := json.Marshal(c.l.Resources())
		if err != nil || string(got) != c.want {
			t.Errorf("%+v: got %s, %v", c.l, got, err)
		}
	}
}

func TestMissingControllerIsNamed(t *testing.T) {
	l := Limits{Memory: 64 << 20, CPUs: 1, Pids: 10}
	for _, c := range []struct {
		have []string
		mode Mode
		want string
	}{
		{[]string{"memory", "cpu", "pids"}, Unified, ""},
		{[]string{"memory", "pids"}, Unified, `resources.limits.cpus: the cgroup v2 controller "cpu" is not available to us`},
		{[]string{"cpu", "pids"}, Legacy, `resources.limits.memory: the cgroup v1 controller "memory" is not available to us`},
	} {
		got := ""
		if err := l.checkAgainst(c.have, c.mode); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: got %q", c.have, got)
		}
	}
}

// A group that is not there yet has its nearest ancestor's controllers.
func TestControllersOfFutureGroup(t *testing.T) {
	root := t.TempDir()
	h := &host{mode: Unified, unified: root}
	if _, err := h.controllers("/a/b"); err == nil {
		t.Error("no error where no group has controllers")
	}
	os.Mkdir(filepath.Join(root, "a"), 0o700)
	os.WriteFile(filepath.Join(root, "a", "cgroup.controllers"), []byte("cpu pids\n"), 0o600)
	os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("cpu memory pids\n"), 0o600)
	got, err := h.controllers("/a/b/c")
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
}
