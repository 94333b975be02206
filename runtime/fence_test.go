package runtime_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestNothingAboveOurGroup: a start leaves the controllers of the host's other
// groups as they are, which libcontainer alone would not.
func TestNothingAboveOurGroup(t *testing.T) {
	const control = "/sys/fs/cgroup/cgroup.subtree_control"
	before, err := os.ReadFile(control)
	if err != nil {
		t.Skip("needs cgroup v2 alone")
	}
	have, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	if len(strings.Fields(string(have))) == len(strings.Fields(string(before))) {
		t.Skip("all controllers are on already")
	}
	w := newWorld(t)
	c := w.config("sleep", "1000")
	limit := int64(64 << 20)
	c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	st := w.start(c)
	if after, err := os.ReadFile(control); err != nil || string(after) != string(before) {
		t.Errorf("controllers of the whole host were %q, are %q, %v", before, after, err)
	}
	if b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", st.Cgroup, "memory.max")); err != nil || strings.TrimSpace(string(b)) != "67108864" {
		t.Errorf("memory.max = %q, %v", b, err)
	}
	w.rt.Kill(t.Context(), c.ID())
	w.finish(c)
}
