package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"os"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// understood refuses a container of which an older keeper would leave out a part
// without a word.
func (r *Runtime) understood(ctx context.Context, c *Config) error {
	l, err := r.connect(ctx)
	if err != nil {
		return err
	}
	if v := l.hello.Version; v < 2 {
		if what := newIn2(c); what != "" {
			return wire.Needs(what, 2, v)
		}
	}
	return nil
}

// newIn2 names what version 1 does not know.
func newIn2(c *Config) string {
	for _, f := range []struct {
		set  bool
		name string
	}{
		{c.Join, "shared namespaces"},
		{c.IDMap != nil, "a user namespace"},
		{len(c.GroupAdd) > 0, "further groups"},
		{c.OOM == "process", "the kill of a single process"},
		{c.Stdin, "an input"},
		{c.Spec != nil && c.Spec.Process != nil && c.Spec.Process.Terminal, "a terminal"},
	} {
		if f.set {
			return f.name
		}
	}
	return ""
}

// exec runs a process. If the keeper is replaced or dies meanwhile, the process
// goes on, and the next keeper is asked for its end.
func (r *Runtime) exec(ctx context.Context, req wire.ExecRequest, files []*os.File) (Exit, error) {
	var exit Exit
	l, err := r.connect(ctx)
	if err != nil {
		return exit, err
	}
	if req.Console || req.Privileged || req.Detach {
		if v := l.hello.Version; v < 2 {
			return exit, wire.Needs("exec with a terminal, privileged or detached", 2, v)
		}
	}
	if !req.Detach {
		req.Key = rand.Text()
	}
	err = r.once(ctx, wire.Exec, req, &exit, files...)
	for try := 0; try < 3 && keeperGone(err) && ctx.Err() == nil && r.ctx.Err() == nil; try++ {
		aerr := r.once(ctx, wire.AwaitExec, wire.AwaitExecRequest{ID: req.ID, Key: req.Key}, &exit)
		if errors.Is(aerr, ErrNotFound) || errors.Is(aerr, errors.ErrUnsupported) {
			break // it had not begun, or this keeper does not know of such things
		}
		err = aerr
	}
	return exit, err
}
