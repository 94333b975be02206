package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// TestAwaitKeeper: a daemon waits for the service that runs its keeper, and says so to who asks.
func TestAwaitKeeper(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	var told []string
	s := &Supervisor{log: slog.New(slog.DiscardHandler)}
	s.opts.Store(&Options{Socket: socket, KeeperManaged: true, Progress: func(what string) { told = append(told, what) }})
	tries, c := 0, api.Dial(socket)
	last := errors.New("the last word")
	_, err := s.openRuntime(t.Context(), func(ctx context.Context) (*runtime.Runtime, error) {
		tries++
		switch tries {
		case 1:
			return nil, fmt.Errorf("%w: %w", runtime.ErrKeeper, runtime.ErrNotStarted)
		case 2:
			var e *api.Error
			if _, err := c.Info(ctx); !errors.As(err, &e) || e.Code != api.CodeUnavailable || e.Hint == "" {
				t.Errorf("while it waits: %v", err)
			}
			return nil, fmt.Errorf("%w: %w", runtime.ErrKeeper, runtime.ErrNotStarted)
		}
		return nil, last
	})
	if !errors.Is(err, last) || tries != 3 || len(told) != 2 {
		t.Errorf("%v after %d tries, told %q", err, tries, told)
	}
	ln, err := s.listen()
	if err != nil || ln != s.early || ln == nil {
		t.Fatalf("another socket: %v %v", ln, err)
	}
	ln.Close()

	ctx, cancel := context.WithCancel(t.Context())
	s = &Supervisor{log: slog.New(slog.DiscardHandler)}
	s.opts.Store(&Options{})
	if _, err := s.openRuntime(ctx, func(context.Context) (*runtime.Runtime, error) {
		cancel()
		return nil, runtime.ErrNotStarted
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped while it waits: %v", err)
	}
}

// TestAlive: the loop answers while it runs, and nobody does when it has ended or hangs.
func TestAlive(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		if err := d.Alive(t.Context()); err != nil {
			t.Error(err)
		}
		if err := d.end(); err != nil {
			t.Error(err)
		}
		if err := d.Alive(t.Context()); err == nil {
			t.Error("it answers after its end")
		}
	})
	s := &Supervisor{inbox: make(chan message, 1), over: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Alive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a loop that hangs: %v", err)
	}
}

func TestLevelOf(t *testing.T) {
	for want, list := range map[slog.Level][]api.Event{
		slog.LevelInfo: {{Type: event.Start}, {Type: event.Exit, Exit: &api.Exit{}}, {Type: event.Exit, Exit: &api.Exit{Signal: "SIGTERM"}}},
		slog.LevelWarn: {{Type: event.OOM}, {Type: event.Exit, Exit: &api.Exit{Code: 1}}, {Type: event.Exit, Exit: &api.Exit{Signal: "SIGKILL", OOM: true}}},
	} {
		for _, e := range list {
			if got := levelOf(e); got != want {
				t.Errorf("%+v: %v", e, got)
			}
		}
	}
}
