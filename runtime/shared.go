package runtime

import (
	"context"
	"fmt"
	"os"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// MakeNamespaces makes the namespaces that the containers of a run share, and
// returns the network namespace for somebody to configure, nil without Net. The
// caller closes the file. The keeper holds the namespaces until ReleaseNamespaces.
// What is already there is an error, ErrExists.
func (r *Runtime) MakeNamespaces(ctx context.Context, n Namespaces) (*os.File, error) {
	l, err := r.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("namespaces of %s: %w", n.Run, err)
	}
	n.CgroupDriver = r.options.CgroupDriver
	m, err := l.call(ctx, wire.MakeNamespaces, n)
	if err != nil {
		return nil, fmt.Errorf("namespaces of %s: %w", n.Run, err)
	}
	want := 0
	if n.Net {
		want = 1
	}
	if len(m.Files) != want {
		got := len(m.Files)
		m.CloseFiles()
		return nil, fmt.Errorf("namespaces of %s: %w: %d descriptors", n.Run, wire.ErrProtocol, got)
	}
	if want == 0 {
		return nil, nil
	}
	return m.Files[0], nil
}

// ReleaseNamespaces lets go of a run's namespaces; what is not there is no error.
// Containers that are in them go on.
func (r *Runtime) ReleaseNamespaces(ctx context.Context, run string) error {
	return r.repeat(ctx, wire.ReleaseNamespaces, wire.RunRequest{Run: run}, nil)
}
