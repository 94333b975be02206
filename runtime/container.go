package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Namespaces makes the namespaces of a run that somebody else configures: now
// the network namespace. The caller closes the file; the namespace lives as
// long as the file or a container that joined it.
func (r *Runtime) Namespaces(ctx context.Context, run string) (*os.File, error) {
	l, err := r.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("namespaces of %s: %w", run, err)
	}
	m, err := l.call(ctx, wire.Namespaces, wire.NamespacesRequest{Run: run})
	if err != nil {
		return nil, fmt.Errorf("namespaces of %s: %w", run, err)
	}
	if len(m.Files) != 1 {
		m.CloseFiles()
		return nil, fmt.Errorf("namespaces of %s: %w: %d descriptors", run, wire.ErrProtocol, len(m.Files))
	}
	return m.Files[0], nil
}

// Start makes and starts the container; when it returns nil the user's program
// has been exec'd. When it fails nothing of the container is left. Errors are
// *StepError; a program that cannot be run is ErrCommand or ErrNotExecutable.
// With ErrKeeper it is not known what happened: List tells.
func (r *Runtime) Start(ctx context.Context, c Config) (Status, error) {
	var st Status
	c.CgroupDriver = r.options.CgroupDriver
	config, err := json.Marshal(c)
	if err != nil {
		return st, &StepError{Step: StepProcess, Err: err}
	}
	req := wire.StartRequest{Config: config, NetNS: c.NetNS != nil}
	var files []*os.File
	if c.NetNS != nil {
		files = append(files, c.NetNS)
	}
	if err = r.understood(ctx, &c); err == nil {
		err = r.once(ctx, wire.Start, req, &st, files...)
	}
	var se *StepError
	if err != nil && !errors.As(err, &se) {
		err = &StepError{Step: StepProcess, Err: err}
	}
	return st, err
}

// List returns all containers the keeper knows, ended ones too.
func (r *Runtime) List(ctx context.Context) ([]Status, error) {
	var list []Status
	if err := r.repeat(ctx, wire.List, nil, &list); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return list, nil
}

// Get returns one container's status.
func (r *Runtime) Get(ctx context.Context, id string) (Status, error) {
	var st Status
	err := r.repeat(ctx, wire.Get, wire.ContainerRequest{ID: id}, &st)
	return st, err
}

// Signal sends sig ("SIGHUP", "HUP" or a number) to the main process. Empty is
// the container's stop signal.
func (r *Runtime) Signal(ctx context.Context, id, sig string) error {
	return r.once(ctx, wire.Signal, wire.SignalRequest{ID: id, Signal: sig}, nil)
}

// Kill ends every process of the container's group at once. One that is just being started, as another client has
// asked, is not: its start is called off, and the error is ErrNotFound.
func (r *Runtime) Kill(ctx context.Context, id string) error {
	return r.repeat(ctx, wire.Kill, wire.ContainerRequest{ID: id}, nil)
}

// Stop sends the container's stop signal, waits up to grace, then kills the
// whole group. It returns once the container has exited.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) (Exit, error) {
	if err := r.Signal(ctx, id, ""); err != nil && !errors.Is(err, ErrNotRunning) && !keeperGone(err) {
		return Exit{}, err
	}
	patience, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	exit, err := r.Wait(patience, id)
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return exit, err
	}
	if err := r.Kill(ctx, id); err != nil && !errors.Is(err, ErrNotRunning) {
		return Exit{}, err
	}
	return r.Wait(ctx, id)
}

// Wait blocks until the container has exited and its output is in the log file.
func (r *Runtime) Wait(ctx context.Context, id string) (Exit, error) {
	var st Status
	if err := r.repeat(ctx, wire.Wait, wire.ContainerRequest{ID: id}, &st); err != nil {
		return Exit{}, err
	}
	if st.Exit == nil {
		return Exit{}, fmt.Errorf("container %s: %w: no exit", id, wire.ErrProtocol)
	}
	return *st.Exit, nil
}

// Exec runs a further process and blocks until it has ended. The files of p
// are passed to the process; closing them stays the caller's. If ctx ends, or
// this process dies, the process is killed.
func (r *Runtime) Exec(ctx context.Context, id string, p Process) (Exit, error) {
	req := wire.ExecRequest{ID: id, Args: p.Args, Env: p.Env, Cwd: p.Cwd, User: p.User,
		Rows: p.Rows, Columns: p.Columns, Privileged: p.Privileged, Detach: p.Detach}
	var files []*os.File
	for i, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		if f != nil {
			req.Stdio |= 1 << i
			files = append(files, f)
		}
	}
	if p.Console != nil {
		req.Console = true
		files = append(files, p.Console)
	}
	return r.exec(ctx, req, files)
}

// Remove forgets an exited container: its group, its state, its folder in
// runs/. Its log files stay. Removing what is not there is no error.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	return r.repeat(ctx, wire.Remove, wire.ContainerRequest{ID: id}, nil)
}

// Stats reads the container's group.
func (r *Runtime) Stats(ctx context.Context, id string) (cgroup.Stats, error) {
	st, err := r.Get(ctx, id)
	if err != nil {
		return cgroup.Stats{}, err
	}
	if st.State != Running {
		return cgroup.Stats{}, fmt.Errorf("container %s: %w", id, ErrNotRunning)
	}
	return cgroup.Group{Path: st.Cgroup}.Stats()
}
