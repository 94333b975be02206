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
	return s.exec(ctx, r, by, runtime.Process{Stdin: stdin, Stdout: stdout, Stderr: stderr})
}

// ExecConsole runs a process on a terminal of its own, whose master is sent on console; see
// runtime.Console.
func (s *Supervisor) ExecConsole(ctx context.Context, r api.ExecRequest, by string, console *os.File) (api.Exit, error) {
	p := runtime.Process{Console: console}
	if r.Size != nil {
		p.Rows, p.Columns = r.Size.Rows, r.Size.Columns
	}
	return s.exec(ctx, r, by, p)
}

// exec runs p in the target, with the rest of what the request says.
func (s *Supervisor) exec(ctx context.Context, r api.ExecRequest, by string, p runtime.Process) (api.Exit, error) {
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
	fields := map[string]any{"args": r.Args}
	if r.Privileged {
		fields["privileged"] = true
	}
	s.event(api.Event{Type: event.Exec, Unit: at.unit, Instance: at.instance, Run: at.run, Container: at.shown(), By: by,
		Message: "exec " + r.Args[0], Fields: fields})
	p.Args, p.Env, p.Cwd, p.User, p.Privileged, p.Detach = r.Args, r.Env, r.Cwd, r.User, r.Privileged, r.Detach
	x, err := s.rt.Exec(ctx, at.id, p)
	if errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if errors.Is(err, runtime.ErrPaused) {
		return api.Exit{}, fmt.Errorf("unit %s: container %s is paused: `wherry ctl resume %s` lets it go on", at.unit, at, at)
	}
	if err != nil {
		return api.Exit{}, fmt.Errorf("unit %s: container %s: %w", at.unit, at, err)
	}
	return execExit(x), nil
}

func execExit(x runtime.Exit) api.Exit {
	return api.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM, Unknown: x.Unknown, Cause: x.Cause, At: x.At}
}
