package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// rootRecord is what it takes to mount an ended container's root once more. It
// lies in a file of its own: it is long, and nobody needs it while the container runs.
type rootRecord struct {
	Rootfs []specs.Mount  `json:"rootfs"`
	IDMap  *runtime.IDMap `json:"id_map,omitempty"`
}

func (k *Keeper) rootRecord(id string) string {
	return filepath.Join(k.layout.Containers(), id+".rootfs")
}

func (l *launch) saveRootfs() error {
	return bundle.WriteJSON(l.k.rootRecord(l.cfg.ID()), &rootRecord{Rootfs: l.cfg.Rootfs, IDMap: l.cfg.IDMap})
}

// openRoot opens a container's root folder: as the container sees it, or of an ended
// one its root file system alone.
func (k *Keeper) openRoot(ctx context.Context, id string) (*os.File, error) {
	c, err := k.find(id)
	if err != nil {
		return nil, err
	}
	for {
		st := c.snapshot()
		switch st.State {
		case runtime.Creating:
			return nil, fmt.Errorf("container %s: it is being started: %w", id, runtime.ErrNotRunning)
		case runtime.Running:
			f, err := rootOfProcess(c.proc, st.Pid)
			if err == nil {
				return f, nil
			}
			if !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("container %s: root: %w", id, err)
			}
		case runtime.Exited:
			f, err := k.rootOfEnded(c, &st)
			if err != nil {
				return nil, fmt.Errorf("container %s: root: %w", id, err)
			}
			return f, nil
		}
		// Its process has just ended.
		select {
		case <-c.settled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// rootOfProcess opens the root of a process, which is then seen to have been the right one. One that ended while no
// keeper was there is nobody's any more, and its number may be somebody else's.
func rootOfProcess(p *process, pid int) (*os.File, error) {
	if p == nil {
		return nil, unix.ESRCH
	}
	f, err := openRootDir(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil, err
	}
	if err := p.signal(0); err != nil {
		f.Close()
		return nil, unix.ESRCH
	}
	return f, nil
}

func openRootDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// rootOfEnded is mountEnded with no removal in the midst of it, which would not know of the folder and the layers that it takes.
func (k *Keeper) rootOfEnded(c *container, st *state) (*os.File, error) {
	c.removing.Lock()
	defer c.removing.Unlock()
	if now, err := k.find(st.ID); err != nil || now != c {
		return nil, runtime.ErrNotFound
	}
	return k.mountEnded(st)
}

// mountEnded mounts an ended container's root where nobody else sees it. The mount lasts as
// long as the file: the namespace that it is made in ends with its thread.
func (k *Keeper) mountEnded(st *state) (*os.File, error) {
	var rec rootRecord
	if err := bundle.ReadJSON(k.rootRecord(st.ID), &rec); err != nil {
		return nil, err
	}
	if err := k.reach(atRootRead, nil); err != nil {
		return nil, err
	}
	r := rootfs{dir: k.layout.Rootfs(st.Run, st.Container), container: st.ID, layers: k.layers, ids: rec.IDMap}
	if rec.IDMap != nil {
		shared, _, err := k.sharedOf(st.Run)
		if err != nil {
			return nil, err
		}
		for kind, f := range shared {
			if kind == "user" {
				r.users = f
			} else {
				f.Close()
			}
		}
		if r.users == nil {
			return nil, errors.New("its user namespace is gone")
		}
		defer r.users.Close()
	}
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		f, err := mountPrivately(&r, rec.Rootfs)
		done <- result{f, err}
	}()
	res := <-done
	return res.f, res.err
}

func mountPrivately(r *rootfs, mounts []specs.Mount) (*os.File, error) {
	if err := privateMounts(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.dir, 0o711); err != nil {
		return nil, err
	}
	if err := r.mount(mounts); err != nil {
		return nil, err
	}
	return openRootDir(r.dir)
}
