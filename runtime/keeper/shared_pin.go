package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// pin mounts the namespaces in the run's folder: so they live without a process
// in them and without a keeper. A PID namespace does not, it has its holder.
func (k *Keeper) pin(s *shared) error {
	dir := k.layout.Pins(s.st.Run)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for name, f := range s.files {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return fmt.Errorf("pin: %w", err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	return nil
}

// unpin takes all mounts out of a run's folder, and the folder away.
func (k *Keeper) unpin(run string) error {
	dir := k.layout.Pins(run)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		for unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil { // more than once, if a keeper was cut off
		}
		if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpin: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin: %w", err)
	}
	return nil
}

// adoptShared takes over the namespaces that an earlier keeper held, and ends those
// that no container needs any more. It comes after the containers' adoption.
func (k *Keeper) adoptShared() {
	if err := bundle.RemoveTemporary(k.layout.Shared()); err != nil {
		k.logger.Warn("left by an earlier keeper", "err", err)
	}
	entries, err := os.ReadDir(k.layout.Shared())
	if err != nil {
		k.logger.Error("cannot adopt namespaces", "err", err)
		return
	}
	for _, e := range entries {
		if run, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if err := k.adoptRun(run); err != nil {
				k.logger.Error("cannot adopt namespaces", "run", run, "err", err)
			}
		}
	}
	for _, e := range entries { // of a state file that is lost
		if e.IsDir() && k.sharedBy(e.Name()) == nil {
			if err := k.unpin(e.Name()); err != nil {
				k.logger.Error("a pin stays", "run", e.Name(), "err", err)
			}
		}
	}
}

func (k *Keeper) sharedBy(run string) *shared {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shared[run]
}

func (k *Keeper) adoptRun(run string) error {
	st, err := readShared(k.layout, run)
	if err != nil {
		return err
	}
	s := &shared{st: *st, files: map[string]*os.File{}, kept: true}
	pids, known := k.processesOf(run)
	handed := s.inherit()
	if st.BootID == k.boot {
		s.holder = holdSame(st.Holder, st.HolderStart)
	}
	if st.BootID != k.boot || len(st.Inodes) == 0 || !known && !handed {
		return k.dropShared(s)
	}
	if s.holder != nil {
		go reapHolder(s.holder)
		pids = append(pids, s.holder.pid)
	}
	for _, name := range kindsOf(&st.Namespaces) {
		if s.files[name] == nil {
			s.files[name] = s.find(name, k.layout.Pins(run), pids)
		}
		if s.files[name] == nil {
			delete(s.files, name)
			k.logger.Warn("a namespace is lost, the run gets no further container", "run", run, "namespace", name)
		}
	}
	_, err = os.Stat(filepath.Join(k.layout.Pins(run), "shm"))
	s.shm = err == nil
	s.st.Files, s.st.Keeper, s.st.KeeperStart = nil, 0, 0
	k.mu.Lock()
	k.shared[run] = s
	k.mu.Unlock()
	if !s.st.Pin && !s.st.PID {
		s.kept = false
		return os.Remove(k.layout.SharedState(run))
	}
	return nil
}

func readShared(l bundle.Layout, run string) (*sharedState, error) {
	var st sharedState
	if err := bundle.ReadJSON(l.SharedState(run), &st); err != nil {
		return nil, err
	}
	if st.Format < 1 || st.Format > sharedFormat {
		return nil, fmt.Errorf("state of the namespaces of %s: format %d is not known", run, st.Format)
	}
	if st.Run != run {
		return nil, fmt.Errorf("state of the namespaces of %s: belongs to %q", run, st.Run)
	}
	return &st, nil
}

// processesOf are the main processes of a run's containers; known is false if it has none, not even one that has ended.
func (k *Keeper) processesOf(run string) (pids []int, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.containers {
		st := c.snapshot()
		if st.Run != run {
			continue
		}
		known = true
		if c.proc != nil && st.Pid != 0 {
			pids = append(pids, st.Pid)
		}
	}
	return pids, known
}

// find opens a namespace where it is pinned, or where a process is in it.
func (s *shared) find(name, pins string, pids []int) *os.File {
	places := []string{filepath.Join(pins, name)}
	for _, pid := range pids {
		places = append(places, fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	}
	for _, p := range places {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		if s.is(name, f) {
			return f
		}
		f.Close()
	}
	return nil
}

// is tells whether f is the run's namespace of that name.
func (s *shared) is(name string, f *os.File) bool {
	var st unix.Stat_t
	var fsys unix.Statfs_t
	return unix.Fstat(int(f.Fd()), &st) == nil && unix.Fstatfs(int(f.Fd()), &fsys) == nil &&
		fsys.Type == unix.NSFS_MAGIC && st.Ino == s.st.Inodes[name]
}

// bequeath leaves all descriptors open over an exec of this process, and says
// where they are. The result takes that back, if the exec fails.
func (k *Keeper) bequeath() (undo func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	self, err := readStat(os.Getpid())
	if err != nil {
		return nil, err
	}
	var open []uintptr
	undo = func() {
		for _, fd := range open {
			unix.CloseOnExec(int(fd))
		}
	}
	for _, s := range k.shared {
		st := s.st
		st.Keeper, st.KeeperStart, st.Files = os.Getpid(), self.startTime, map[string]int{}
		for name, f := range s.files {
			st.Files[name] = int(f.Fd())
			open = append(open, f.Fd())
		}
		if err := bundle.WriteJSON(k.layout.SharedState(st.Run), &st); err != nil {
			undo()
			return nil, err
		}
		s.kept = true
	}
	for _, fd := range open {
		unix.FcntlInt(fd, unix.F_SETFD, 0)
	}
	return undo, nil
}

// inherit takes the descriptors that this process left open when it was
// another binary.
func (s *shared) inherit() bool {
	if s.st.Keeper != os.Getpid() {
		return false
	}
	if self, err := readStat(os.Getpid()); err != nil || self.startTime != s.st.KeeperStart {
		return false
	}
	for name, fd := range s.st.Files {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Ino != s.st.Inodes[name] {
			continue // not ours to close then
		}
		unix.CloseOnExec(fd)
		s.files[name] = os.NewFile(uintptr(fd), name)
	}
	return true
}

// checkShared proves that a run's namespaces could be adopted.
func (k *Keeper) checkShared() error {
	states, err := filepath.Glob(filepath.Join(k.layout.Shared(), "*.json"))
	if err != nil {
		return err
	}
	for _, path := range states {
		run := strings.TrimSuffix(filepath.Base(path), ".json")
		if _, err := readShared(k.layout, run); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// clear ends all namespaces that no container is in: the keeper ends.
func (k *Keeper) clearShared() {
	k.mu.Lock()
	var runs []string
	for run := range k.shared {
		if !k.occupied(run) {
			runs = append(runs, run)
		}
	}
	k.mu.Unlock()
	for _, run := range runs {
		if err := k.releaseNamespaces(context.Background(), run); err != nil && !errors.Is(err, runtime.ErrBusy) {
			k.logger.Error("namespaces stay", "run", run, "err", err)
		}
	}
}
