package supervisortest

import (
	"context"
	"errors"
	"os"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// running finds a running container.
func (r *Runtime) running(id string) (*box, error) {
	b, err := r.find(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.status.State != runtime.Running {
		return nil, runtime.ErrNotRunning
	}
	return b, nil
}

// handle notes that something was done to a running container.
func (r *Runtime) handle(what, id string) error {
	b, err := r.running(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(what, b.name())
	return nil
}

// Signal notes the signal.
func (r *Runtime) Signal(_ context.Context, id, signal string) error {
	return r.handle("signal "+signal, id)
}

// Update notes that there are other limits, which Limits tells.
func (r *Runtime) Update(_ context.Context, id string, l cgroup.Limits) error {
	b, err := r.running(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.note("update", b.status.Instance)
	r.mu.Unlock()
	if r.Refuse != nil {
		if err := r.Refuse(l); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b.limits = &l
	return nil
}

// Limits are what a container was last updated to; nil if it never was.
func (r *Runtime) Limits(id string) *cgroup.Limits {
	b, err := r.find(id)
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return b.limits
}

// Pause notes it.
func (r *Runtime) Pause(_ context.Context, id string) error {
	return errors.Join(r.handle("pause", id), r.freeze(id, true))
}

func (r *Runtime) freeze(id string, paused bool) error {
	b, err := r.running(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b.status.Paused = paused
	return nil
}

// Resume notes it.
func (r *Runtime) Resume(_ context.Context, id string) error {
	return errors.Join(r.handle("resume", id), r.freeze(id, false))
}

// Attach gives a file that takes everything.
func (r *Runtime) Attach(_ context.Context, id string) (*os.File, error) {
	if err := r.handle("attach", id); err != nil {
		return nil, err
	}
	return os.OpenFile(os.DevNull, os.O_RDWR, 0)
}

// CloseStdin notes it.
func (r *Runtime) CloseStdin(_ context.Context, id string) error { return r.handle("close stdin", id) }

// Root gives the host's temporary folder.
func (r *Runtime) Root(_ context.Context, id string) (*os.File, error) {
	if _, err := r.find(id); err != nil {
		return nil, err
	}
	return os.Open(os.TempDir())
}
