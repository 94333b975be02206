package keeper

import (
	"errors"
	"fmt"
	"os"

	"github.com/wherry-run/wherry/runtime"
)

// makeNamespaces makes the namespaces that the containers of a run share, and holds them.
func (k *Keeper) makeNamespaces(n *runtime.Namespaces) ([]*os.File, error) {
	if n.IDMap != nil || n.IPC || n.UTS || n.PID || n.Pin {
		return nil, fmt.Errorf("namespaces of %s: %w", n.Run, errors.ErrUnsupported)
	}
	f, err := newNetNS()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shared[n.Run] != nil {
		f.Close()
		return nil, fmt.Errorf("namespaces of %s: %w", n.Run, runtime.ErrExists)
	}
	k.shared[n.Run] = f
	dup, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	return []*os.File{dup}, nil
}

// releaseNamespaces lets go of a run's namespaces.
func (k *Keeper) releaseNamespaces(run string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.shared[run]; f != nil {
		f.Close()
		delete(k.shared, run)
	}
	return nil
}

// sharedNet is the network namespace of a run, nil if there is none.
func (k *Keeper) sharedNet(run string) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shared[run]
}
