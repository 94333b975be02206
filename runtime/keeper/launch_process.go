package keeper

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// create lets libcontainer make the container and go on to our init. Whether
// that has exec'd the program, takeOver learns.
func (l *launch) create() error {
	conf, err := libcontainerConfig(l.cfg.Spec, l.ownFilter)
	if err != nil {
		return err
	}
	l.enterUserNS(conf)
	if err := l.giveBundle(conf); err != nil {
		return err
	}
	id := l.cfg.ID()
	lc, err := libcontainer.Create(l.k.layout.Libcontainer(), id, conf)
	if err != nil {
		return translate(err)
	}
	if err := l.reach(atCreated); err != nil {
		return err
	}
	join, err := newJoining(lc, conf)
	if err != nil {
		return stepError(runtime.StepCgroup, err)
	}
	st := l.c.snapshot()
	p := libcontainerProcess(st.Process)
	p.Init = true
	p.Args = l.job.args(l.cfg.Init, l.cfg.Spec.Process.Args)
	p.ExtraFiles = l.job.files
	l.giveIO(p)
	if err := l.begin(lc, p, join); err != nil {
		return err
	}
	if err := l.hold(p); err != nil {
		return err
	}
	if err := join.finish(); err != nil {
		return stepError(runtime.StepCgroup, err)
	}
	l.watch()
	l.k.shareOf(context.Background(), &st)
	if err := l.reach(atJoined); err != nil {
		return err
	}
	l.released = time.Now()
	if err := lc.Exec(); err != nil {
		return err
	}
	return l.reach(atReleased)
}

// begin starts the process in the container's groups.
func (l *launch) begin(lc *libcontainer.Container, p *libcontainer.Process, join *joining) error {
	if err := join.enter(); err != nil {
		return stepError(runtime.StepCgroup, err)
	}
	err := l.reach(atEntered)
	if err == nil {
		err = lc.Start(p)
	}
	if lerr := join.leave(); err == nil && lerr != nil {
		err = lerr
	}
	if err == nil {
		err = l.reach(atStarted)
	}
	if err != nil {
		return translate(err)
	}
	return nil
}

// hold takes the process, and its terminal.
func (l *launch) hold(p *libcontainer.Process) (err error) {
	if l.pid, err = p.Pid(); err != nil {
		return err
	}
	if l.c.proc, err = openProcess(l.pid); err != nil {
		return err
	}
	if err := l.reach(atHeld); err != nil {
		return err
	}
	return l.takeTerminal()
}

// watch lets the kernel tell of kills for memory from now on. Before the exec:
// nothing of the user's has run yet.
func (l *launch) watch() {
	st := l.c.snapshot()
	if !st.WatchOOM {
		return
	}
	if err := l.k.ooms.Add(cgroup.Group{Path: st.Cgroup}); err != nil {
		l.k.logger.Warn("cannot watch for kills by lack of memory", "unit", st.Unit, "container", st.ID, "err", err)
	}
}

// takeOver waits until the program has been exec'd and makes the process ours.
// If the caller loses patience meanwhile the container is killed: the error
// pipe then ends too.
func (l *launch) takeOver(ctx context.Context) error {
	l.errWriter.Close()
	stop := context.AfterFunc(ctx, func() { l.c.proc.signal(unix.SIGKILL) })
	err := awaitExec(l.errPipe)
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("exec %q: %w", l.cfg.Spec.Process.Args[0], err)
	}
	if err := l.reach(atExeced); err != nil {
		return err
	}
	ps, err := readStat(l.pid)
	if err != nil {
		return err
	}
	return l.k.update(l.c, func(st *state) {
		st.State, st.Pid, st.StartTime = runtime.Running, l.pid, ps.startTime
		st.StartedAt = l.released
	})
}
