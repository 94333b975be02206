package runtime_test

import (
	"strings"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

func TestOwnVitals(t *testing.T) {
	v := runtime.OwnVitals(true, true)
	if v.Goroutines < 2 || v.Heap == 0 || !strings.Contains(v.Stacks, "TestOwnVitals") {
		t.Errorf("%+v", v)
	}
	if v := runtime.OwnVitals(false, false); v.Stacks != "" {
		t.Error("stacks that nobody asked for")
	}
}

// TestKeeperVitals: the keeper tells of itself, not of who asks.
func TestKeeperVitals(t *testing.T) {
	w := newWorld(t)
	v, err := w.rt.KeeperVitals(t.Context(), true, true)
	if err != nil || v.Pid != w.rt.KeeperPid() || v.Goroutines < 2 || v.Heap == 0 || !strings.Contains(v.Stacks, "keeper") {
		t.Errorf("%+v, %v", v, err)
	}
}
