package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	goruntime "runtime"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// stepError names the step that failed, unless the error already does.
func stepError(step runtime.Step, err error) error {
	var se *runtime.StepError
	if err == nil || errors.As(err, &se) {
		return err
	}
	return &runtime.StepError{Step: step, Err: err}
}

// start makes and starts a container. When it fails nothing is left. It goes on if the client ends, whose
// successor finds the container; but what has not begun by then does not begin any more, as that one has looked already.
func (k *Keeper) start(ctx context.Context, gone func() bool, cfg *runtime.Config, netns *os.File) (runtime.Status, error) {
	for _, name := range []string{cfg.Run, cfg.Container} {
		if err := bundle.CheckName(name); err != nil {
			return runtime.Status{}, stepError(runtime.StepProcess, err)
		}
	}
	if err := checkSpec(cfg.Spec); err != nil {
		return runtime.Status{}, stepError(runtime.StepProcess, err)
	}
	k.launching.RLock()
	defer k.launching.RUnlock()
	if gone() {
		return runtime.Status{}, stepError(runtime.StepProcess, context.Canceled)
	}
	k.busy()
	defer k.busy()
	group, err := k.runGroup(cfg.Run, cfg.CgroupDriver)
	if err != nil {
		return runtime.Status{}, stepError(runtime.StepCgroup, err)
	}
	ctx, callOff := context.WithCancel(ctx)
	defer callOff()
	c, err := k.reserve(k.firstState(cfg, path.Join(group, cfg.Container)), callOff)
	if err != nil {
		return runtime.Status{}, stepError(runtime.StepProcess, err)
	}
	defer close(c.begun)
	if gone() { // the next one may have looked just before there was something to see
		callOff()
	}
	if movesProcesses() {
		defer warmGroups()()
	}
	l := &launch{k: k, c: c, cfg: cfg, netns: netns}
	if err := l.run(ctx); err != nil {
		return runtime.Status{}, errors.Join(err, k.undo(l))
	}
	st := c.snapshot().Status // before it can have ended
	go k.follow(c)
	return st, nil
}

func (k *Keeper) firstState(cfg *runtime.Config, group string) state {
	kills, _ := (cgroup.Group{Path: group}).OOMKills() // there is no group yet, unless something went very wrong
	return state{
		Format: stateFormat, BootID: k.boot,
		Status: runtime.Status{
			ID: cfg.ID(), Unit: cfg.Unit, Instance: cfg.Instance, Run: cfg.Run, Container: cfg.Container,
			State: runtime.Creating, LogPath: cfg.Log.Path, Cgroup: group,
			IDMap: cfg.IDMap,
		},
		Init: cfg.Init, Log: cfg.Log, OOMKills: kills, OOM: cfg.OOM,
		StopSignal: cfg.StopSignal, StopGracePeriod: cfg.StopGracePeriod,
		Terminal: cfg.Spec.Process.Terminal, Input: cfg.Stdin,
	}
}

// launch is one start under way.
type launch struct {
	k     *Keeper
	c     *container
	cfg   *runtime.Config
	netns *os.File

	shared     map[string]*os.File // the run's namespaces, if it joins them
	id         identity
	ownFilter  bool // our init loads the seccomp filter
	filter     filterRef
	job        *initJob
	open       []*os.File // to close on every way out
	errPipe    *os.File   // our end
	errWriter  *os.File   // the container's
	stdio      [2]*os.File
	targetRoot *os.File // the files of the container that is joined; nil: none
	stdin      *os.File // the pipe to read from; nil: none
	console    *os.File // our end of the socket that the terminal comes over; nil: none
	inside     *os.File // the container's end
	pid        int
	released   time.Time // nothing of its output is older
}

// run goes through the steps. Undo is the caller's, from the state file.
func (l *launch) run(ctx context.Context) error {
	defer l.close()
	steps := []struct {
		step runtime.Step
		do   func() error
	}{
		{runtime.StepProcess, func() error { return l.reach(atReserved) }},
		{runtime.StepCgroup, func() error { return l.openRun(ctx) }},
		{runtime.StepLog, l.prepareLog},
		{runtime.StepProcess, l.prepareProcess},
		{runtime.StepProcess, l.onThread},
		{runtime.StepProcess, func() error { return l.takeOver(ctx) }},
		{runtime.StepProcess, func() error { return l.reach(atRunning) }},
	}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return stepError(s.step, err)
		}
		if err := s.do(); err != nil {
			return stepError(s.step, err)
		}
	}
	return nil
}

// openRun sees to the group that containers of the run stand under.
func (l *launch) openRun(ctx context.Context) error {
	group := path.Dir(l.c.snapshot().Cgroup)
	if err := l.k.openRun(ctx, group, l.cfg.Run, "wherry: unit "+l.cfg.Unit+", instance "+l.cfg.Instance); err != nil {
		return err
	}
	return l.reach(atOpened)
}

func (l *launch) reach(p point) error { return l.k.reach(p, l.c) }

func (l *launch) close() {
	for _, f := range l.open {
		f.Close()
	}
}

// keep closes f when the start is over, either way.
func (l *launch) keep(f *os.File, err error) (*os.File, error) {
	if f != nil {
		l.open = append(l.open, f)
	}
	return f, err
}

func (l *launch) prepareLog() error {
	id := l.cfg.ID()
	log, err := openLog(l.cfg.Log, l.cfg.Run, l.k.logger.With("unit", l.cfg.Unit, "container", id))
	if err != nil {
		return err
	}
	if err := makePipes(l.k.layout, id); err != nil {
		return err
	}
	if l.c.pump, err = startPump(l.k.layout, id, log, l.cfg.Log); err != nil {
		return err
	}
	for i, s := range streamNames {
		if l.stdio[i], err = l.keep(openPipe(l.k.layout.Pipe(id, s), 0)); err != nil {
			return err
		}
	}
	return l.reach(atLogged)
}

// prepareProcess collects what the container's first process gets along.
func (l *launch) prepareProcess() error {
	spec := l.cfg.Spec
	st := l.c.snapshot()
	l.k.complete(l.cfg, st.Cgroup, l.netns)
	if err := l.joinShared(); err != nil {
		return err
	}
	log := l.k.logger.With("unit", l.cfg.Unit, "container", l.cfg.ID())
	l.k.host.fit(spec, log)
	err := l.k.fitLimits(spec.Linux.Resources, l.k.parentOf(path.Dir(st.Cgroup)), log)
	if err != nil {
		return stepError(runtime.StepCgroup, err)
	}
	if err := l.addOpenings(log); err != nil {
		return err
	}
	if l.ownFilter = selfLoadable(spec); l.ownFilter {
		if l.filter, err = l.k.filters.get(spec.Linux.Seccomp); err != nil {
			return err
		}
	}
	l.job = newInitJob(l.k.exe)
	if err := l.placeFilter(); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	l.keep(r, nil)
	l.errPipe, l.errWriter = r, w
	l.keep(w, nil)
	l.job.err = l.job.add(w)
	if l.cfg.Init {
		record, err := l.keep(makeRecord(l.k.layout.Record(l.cfg.ID())))
		if err != nil {
			return err
		}
		l.job.rec = l.job.add(record)
	}
	program, err := l.keep(l.k.filters.open(l.filter))
	if err != nil {
		return err
	}
	if program != nil {
		l.job.flt, l.job.flags = l.job.add(program), l.filter.Flags
	}
	if err := l.openIO(); err != nil {
		return err
	}
	if err := os.MkdirAll(spec.Root.Path, 0o711); err != nil {
		return err
	}
	return l.reach(atPrepared)
}

// onThread does what needs the root file system, on a thread that has its own
// mount namespace and ends with it. libcontainer forks from the thread that
// calls it, so the container begins in that namespace.
func (l *launch) onThread() error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		done <- l.inPrivate()
	}()
	return <-done
}

func (l *launch) inPrivate() error {
	if err := privateMounts(); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	dir := l.cfg.Spec.Root.Path
	rootfs := rootfs{dir: dir, container: l.cfg.ID(), layers: l.k.layers, users: l.shared["user"], ids: l.cfg.IDMap}
	if err := rootfs.mount(l.cfg.Rootfs); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	if err := l.mountTarget(dir); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	if err := l.reach(atMounted); err != nil {
		return err
	}
	if err := l.readRootfs(dir); err != nil {
		return err
	}
	if err := l.reach(atRead); err != nil {
		return err
	}
	if err := l.mapDevices(); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	if err := l.save(); err != nil {
		return err
	}
	if err := l.reach(atSaved); err != nil {
		return err
	}
	return l.create()
}

// readRootfs does what depends on the image's content.
func (l *launch) readRootfs(dir string) error {
	root, err := os.Open(dir)
	if err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	defer root.Close()
	for _, p := range l.cfg.Populate {
		if err := populate(root, p, l.cfg.IDMap); err != nil {
			return stepError(runtime.StepRootfs, fmt.Errorf("populate %s: %w", p.Into, err))
		}
	}
	if l.id, err = lookupUser(root, l.cfg.User); err != nil {
		return err
	}
	if err := l.addGroups(root); err != nil {
		return err
	}
	giveRootCaps(l.cfg.Spec.Process.Capabilities, l.id.uid)
	return l.ownStdio()
}

// save completes the state with what later processes of the container need.
func (l *launch) save() error {
	spec := l.cfg.Spec
	limits, err := rlimits(spec.Process.Rlimits)
	if err != nil {
		return err
	}
	groups := append([]int(nil), l.id.groups...)
	for _, g := range spec.Process.User.AdditionalGids {
		groups = append(groups, int(g))
	}
	if err := l.saveRootfs(); err != nil {
		return err
	}
	memory := spec.Linux.Resources.Memory
	return l.k.update(l.c, func(st *state) {
		st.Filter = l.filter
		limited := memory != nil && memory.Limit != nil && *memory.Limit > 0
		st.WatchOOM = limited || tellsAllOOMs(l.k.parentOf(path.Dir(st.Cgroup)).Path)
		st.Process = processDefaults{
			Env: withHome(spec.Process.Env, l.id.home), Cwd: spec.Process.Cwd,
			UID: l.id.uid, GID: l.id.gid, Groups: groups,
			Rlimits: limits, NoNewPrivileges: spec.Process.NoNewPrivileges,
		}
	})
}
