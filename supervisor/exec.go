package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// Exec runs a process in a running instance of the target with these files.
func (s *Supervisor) Exec(ctx context.Context, r api.ExecRequest, by string, stdin, stdout, stderr *os.File) (api.Exit, error) {
	if len(r.Args) == 0 {
		return api.Exit{}, invalid("exec: no command")
	}
	e, one, err := s.snap.Load().target(r.Target)
	if err != nil {
		return api.Exit{}, err
	}
	for _, i := range e.instances {
		if i.run == "" || one != "" && i.name != one {
			continue
		}
		s.event(api.Event{Type: event.Exec, Unit: e.unit.Name, Instance: i.name, Run: i.run, By: by,
			Message: "exec " + r.Args[0], Fields: map[string]any{"args": r.Args}})
		x, err := s.rt.Exec(ctx, i.run+"."+container, runtime.Process{Args: r.Args, Env: r.Env, Cwd: r.Cwd, User: r.User,
			Stdin: stdin, Stdout: stdout, Stderr: stderr})
		if errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
			err = fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		if err != nil {
			return api.Exit{}, fmt.Errorf("unit %s: container %s: %w", e.unit.Name, i.name, err)
		}
		return api.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM, Unknown: x.Unknown, Cause: x.Cause, At: x.At}, nil
	}
	return api.Exit{}, fmt.Errorf("unit %s: %w", e.unit.Name, ErrNotRunning)
}

// target finds a unit, or an instance and its unit; one is the instance, empty
// if the unit as a whole is meant.
func (s *snapshot) target(name string) (e *entry, one string, err error) {
	if e := s.find(name); e != nil {
		return e, "", nil
	}
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		if e := s.find(name[:dot]); e != nil {
			for _, i := range e.instances {
				if i.name == name {
					return e, name, nil
				}
			}
		}
	}
	names, err := s.match(name)
	if err != nil {
		return nil, "", err
	}
	if len(names) > 1 {
		return nil, "", ambiguous(name, names)
	}
	return s.find(names[0]), "", nil
}
