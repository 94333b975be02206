package keeper

import (
	"context"
	"errors"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

// TestStartOfTheDead: the client has ended before its start began. The next one has listed the containers since, and
// would never learn of this one.
func TestStartOfTheDead(t *testing.T) {
	k := &Keeper{containers: map[string]*container{}}
	gone := func() bool { return true }
	cfg := &runtime.Config{Run: "web.1-aaaa", Container: "app", Spec: &specs.Spec{Linux: &specs.Linux{},
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}, Mounts: []specs.Mount{{Destination: "/proc"}}}}
	if _, err := k.start(t.Context(), gone, cfg, nil); !errors.Is(err, context.Canceled) || len(k.containers) > 0 {
		t.Errorf("start: %v, %d containers", err, len(k.containers))
	}
}
