package keeper

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

// TestEndedUnseen: a container whose end is still being worked out, as nobody saw it, takes no orders any more; the keeper lives on.
func TestEndedUnseen(t *testing.T) {
	const id = "web.1-aaaa.app"
	c := newContainer(state{Status: runtime.Status{ID: id, State: runtime.Running, Pid: 4711}})
	k := &Keeper{containers: map[string]*container{id: c}}
	for name, order := range map[string]func() error{
		"stop signal": func() error { return k.signal(id, "") },
		"kill":        func() error { return k.kill(context.Background(), id) },
	} {
		if err := order(); !errors.Is(err, runtime.ErrNotRunning) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRootOfEndedUnseen: nor does anybody get the root of a process that has the number of a container's by now.
func TestRootOfEndedUnseen(t *testing.T) {
	const id = "web.1-aaaa.app"
	c := newContainer(state{Status: runtime.Status{ID: id, State: runtime.Running, Pid: os.Getpid()}})
	k := &Keeper{containers: map[string]*container{id: c}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it would wait until the end is worked out
	if f, err := k.openRoot(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("root: %v, %v", f, err)
	}
}
