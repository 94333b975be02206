package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// sharedFormat is the version of the state file of a run's namespaces.
const sharedFormat = 1

// sharedState is what a successor must know about the namespaces that the containers
// of a run share. It stands in a file if they are to outlive a keeper by more
// than the containers in them. Its fields are only ever added to.
type sharedState struct {
	Format int    `json:"format"`
	BootID string `json:"boot_id"`
	runtime.Namespaces

	// Inodes tell a namespace from another that has come into its place.
	// Without them the making was cut off.
	Inodes map[string]uint64 `json:"inodes,omitempty"`

	Group string `json:"group,omitempty"` // of the run, where there is a holder in it

	Holder      int    `json:"holder,omitempty"` // process id
	HolderStart uint64 `json:"holder_start,omitempty"`

	// Keeper has left its descriptors open for the binary that it has become.
	Keeper      int            `json:"keeper,omitempty"`
	KeeperStart uint64         `json:"keeper_start,omitempty"`
	Files       map[string]int `json:"files,omitempty"`
}

// shared are the namespaces that the containers of a run share, while the keeper holds them.
type shared struct {
	st     sharedState
	files  map[string]*os.File // by their names in /proc/PID/ns
	holder *process            // PID 1 of the shared PID namespace
	kept   bool                // there is a state file
	shm    bool                // /dev/shm of the run is mounted
}

// nsKinds are the namespaces that can be shared, the one that owns the others first.
var nsKinds = []struct {
	name string
	flag uintptr
}{
	{"user", unix.CLONE_NEWUSER}, {"net", unix.CLONE_NEWNET}, {"ipc", unix.CLONE_NEWIPC},
	{"uts", unix.CLONE_NEWUTS}, {"pid", unix.CLONE_NEWPID},
}

// kindsOf are the names of the namespaces that n asks for.
func kindsOf(n *runtime.Namespaces) []string {
	var names []string
	for i, wanted := range []bool{n.IDMap != nil, n.Net, n.IPC, n.UTS, n.PID} {
		if wanted {
			names = append(names, nsKinds[i].name)
		}
	}
	return names
}

func flagsOf(kinds []string) (flags uintptr) {
	for _, k := range nsKinds {
		if slices.Contains(kinds, k.name) {
			flags |= k.flag
		}
	}
	return flags
}

// makeNamespaces makes the namespaces that the containers of a run share, and holds them; not for who has
// gone meanwhile: nobody would ever let go of them.
func (k *Keeper) makeNamespaces(ctx context.Context, gone func() bool, n *runtime.Namespaces) ([]*os.File, error) {
	wrap := func(err error) error { return fmt.Errorf("namespaces of %s: %w", n.Run, err) }
	if err := bundle.CheckName(n.Run); err != nil {
		return nil, err
	}
	if err := checkIDMap(n.IDMap); err != nil {
		return nil, wrap(err)
	}
	if len(kindsOf(n)) == 0 {
		return nil, wrap(errors.New("none are wanted"))
	}
	k.launching.RLock() // an upgrade waits until there is something to hand over
	defer k.launching.RUnlock()
	s := &shared{st: sharedState{Format: sharedFormat, BootID: k.boot, Namespaces: *n}, kept: n.Pin || n.PID}
	made := make(chan struct{})
	defer close(made)
	k.mu.Lock()
	if k.shared[n.Run] != nil || k.making[n.Run] != nil {
		k.mu.Unlock()
		return nil, wrap(runtime.ErrExists)
	}
	k.making[n.Run] = made
	k.mu.Unlock()
	err := k.makeShared(s)
	var net *os.File
	if err == nil && n.Net {
		net, err = duplicate(s.files["net"])
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && gone() {
		err = context.Canceled
	}
	if err != nil {
		if net != nil {
			net.Close()
		}
		err = errors.Join(err, k.dropShared(s))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.making, n.Run)
	if err != nil {
		return nil, wrap(err)
	}
	k.shared[n.Run] = s
	if net == nil {
		return nil, nil
	}
	return []*os.File{net}, nil
}

// checkIDMap refuses what would give a container the host's root.
func checkIDMap(m *runtime.IDMap) error {
	switch {
	case m == nil:
		return nil
	case m.HostID == 0 || m.Size == 0:
		return fmt.Errorf("ids %d, %d of them: not a range beside the host's", m.HostID, m.Size)
	case uint64(m.HostID)+uint64(m.Size) > 1<<32-1:
		return fmt.Errorf("ids %d, %d of them: not a range", m.HostID, m.Size)
	}
	return nil
}

// makeShared makes them, so that what a crash leaves at any point can be found.
func (k *Keeper) makeShared(s *shared) error {
	if err := k.placeShared(s); err != nil {
		return err
	}
	h, err := s.make(k.exe)
	if err != nil {
		return err
	}
	defer h.close()
	if h.proc != nil {
		s.holder = h.proc
		go reapHolder(h.proc)
		ps, err := readStat(h.proc.pid)
		if err != nil {
			return err
		}
		s.st.Holder, s.st.HolderStart = h.proc.pid, ps.startTime
		if err := k.holderGroup(&s.st).Join(h.proc.pid); err != nil {
			return err
		}
	}
	if err := s.identify(); err != nil {
		return err
	}
	if s.st.Pin {
		if err := k.pin(s); err != nil {
			return err
		}
	}
	if err := k.saveShared(s); err != nil {
		return err
	}
	return h.release()
}

// placeShared finds out where the run's group is, sees to it if there will be a
// holder in it, and keeps all that.
func (k *Keeper) placeShared(s *shared) (err error) {
	if !s.st.PID {
		return k.saveShared(s)
	}
	if s.st.Group, err = k.runGroup(s.st.Run, s.st.CgroupDriver); err != nil {
		return err
	}
	if err := k.saveShared(s); err != nil {
		return err
	}
	return k.openRun(context.Background(), s.st.Group, s.st.Run, "wherry: run "+s.st.Run)
}

// reapHolder waits for a holder's end. It ends by our hand only, unless somebody on the host kills it.
func reapHolder(p *process) {
	if p.wait(context.Background()) == nil {
		p.reap()
	}
}

func (k *Keeper) saveShared(s *shared) error {
	if !s.kept {
		return nil
	}
	return bundle.WriteJSON(k.layout.SharedState(s.st.Run), &s.st)
}

// identify notes which namespaces the files are.
func (s *shared) identify() error {
	s.st.Inodes = map[string]uint64{}
	for name, f := range s.files {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		s.st.Inodes[name] = st.Ino
	}
	return nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// holderGroup is the group of a run's holder: beside its containers', as the
// keeper's own group must not be kept by it.
func (k *Keeper) holderGroup(st *sharedState) cgroup.Group {
	run := st.Group
	if run == "" { // written by a keeper that knew of one place only
		run = path.Join(k.cgroupParent, st.Run)
	}
	return cgroup.Group{Path: path.Join(run, "+holder")}
}

// releaseNamespaces lets go of a run's namespaces. A PID namespace ends with
// its holder, so that one waits for its containers. What is just being made, it lets go of afterwards.
func (k *Keeper) releaseNamespaces(ctx context.Context, run string) error {
	k.mu.Lock()
	for k.making[run] != nil {
		made := k.making[run]
		k.mu.Unlock()
		select {
		case <-made:
		case <-ctx.Done():
			return fmt.Errorf("namespaces of %s: %w", run, ctx.Err())
		}
		k.mu.Lock()
	}
	s := k.shared[run]
	if s != nil && s.st.PID && k.occupied(run) {
		k.mu.Unlock()
		return fmt.Errorf("namespaces of %s: a container is in its PID namespace: %w", run, runtime.ErrBusy)
	}
	if s != nil {
		delete(k.shared, run)
	}
	k.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := k.dropShared(s); err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.shared[run] = s // to be tried again
		return fmt.Errorf("namespaces of %s: %w", run, err)
	}
	return nil
}

// occupied tells whether a container of the run may be alive. The caller holds the lock.
func (k *Keeper) occupied(run string) bool {
	for _, c := range k.containers {
		if st := c.snapshot(); st.Run == run && st.State != runtime.Exited && !c.leaving.Load() {
			return true
		}
	}
	return false
}

// dropShared undoes all that was made of the namespaces; it may be repeated, and
// the state file goes last.
func (k *Keeper) dropShared(s *shared) error {
	run := s.st.Run
	if s.holder != nil {
		if err := k.endHolder(s); err != nil {
			return err
		}
	}
	if err := k.unpin(run); err != nil {
		return err
	}
	if s.st.PID {
		g := k.holderGroup(&s.st)
		if err := emptyGroup(g); err != nil {
			return err
		}
		if err := removeGroup(g); err != nil {
			return err
		}
		if err := k.closeRun(run, path.Dir(g.Path)); err != nil {
			return err
		}
		removeEmptyGroup(path.Dir(g.Path))
	}
	for name, f := range s.files {
		f.Close()
		delete(s.files, name)
	}
	if err := os.Remove(k.layout.SharedState(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (k *Keeper) endHolder(s *shared) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.holder.signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("end holder: %w", err)
	}
	if err := s.holder.wait(ctx); err != nil {
		return fmt.Errorf("end holder: %w", err)
	}
	s.holder.reap()
	s.holder.close()
	s.holder = nil
	return nil
}

// sharedOf gives a start the namespaces of its run, as descriptors of its own.
func (k *Keeper) sharedOf(run string) (map[string]*os.File, runtime.Namespaces, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.shared[run]
	if s == nil {
		return nil, runtime.Namespaces{}, fmt.Errorf("namespaces of %s: %w", run, runtime.ErrNotFound)
	}
	files := map[string]*os.File{}
	for name, f := range s.files {
		dup, err := duplicate(f)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, runtime.Namespaces{}, err
		}
		files[name] = dup
	}
	return files, s.st.Namespaces, nil
}
