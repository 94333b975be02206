package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// ociLaunch is one create or run under way.
type ociLaunch struct {
	*oci
	id        string
	spec      *specs.Spec
	bundle    string
	start     bool // run: let the program begin at once
	keep      bool // leave the container when it has ended
	noPivot   bool
	noKeyring bool

	run    ociRun
	conf   *configs.Config
	lc     *libcontainer.Container
	filter filterRef
	own    bool // our init loads the filter
	init   bool // our init stays
	notify *notifyRelay
}

func (o *oci) create(args []string) error     { return o.launch("create", args) }
func (o *oci) runCommand(args []string) error { return o.launch("run", args) }

func (o *oci) launch(name string, args []string) error {
	l := &ociLaunch{oci: o, start: name == "run"}
	fs := newOCIFlags(name)
	ociAlias(fs, &l.bundle, "folder of config.json and the root file system; the current one if not given", "bundle", "b")
	l.run.flags(fs)
	fs.BoolVar(&l.noPivot, "no-pivot", false, "enter the root file system without pivot_root(2), which an initramfs refuses")
	fs.BoolVar(&l.noKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	if l.start {
		ociAlias(fs, &l.run.detach, "do not wait for its end", "detach", "d")
		fs.BoolVar(&l.keep, "keep", false, "leave the container when it has ended")
		fs.BoolVar(&l.run.noSubreaper, "no-subreaper", false, "reap no orphans of the container")
	} else {
		l.run.detach = true
	}
	words, err := ociParse(fs, args, false, 1, 1)
	if err != nil {
		return err
	}
	l.id = words[0]
	code, err := l.do()
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, l.id, stepError(runtime.StepProcess, err))
	}
	return &ociExit{code: code}
}

func (l *ociLaunch) do() (int, error) {
	if l.run.pidFile != "" { // before the bundle becomes the working directory
		path, err := filepath.Abs(l.run.pidFile)
		if err != nil {
			return 0, err
		}
		l.run.pidFile = path
	}
	if err := l.prepare(); err != nil {
		return 0, err
	}
	var err error
	if l.lc, err = libcontainer.Create(l.root, l.id, l.conf); err != nil {
		return 0, err
	}
	code, err := l.launched()
	if err != nil {
		return 0, errors.Join(err, l.destroy())
	}
	if !l.run.detach && !l.keep {
		if err := l.destroy(); err != nil {
			logrus.Warnf("delete: %v", err)
		}
	}
	return code, nil
}

// prepare does what needs no container yet.
func (l *ociLaunch) prepare() error {
	var err error
	if l.spec, err = readBundle(l.bundle); err != nil {
		return err
	}
	if err := l.run.check(l.spec.Process.Terminal); err != nil {
		return err
	}
	if err := fitOCI(l.spec); err != nil {
		return err
	}
	l.notify = newNotifyRelay(l.oci, l.id)
	l.notify.addTo(l.spec)
	if l.filter, l.own, err = l.compileFilter(l.spec); err != nil {
		return err
	}
	l.init = l.spec.Annotations[initAnnotation] == "true" && wrappable(l.spec)
	l.conf, err = l.libcontainerConfig(l.id, l.spec, l.own, l.noPivot, l.noKeyring)
	return err
}

// launched starts the first process of the container that libcontainer has made.
func (l *ociLaunch) launched() (int, error) {
	if err := l.saveExtra(l.id, ociExtra{Filter: l.filter, Group: ownGroupOf(l.conf)}); err != nil {
		return 0, err
	}
	if err := l.notify.prepare(l.start); err != nil {
		return 0, err
	}
	p, err := ociProcess(l.spec.Process)
	if err != nil {
		return 0, err
	}
	p.Init = true
	r := &l.run
	defer r.close()
	if err := r.passFiles(p, listenFiles()); err != nil {
		return 0, err
	}
	if l.own || l.init {
		if err := l.wrap(p); err != nil {
			return 0, err
		}
	}
	signals := r.listen()
	if err := r.connect(p, l.conf, l.spec.Process.Terminal); err != nil {
		return 0, err
	}
	if err := l.begin(p); err != nil {
		r.terminate(p)
		return 0, err
	}
	return r.follow(p, signals, l.notify)
}

// wrap puts our init in front of the program.
func (l *ociLaunch) wrap(p *libcontainer.Process) error {
	exe, err := l.run.keepOpen(l.openInit())
	if err != nil {
		return err
	}
	job := newInitJob(exe, p.ExtraFiles...)
	program, err := l.run.keepOpen(newFilters(l.helpers()).open(l.filter))
	if err != nil {
		return err
	}
	if program != nil {
		job.flt, job.flags = job.add(program), l.filter.Flags
	}
	p.Args, p.ExtraFiles = job.args(l.init, p.Args), job.files
	return nil
}

// begin makes the process, on a thread of its own: it goes into the container's
// groups and ends.
func (l *ociLaunch) begin(p *libcontainer.Process) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		done <- l.onThread(p)
	}()
	if err := <-done; err != nil {
		return err
	}
	pid, err := p.Pid()
	if err != nil {
		return err
	}
	if l.own || l.init {
		if err := findCommand(pid, l.spec.Process); err != nil {
			return err
		}
	}
	if err := l.run.received(); err != nil {
		return err
	}
	if l.start {
		if err := l.lc.Exec(); err != nil {
			return err
		}
	}
	return l.run.writePidFile(pid)
}

func (l *ociLaunch) onThread(p *libcontainer.Process) error {
	var join *joining
	if l.joins() {
		var err error
		if join, err = newJoining(l.lc, l.conf); err != nil {
			return stepError(runtime.StepCgroup, err)
		}
	}
	if err := join.enter(); err != nil {
		return stepError(runtime.StepCgroup, err)
	}
	err := l.lc.Start(p)
	if lerr := join.leave(); err == nil && lerr != nil {
		err = stepError(runtime.StepCgroup, lerr)
	}
	if err != nil {
		return translate(err)
	}
	return stepError(runtime.StepCgroup, join.finish())
}

// joins says whether limits may be set after the start: not if systemd has a
// say, and not before a hook, which may look at the group or change it.
func (l *ociLaunch) joins() bool {
	h := l.conf.Hooks
	hooks := len(h[configs.Prestart]) + len(h[configs.CreateRuntime]) + len(h[configs.CreateContainer]) + len(h[configs.Poststart])
	return hooks == 0 && !l.systemd && !l.conf.RootlessEUID && !l.conf.RootlessCgroups && filepath.IsAbs(l.conf.Cgroups.Path)
}

// destroy removes every trace of the container, also where libcontainer was
// interrupted and has forgotten its groups.
func (l *ociLaunch) destroy() error { return destroyOCI(l.lc) }

func destroyOCI(lc *libcontainer.Container) error {
	conf := lc.Config()
	if err := lc.Destroy(); err != nil {
		return err
	}
	if !plainGroup(&conf) || !groupExists(conf.Cgroups.Path) {
		return nil
	}
	return removeGroup(cgroup.Group{Path: conf.Cgroups.Path})
}

// plainGroup: one that we make ourselves, at a known path.
func plainGroup(conf *configs.Config) bool {
	return conf.Cgroups != nil && !conf.Cgroups.Systemd && filepath.IsAbs(conf.Cgroups.Path) && !conf.RootlessCgroups
}

func groupExists(path string) bool {
	dirs, _ := hierarchies()
	return slices.ContainsFunc(dirs, func(h string) bool { return unix.Access(filepath.Join(h, path), unix.F_OK) == nil })
}

// ownGroupOf is the group that comes into being with the container. One that is there already
// belongs to somebody else too.
func ownGroupOf(conf *configs.Config) string {
	if !plainGroup(conf) || groupExists(conf.Cgroups.Path) {
		return ""
	}
	return conf.Cgroups.Path
}

// sweepAborted removes what a create that was killed has left, of which libcontainer knows nothing yet.
func (o *oci) sweepAborted(id string) error {
	extra, err := o.loadExtra(id)
	if err != nil {
		return err
	}
	if extra.Group != "" && groupExists(extra.Group) {
		g := cgroup.Group{Path: extra.Group}
		if err := emptyGroup(g); err != nil {
			return err
		}
		if err := removeGroup(g); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(o.root, id))
}

// ociProcess translates what a specification says of a process.
func ociProcess(p *specs.Process) (*libcontainer.Process, error) {
	limits, err := rlimits(p.Rlimits)
	if err != nil {
		return nil, err
	}
	d := processDefaults{
		Env: p.Env, Cwd: p.Cwd, UID: int(p.User.UID), GID: int(p.User.GID),
		Rlimits: limits, NoNewPrivileges: p.NoNewPrivileges,
	}
	for _, g := range p.User.AdditionalGids {
		d.Groups = append(d.Groups, int(g))
	}
	out := libcontainerProcess(d)
	out.Args = p.Args
	out.Label, out.AppArmorProfile = p.SelinuxLabel, p.ApparmorProfile
	out.Scheduler, out.IOPriority = p.Scheduler, p.IOPriority
	if c := p.Capabilities; c != nil {
		out.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	if s := p.ConsoleSize; s != nil {
		out.ConsoleWidth, out.ConsoleHeight = uint16(s.Width), uint16(s.Height)
	}
	out.LogLevel = fmt.Sprint(int(logrus.GetLevel()))
	out.CPUAffinity, err = configs.ConvertCPUAffinity(p.ExecCPUAffinity)
	return out, err
}

// listenFiles are the sockets that whoever activated us has passed, as in
// sd_listen_fds(3).
func listenFiles() []*os.File {
	pid, n := 0, 0
	fmt.Sscan(os.Getenv("LISTEN_PID"), &pid)
	fmt.Sscan(os.Getenv("LISTEN_FDS"), &n)
	if pid != os.Getpid() || n <= 0 {
		return nil
	}
	closeOnExecFrom(3, n)
	files := make([]*os.File, n)
	for i := range files {
		files[i] = os.NewFile(uintptr(3+i), "LISTEN_FD")
	}
	return files
}
