package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// execFailed is the code of an exec whose command never ran.
const execFailed = 255

// ociExec is one exec: the process file or what changes the container's own process.
type ociExec struct {
	*oci
	run          ociRun
	process      string
	cwd, user    string
	env, caps    []string
	gids, groups []string
	tty          bool
	label        string
	apparmor     string
	noNewPrivs   *bool
	ignorePaused bool
}

func (e *ociExec) parse(args []string) ([]string, error) {
	fs := newOCIFlags("exec")
	e.run.flags(fs)
	ociAlias(fs, &e.process, "file of the process's specification", "process", "p")
	fs.StringVar(&e.cwd, "cwd", "", "working directory")
	ociAlias(fs, &e.user, "UID[:GID]", "user", "u")
	ociList(fs, &e.env, "NAME=VALUE", "env", "e")
	ociList(fs, &e.caps, "a further capability", "cap", "c")
	ociList(fs, &e.gids, "a further group id", "additional-gids", "g")
	ociList(fs, &e.groups, "[CONTROLLER:]GROUP below the container's", "cgroup")
	ociAlias(fs, &e.tty, "give it a terminal", "tty", "t")
	ociAlias(fs, &e.run.detach, "do not wait for its end", "detach", "d")
	fs.StringVar(&e.label, "process-label", "", "SELinux label")
	fs.StringVar(&e.apparmor, "apparmor", "", "AppArmor profile")
	fs.BoolVar(&e.ignorePaused, "ignore-paused", false, "also in a paused container, where it waits")
	fs.BoolFunc("no-new-privs", "forbid it to gain privileges", func(s string) error {
		v, err := strconv.ParseBool(s)
		e.noNewPrivs = &v
		return err
	})
	least := 2
	for _, a := range args {
		if a == "-p" || a == "--process" || a == "-process" || strings.Contains(a, "-process=") || strings.HasPrefix(a, "-p=") {
			least = 1
		}
	}
	return ociParse(fs, args, true, least, -1)
}

func (o *oci) exec(args []string) error {
	e := &ociExec{oci: o}
	words, err := e.parse(args)
	if err != nil {
		return execError255(err)
	}
	code, err := e.do(words[0], words[1:])
	if err != nil {
		return &ociExit{execFailed, fmt.Errorf("exec in %s: %w", words[0], err)}
	}
	return &ociExit{code: code}
}

func execError255(err error) error {
	var exit *ociExit
	if errors.As(err, &exit) {
		return err
	}
	return &ociExit{execFailed, err}
}

func (e *ociExec) do(id string, command []string) (int, error) {
	if e.run.pidFile != "" {
		path, err := filepath.Abs(e.run.pidFile)
		if err != nil {
			return 0, err
		}
		e.run.pidFile = path
	}
	lc, err := e.find(id)
	if err != nil {
		return 0, err
	}
	switch st, err := lc.Status(); {
	case err != nil:
		return 0, err
	case st == libcontainer.Stopped:
		return 0, errors.New("cannot exec in a stopped container")
	case st == libcontainer.Paused && !e.ignorePaused:
		return 0, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	spec, err := e.specification(lc, command)
	if err != nil {
		return 0, err
	}
	if err := e.run.check(spec.Terminal); err != nil {
		return 0, err
	}
	if err := fitOCI(&specs.Spec{Process: spec}); err != nil {
		return 0, err
	}
	extra, err := e.loadExtra(id)
	if err != nil {
		return 0, err
	}
	if extra.Filter.Hash != "" && !spec.NoNewPrivileges {
		// Loading the filter takes this, and the container's first process has it too.
		logrus.Warn("the container has no_new_privs, so its further processes have it too")
		spec.NoNewPrivileges = true
	}
	return e.launch(lc, spec, extra.Filter)
}

func (e *ociExec) launch(lc *libcontainer.Container, spec *specs.Process, filter filterRef) (int, error) {
	r := &e.run
	defer r.close()
	p, err := ociProcess(spec)
	if err != nil {
		return 0, err
	}
	if p.SubCgroupPaths, err = subGroups(e.groups); err != nil {
		return 0, err
	}
	if err := r.passFiles(p, nil); err != nil {
		return 0, err
	}
	report, err := e.wrap(p, filter)
	if err != nil {
		return 0, err
	}
	r.noSubreaper = true // orphans belong to the container's first process, or to its parent
	signals := r.listen()
	conf := lc.Config()
	if err := r.connect(p, &conf, spec.Terminal); err != nil {
		return 0, err
	}
	stop := warmGroups()
	err = lc.Run(p)
	stop()
	if err != nil {
		return 0, translate(err)
	}
	if err := e.begun(p, report, spec.Args[0]); err != nil {
		r.terminate(p)
		return 0, err
	}
	return r.follow(p, signals, nil)
}

// begun is called once the process exists.
func (e *ociExec) begun(p *libcontainer.Process, report *execReport, name string) error {
	if err := e.run.received(); err != nil {
		return err
	}
	if err := report.await(name); err != nil {
		return err
	}
	pid, err := p.Pid()
	if err != nil {
		return err
	}
	return e.run.writePidFile(pid)
}

// execReport is the pipe over which our init says whether the program runs.
type execReport struct{ r, w *os.File }

// await is nil if there is nobody to report.
func (e *execReport) await(name string) error {
	if e == nil {
		return nil
	}
	e.w.Close()
	if err := awaitExec(e.r); err != nil {
		return execWords(name, err)
	}
	return nil
}

// wrap puts our init in front of the program, if the container's filter is for it to load.
func (e *ociExec) wrap(p *libcontainer.Process, filter filterRef) (*execReport, error) {
	if filter.Hash == "" {
		return nil, nil
	}
	r := &e.run
	exe, err := r.keepOpen(e.openInit())
	if err != nil {
		return nil, err
	}
	job := newInitJob(exe, p.ExtraFiles...)
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.keepOpen(pr, nil)
	r.keepOpen(pw, nil)
	job.err = job.add(pw)
	program, err := r.keepOpen(newFilters(e.helpers()).open(filter))
	if err != nil {
		return nil, err
	}
	job.flt, job.flags = job.add(program), filter.Flags
	p.Args, p.ExtraFiles = job.args(false, p.Args), job.files
	return &execReport{pr, pw}, nil
}

// specification is the process file, or the bundle's process with what the
// flags change.
func (e *ociExec) specification(lc *libcontainer.Container, command []string) (*specs.Process, error) {
	if e.process != "" {
		b, err := os.ReadFile(e.process)
		if err != nil {
			return nil, err
		}
		p := &specs.Process{}
		if err := json.Unmarshal(b, p); err != nil {
			return nil, fmt.Errorf("%s: %w", e.process, err)
		}
		return p, checkOCIProcess(p)
	}
	dir, ok := utils.SearchLabels(lc.Config().Labels, "bundle")
	if !ok {
		return nil, errors.New("the container's state names no bundle")
	}
	spec, err := readBundle(dir)
	if err != nil {
		return nil, err
	}
	p := spec.Process
	p.Args, p.Terminal = command, e.tty
	if err := e.change(p); err != nil {
		return nil, err
	}
	return p, checkOCIProcess(p)
}

func (e *ociExec) change(p *specs.Process) error {
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.noNewPrivs != nil {
		p.NoNewPrivileges = *e.noNewPrivs
	}
	p.Env = append(p.Env, e.env...)
	e.addCaps(p)
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("--user %s: %w", e.user, err)
		}
		p.User.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("--user %s: %w", e.user, err)
			}
			p.User.GID = uint32(n)
		}
	}
	for _, g := range e.gids {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return fmt.Errorf("--additional-gids %s: %w", g, err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	return nil
}

// addCaps adds to what the process has by itself. An ambient capability has to be inheritable
// too, which this flag does not make it.
func (e *ociExec) addCaps(p *specs.Process) {
	if len(e.caps) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	c := p.Capabilities
	c.Bounding = append(c.Bounding, e.caps...)
	c.Effective = append(c.Effective, e.caps...)
	c.Permitted = append(c.Permitted, e.caps...)
	if c.Inheritable != nil {
		c.Ambient = append(c.Ambient, e.caps...)
	}
}

// subGroups reads [CONTROLLER[,CONTROLLER...]:]GROUP.
func subGroups(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		controllers, group, named := strings.Cut(a, ":")
		if !named {
			if len(args) > 1 {
				return nil, fmt.Errorf("--cgroup %s: with several of them each must name its controller", a)
			}
			return map[string]string{"": a}, nil
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if _, twice := out[c]; twice || c == "" {
				return nil, fmt.Errorf("--cgroup %s: controller %q is empty or was there already", a, c)
			}
			out[c] = group
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}
