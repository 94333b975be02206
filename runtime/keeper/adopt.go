package keeper

import (
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// adopt takes over what an earlier keeper left: running containers are
// followed again, half-done starts are undone, ends that nobody saw are found
// out. After an upgrade in place the processes are still our children; after a
// crash they are somebody else's. Nothing here depends on which.
func (k *Keeper) adopt() error {
	if err := k.reach(atAdopt, nil); err != nil {
		return err
	}
	k.reapStrays() // of the binary that we replace
	k.reapKeeps()
	for _, dir := range []string{k.layout.Containers(), k.layout.Seccomp()} {
		if err := bundle.RemoveTemporary(dir); err != nil {
			k.logger.Warn("left by an earlier keeper", "err", err)
		}
	}
	states, errs := readStates(k.layout)
	for _, err := range errs {
		if k.replaced {
			return err // the binary that was here knows better
		}
		k.logger.Error("cannot adopt a container", "err", err)
	}
	for i := range states {
		k.adoptOne(&states[i])
		k.heirlooms.store.progress()
	}
	k.adoptShared()
	k.adoptExecs()
	k.pruneHeirlooms()
	return nil
}

func (k *Keeper) adoptOne(st *state) {
	log := k.logger.With("unit", st.Unit, "container", st.ID)
	if st.BootID != k.boot {
		k.adoptOldBoot(st)
		return
	}
	c := newContainer(*st)
	switch {
	case st.State == runtime.Creating:
		log.Warn("undoing a start that was cut off")
		if err := k.sweep(st); err != nil {
			log.Error("cannot undo a start that was cut off", "err", err)
			close(c.failed)
			k.enter(c) // a removal tries again
		}
		return
	case st.State == runtime.Exited && st.Drained:
		close(c.settled)
		k.enter(c)
		return
	}
	k.enter(c)
	k.reopen(c)
	if c.proc == nil {
		log.Info("container ended while no keeper was there")
		go k.ended(c)
		return
	}
	log.Info("container adopted", "pid", st.Pid)
	go k.follow(c)
}

// enter makes an adopted container known. Those before it may be ending meanwhile, or lack memory, and look through all.
func (k *Keeper) enter(c *container) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.containers[c.st.ID] = c
}

// adoptOldBoot handles a run folder that survived a reboot, as one that is not
// on a tmpfs does: nothing in it runs any more, and only the record can tell
// how it ended.
func (k *Keeper) adoptOldBoot(st *state) {
	if st.State == runtime.Creating {
		k.sweep(st)
		return
	}
	c := newContainer(*st)
	k.enter(c)
	go k.ended(c)
}

// reopen holds the container's process, if it still is the same, and its
// pipes.
func (k *Keeper) reopen(c *container) {
	st := &c.st
	log := k.logger.With("unit", st.Unit, "container", st.ID)
	if _, err := os.Lstat(k.layout.Pipe(st.ID, streamNames[0])); st.State == runtime.Exited && os.IsNotExist(err) {
		return // the end of it all was only not written down any more
	}
	logFile, err := openLog(st.Log, st.Run, log)
	if err != nil {
		log.Error("cannot open a container's log: its output is dropped", "err", err)
	}
	if c.pump, err = startPump(k.layout, st.ID, logFile, st.Log); err != nil {
		log.Error("cannot read a container's output", "err", err)
		c.pump = nil
	}
	if st.State == runtime.Exited {
		return
	}
	c.proc = holdSame(st.Pid, st.StartTime)
	k.adoptIO(c)
	if c.proc != nil {
		c.mu.Lock()
		seePaused(st)
		c.mu.Unlock()
	}
	if c.proc != nil && st.WatchOOM {
		if err := k.ooms.Add(cgroup.Group{Path: st.Cgroup}); err != nil {
			log.Warn("cannot watch for kills by lack of memory", "err", err)
		}
		go k.killMissed(c)
	}
}

// holdSame opens pid if it is the process that began at startTime. A number
// may have passed on, so the time is compared after the process is held.
func holdSame(pid int, startTime uint64) *process {
	proc, err := openProcess(pid)
	if err != nil {
		return nil
	}
	if ps, err := readStat(pid); err != nil || ps.startTime != startTime {
		proc.close()
		return nil
	}
	return proc
}

// checkHandoff proves, without changing anything, that this binary can take
// over the containers of a running keeper.
func checkHandoff(o options) error {
	k, err := inspect(o)
	if err != nil {
		return err
	}
	states, errs := readStates(k.layout)
	if len(errs) > 0 {
		return errs[0]
	}
	for i := range states {
		if err := k.checkOne(&states[i]); err != nil {
			return fmt.Errorf("container %s: %w", states[i].ID, err)
		}
	}
	return k.checkShared()
}

func (k *Keeper) checkOne(st *state) error {
	if st.State != runtime.Running || st.BootID != k.boot {
		return nil
	}
	proc := holdSame(st.Pid, st.StartTime)
	if proc == nil {
		return nil // it has just ended
	}
	defer proc.close()
	if _, err := libcontainer.Load(k.layout.Libcontainer(), st.ID); err != nil {
		return fmt.Errorf("libcontainer state: %w", err)
	}
	f, err := k.filters.open(st.Filter)
	if err != nil {
		return err
	}
	if f != nil {
		f.Close()
	}
	for _, s := range streamNames {
		p, err := openPipe(k.layout.Pipe(st.ID, s), unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		p.Close()
	}
	_, err = (cgroup.Group{Path: st.Cgroup}).Procs()
	return err
}
