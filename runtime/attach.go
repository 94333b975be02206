package runtime

import (
	"context"
	"fmt"
	"os"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Attach returns the container's side of its input: the master of its terminal,
// or the pipe that is its stdin (Config.Stdin). The caller closes it. Output is
// read from the log, which takes it all.
func (r *Runtime) Attach(ctx context.Context, id string) (*os.File, error) {
	return r.file(ctx, wire.Attach, wire.ContainerRequest{ID: id})
}

// CloseStdin ends the container's input: it reads the end of file once it has
// read what is in the pipe.
func (r *Runtime) CloseStdin(ctx context.Context, id string) error {
	return r.repeat(ctx, wire.CloseStdin, wire.ContainerRequest{ID: id}, nil)
}

// Root opens the container's root folder, as the container sees it, with its
// volumes if it runs. Of one that has ended it is the root file system alone. Open below
// it only in ways that do not leave it (openat2 with RESOLVE_IN_ROOT). With a
// user namespace the owners are the host's ids, see Config.IDMap.
func (r *Runtime) Root(ctx context.Context, id string) (*os.File, error) {
	return r.file(ctx, wire.Root, wire.ContainerRequest{ID: id})
}

// file makes a call that is answered by one descriptor. It may be asked again if the keeper dies over it.
func (r *Runtime) file(ctx context.Context, t wire.Type, body any) (*os.File, error) {
	for try := 0; ; try++ {
		f, err := r.fileOnce(ctx, t, body)
		if err == nil || !keeperGone(err) || try == 3 || ctx.Err() != nil || r.ctx.Err() != nil {
			return f, err
		}
	}
}

func (r *Runtime) fileOnce(ctx context.Context, t wire.Type, body any) (*os.File, error) {
	l, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	m, err := l.call(ctx, t, body)
	if err != nil {
		return nil, err
	}
	if len(m.Files) != 1 {
		got := len(m.Files)
		m.CloseFiles()
		return nil, fmt.Errorf("%w: %d descriptors", wire.ErrProtocol, got)
	}
	return m.Files[0], nil
}
