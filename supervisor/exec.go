package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// Exec runs a process in a running instance of the target with these files.
func (s *Supervisor) Exec(ctx context.Context, r api.ExecRequest, by string, stdin, stdout, stderr *os.File) (api.Exit, error) {
	if len(r.Args) == 0 {
		return api.Exit{}, invalid("exec: no command")
	}
	t, err := s.snap.Load().target(r.Target)
	if err != nil {
		return api.Exit{}, err
	}
	at, err := t.running()
	if err != nil {
		return api.Exit{}, err
	}
	s.event(api.Event{Type: event.Exec, Unit: at.unit, Instance: at.instance, Run: at.run, Container: at.shown(), By: by,
		Message: "exec " + r.Args[0], Fields: map[string]any{"args": r.Args}})
	x, err := s.rt.Exec(ctx, at.id, runtime.Process{Args: r.Args, Env: r.Env, Cwd: r.Cwd, User: r.User,
		Stdin: stdin, Stdout: stdout, Stderr: stderr})
	if errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return api.Exit{}, fmt.Errorf("unit %s: container %s: %w", at.unit, at, err)
	}
	return api.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM, Unknown: x.Unknown, Cause: x.Cause, At: x.At}, nil
}
