package keeper

import (
	"context"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// follow waits for a container's end and then finds out and records how it
// ended. Every running container has one goroutine here.
func (k *Keeper) follow(c *container) {
	if err := k.heirlooms.keep(heirPidfd, c.snapshot().ID, c.proc.file); err != nil {
		k.logger.Warn("the next keeper may not learn a container's end", "container", c.snapshot().ID, "err", err)
	}
	k.keepOutput(c)
	if err := c.proc.wait(context.Background()); err != nil {
		k.logger.Error("cannot wait for a container", "container", c.snapshot().ID, "err", err)
		return
	}
	k.ended(c)
}

// keepOutput has the heirs hold the pipes of a container without our init. That one waits
// until its program's last words are read; without it they would be gone with the
// program and the keeper, and it is they that say why it ended.
func (k *Keeper) keepOutput(c *container) {
	st := c.snapshot()
	if st.Init || c.pump == nil {
		return
	}
	for i, kind := range []string{heirOut, heirErr} {
		if err := k.heirlooms.keep(kind, st.ID, c.pump.pipes[i]); err != nil {
			k.logger.Warn("a container's last output may be lost with the keeper", "container", st.ID, "err", err)
		}
	}
}

// ended does everything that the end of a container's main process brings. It
// works from the state alone, so an adopting keeper can take it up anywhere.
func (k *Keeper) ended(c *container) {
	defer k.busy()
	st := c.snapshot()
	log := k.logger.With("unit", st.Unit, "container", st.ID)
	g := cgroup.Group{Path: st.Cgroup}
	k.reach(atEnded, c)
	if st.State != runtime.Exited {
		exit := k.exitOf(&st, c.proc, g)
		if err := k.update(c, func(st *state) { st.State, st.Exit, st.Pid = runtime.Exited, &exit, 0 }); err != nil {
			log.Error("cannot keep how a container ended", "err", err)
		}
		log.Info("container ended", "code", exit.Code, "signal", exit.Signal, "oom", exit.OOM, "unknown", exit.Unknown)
	}
	k.reach(atEndKept, c)
	if c.proc != nil {
		c.proc.close()
	}
	k.ooms.Remove(g)
	// What else is in the group holds the pipes open, and must not outlive the container.
	if err := emptyGroup(g); err != nil {
		log.Error("processes of an ended container stay", "err", err)
	}
	k.reach(atEndEmptied, c)
	if c.pump != nil {
		k.lastOutput(c, &st)
		c.pump.stop()
	}
	c.closeIO()
	k.reach(atEndDrained, c)
	k.heirlooms.dropAll(st.ID)
	c.swept.Store(k.sweepEnded(&st))
	if err := k.closeRun(st.Run, path.Dir(st.Cgroup)); err != nil {
		log.Error("the group of an ended run stays", "err", err)
	}
	k.shareOf(context.Background(), &st)
	k.reach(atEndSwept, c)
	if err := k.update(c, func(st *state) { st.Drained = true }); err != nil {
		log.Error("cannot keep that a container is drained", "err", err)
	}
	close(c.settled)
	k.publish(runtime.Event{Type: runtime.EventExit, ID: st.ID, Status: c.snapshot().Status})
}

// exitOf finds out how the container's main process ended. proc is nil if the
// process was gone before anybody could hold it.
func (k *Keeper) exitOf(st *state, proc *process, g cgroup.Group) runtime.Exit {
	exit := runtime.Exit{At: time.Now()}
	ws, known := wait(st.StartTime, proc)
	if rec, at, ok := readRecord(k.layout.Record(st.ID)); ok {
		ws, known, exit.At = rec, true, at
	}
	use, uerr := g.Memory()
	lackedMemory := uerr == nil && use.OOMKills > st.OOMKills
	if !known && st.Init && st.BootID == k.boot && (st.Killed || lackedMemory) {
		// Whatever else ends the init, it leaves a record. SIGKILL was sent, and nothing else is left that it could have been.
		ws, known = unix.WaitStatus(unix.SIGKILL), true
	}
	if !known && st.BootID == k.boot {
		ws, known = k.waitHeld(proc, st.StartTime, heirPidfd, st.ID)
	}
	describe(&exit, ws, known)
	if uerr == nil {
		exit.Memory = &runtime.Memory{Peak: use.Peak, Limit: use.Limit}
	}
	exit.Pressure = pressureOf(g)
	exit.LastOOM = st.LastOOM
	if lackedMemory {
		if last := k.oomOf(st, g); last != nil {
			exit.LastOOM = last
		}
	}
	// Where single processes are killed, our own SIGKILL is not one of the kernel's.
	byUs := st.Killed && st.OOM == oomProcess
	if known && lackedMemory && ws.Signal() == unix.SIGKILL && !byUs {
		exit.OOM = true
		exit.Cause = "the kernel killed it for lack of memory, limit " + mebibytes(use.Limit)
	}
	return exit
}

// describe writes down what a wait status says.
func describe(exit *runtime.Exit, ws unix.WaitStatus, known bool) {
	switch {
	case !known:
		exit.Unknown = true
		exit.Cause = "it ended while no keeper was there to see it, and left no record"
		return
	case ws.Signaled():
		exit.Signal = signalName(ws.Signal())
	default:
		exit.Code = ws.ExitStatus()
	}
	exit.Status = uint32(ws)
}

// wait asks everybody but the init for the end of proc, which began at startTime.
func wait(startTime uint64, proc *process) (unix.WaitStatus, bool) {
	if proc == nil {
		return 0, false
	}
	if ws, ok := proc.reap(); ok {
		return ws, true
	}
	// Somebody else's child: the status is in the zombie, then in the kernel's memory of it.
	for range 2 {
		if ps, err := readStat(proc.pid); err == nil && ps.state == 'Z' && ps.startTime == startTime {
			return unix.WaitStatus(ps.exitCode), true
		}
		if ws, ok := proc.info(); ok {
			return ws, true
		}
	}
	return 0, false
}

func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", int(s)) // real-time signals have no name
}

func mebibytes(n int64) string {
	if n <= 0 {
		return "of the host"
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// oomKilled tells subscribers that something in a container was killed while
// the container may live on. A program may be faster at that than we are at its start.
func (k *Keeper) oomKilled(g cgroup.Group) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.containers {
		if st := c.snapshot(); st.Cgroup == g.Path {
			for _, do := range []func(*container){k.reportOOM, k.killRest} {
				go func() {
					_ = c.awaitBegun(context.Background())
					do(c)
				}()
			}
		}
	}
}

// sweepEnded removes what an ended container no longer needs. Its exit, its
// record and its folder stay until it is removed. It tells whether its group is gone.
func (k *Keeper) sweepEnded(st *state) (swept bool) {
	err := removeGroup(cgroup.Group{Path: st.Cgroup})
	if err != nil {
		k.logger.Error("a group stays", "unit", st.Unit, "container", st.ID, "err", err)
	}
	os.RemoveAll(k.layout.Libcontainer() + "/" + st.ID)
	removePipes(k.layout, st.ID)
	return err == nil
}

// sweep removes every trace of a container but its log: after a failed start,
// on removal, and for what a crash left. It works from the state alone and may
// be repeated. The state file goes last.
func (k *Keeper) sweep(st *state) error {
	if err := k.sweepGroup(st); err != nil {
		return err
	}
	if err := k.reach(atSweepGroup, nil); err != nil {
		return err
	}
	if err := os.RemoveAll(k.layout.Libcontainer() + "/" + st.ID); err != nil {
		return err
	}
	removePipes(k.layout, st.ID)
	os.Remove(k.layout.Record(st.ID))
	os.Remove(k.rootRecord(st.ID))
	k.forgetExecs(st.ID)
	k.heirlooms.dropAll(st.ID)
	k.layers.release(st.ID)
	dir := k.layout.Rootfs(st.Run, st.Container)
	os.Remove(dir)
	os.Remove(k.layout.Container(st.Run, st.Container))
	if err := k.reach(atSweepState, nil); err != nil {
		return err
	}
	if c := k.retire(st.ID); c != nil {
		c.leaving.Store(true)
	}
	if err := k.closeRun(st.Run, path.Dir(st.Cgroup)); err != nil {
		return err
	}
	k.shareOf(context.Background(), st)
	return k.forget(st)
}

// sweepGroup removes a container's group, with whatever lives there, unless its end has
// already done so: to look for it again in each hierarchy takes as long.
func (k *Keeper) sweepGroup(st *state) error {
	if c, err := k.find(st.ID); err == nil && c.swept.Load() {
		return nil
	}
	g := cgroup.Group{Path: st.Cgroup}
	k.ooms.Remove(g)
	if err := emptyGroup(g); err != nil {
		return err
	}
	return removeGroup(g)
}

// undo takes back a start that failed.
func (k *Keeper) undo(l *launch) error {
	defer k.reapStrays()
	st := l.c.snapshot()
	k.reach(atUndo, l.c)
	err := emptyGroup(cgroup.Group{Path: st.Cgroup})
	if l.c.proc != nil {
		l.c.proc.signal(unix.SIGKILL)
		ctx, cancel := context.WithTimeout(context.Background(), groupDeadline)
		defer cancel()
		if werr := l.c.proc.wait(ctx); err == nil {
			err = werr
		}
		l.c.proc.reap()
		l.c.proc.close()
	}
	if l.c.pump != nil {
		l.c.pump.stop()
	}
	l.c.closeIO()
	if err == nil {
		err = k.sweep(&st)
	}
	close(l.c.failed)
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}
