package runtime

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/wherry-run/wherry/cgroup"
)

// Options configure a Runtime.
type Options struct {
	Root         string       // durable state, runs/ and logs/ below it; required
	RunDir       string       // the keeper's socket, pipes and state (tmpfs); required
	Keeper       string       // path of wherry-keeper; empty: beside our own binary, then /usr/lib/wherry
	CgroupParent string       // the group all containers stand under; empty: "wherry"
	Logger       *slog.Logger // nil: discards
}

// Runtime talks to the keeper. It is safe for concurrent use.
type Runtime struct{}

// Open connects to the keeper in RunDir and starts it if nobody answers.
func Open(ctx context.Context, o Options) (*Runtime, error) { return nil, errors.ErrUnsupported }

// Close disconnects. Containers run on. With stopKeeper, a keeper without
// containers ends.
func (r *Runtime) Close() error { return nil }

// KeeperPid is the keeper's process id, 0 when it is away.
func (r *Runtime) KeeperPid() int { return 0 }

// Namespaces makes the namespaces of a run that somebody else configures: now
// the network namespace. The caller closes the file; the namespace lives as
// long as the file or a container that joined it.
func (r *Runtime) Namespaces(ctx context.Context, run string) (*os.File, error) {
	return nil, errors.ErrUnsupported
}

// Start makes and starts the container; when it returns nil the user's program
// has been exec'd. When it fails nothing of the container is left. Errors are
// *StepError; a program that cannot be run is ErrCommand or ErrNotExecutable.
func (r *Runtime) Start(ctx context.Context, c Config) (Status, error) {
	return Status{}, errors.ErrUnsupported
}

// List returns all containers the keeper knows, ended ones too.
func (r *Runtime) List(ctx context.Context) ([]Status, error) { return nil, errors.ErrUnsupported }

// Get returns one container's status.
func (r *Runtime) Get(ctx context.Context, id string) (Status, error) {
	return Status{}, errors.ErrUnsupported
}

// Signal sends sig ("SIGHUP", "HUP" or a number) to the main process.
func (r *Runtime) Signal(ctx context.Context, id, sig string) error { return errors.ErrUnsupported }

// Kill ends every process of the container's group at once.
func (r *Runtime) Kill(ctx context.Context, id string) error { return errors.ErrUnsupported }

// Stop sends the container's stop signal, waits up to grace, then kills the
// whole group. It returns once the container has exited.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) (Exit, error) {
	return Exit{}, errors.ErrUnsupported
}

// Wait blocks until the container has exited and its output is in the log file.
func (r *Runtime) Wait(ctx context.Context, id string) (Exit, error) {
	return Exit{}, errors.ErrUnsupported
}

// Exec runs a further process and blocks until it has ended. The files of p
// are passed to the process; closing them stays the caller's.
func (r *Runtime) Exec(ctx context.Context, id string, p Process) (Exit, error) {
	return Exit{}, errors.ErrUnsupported
}

// Remove forgets an exited container: its group, its state, its folder in
// runs/. Its log files stay. Removing what is not there is no error.
func (r *Runtime) Remove(ctx context.Context, id string) error { return errors.ErrUnsupported }

// Stats reads the container's group.
func (r *Runtime) Stats(ctx context.Context, id string) (cgroup.Stats, error) {
	return cgroup.Stats{}, errors.ErrUnsupported
}

// Events reports changes until ctx ends. The first event is always EventGap.
// The channel is closed when ctx ends; it reconnects to a new keeper by itself.
func (r *Runtime) Events(ctx context.Context) <-chan Event { return nil }
