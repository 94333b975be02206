package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// exec runs a further process in a running container and waits for its end.
// If ctx ends first the process is killed.
func (k *Keeper) exec(ctx context.Context, req *wire.ExecRequest, files execFiles) (runtime.Exit, error) {
	defer k.busy()
	if len(req.Args) == 0 {
		return runtime.Exit{}, errors.New("exec: no command")
	}
	c, err := k.running(req.ID)
	if err != nil {
		return runtime.Exit{}, err
	}
	st := c.snapshot()
	if st.Paused {
		return runtime.Exit{}, fmt.Errorf("exec %q: container %s: %w", req.Args[0], st.ID, runtime.ErrPaused)
	}
	if req.Detach {
		req.Key = rand.Text() // nobody asks for it, but the next keeper has to reap it
	}
	before, _ := (cgroup.Group{Path: st.Cgroup}).OOMKills()
	proc, err := k.spawn(ctx, &st, req, files)
	if err != nil || !req.Detach {
		defer k.forgetExec(st.ID, req.Key)
	}
	if err != nil && ctx.Err() != nil {
		return runtime.Exit{}, ctx.Err() // we killed it before its program ran
	}
	if err != nil {
		if c.snapshot().State != runtime.Running || !asked(err) && endsNow(ctx, &st) {
			err = runtime.ErrNotRunning // it ended meanwhile: that is the reason
		}
		return runtime.Exit{}, fmt.Errorf("exec %q: %w", req.Args[0], err)
	}
	if req.Detach {
		go func() {
			defer proc.close()
			proc.wait(context.Background())
			proc.reap()
			k.forgetExec(st.ID, req.Key)
		}()
		return runtime.Exit{}, nil
	}
	defer proc.close()
	err = proc.wait(ctx)
	k.reach(atExecEnded, c)
	if ctx.Err() != nil {
		proc.signal(unix.SIGKILL)
		proc.wait(context.Background())
		proc.reap()
		return runtime.Exit{}, ctx.Err()
	}
	if err != nil {
		return runtime.Exit{}, fmt.Errorf("exec %q: %w", req.Args[0], err)
	}
	exit := runtime.Exit{At: time.Now()}
	ws, ok := proc.reap()
	switch {
	case !ok:
		exit.Unknown = true
	case ws.Signaled():
		exit.Signal, exit.Status = signalName(ws.Signal()), uint32(ws)
		after, err := (cgroup.Group{Path: st.Cgroup}).OOMKills()
		exit.OOM = ws.Signal() == unix.SIGKILL && err == nil && after > before
	default:
		exit.Code, exit.Status = ws.ExitStatus(), uint32(ws)
	}
	return exit, nil
}

// asked tells whether err is about what the caller wants to run, by whom and where: a container that lives on has the same answer.
func asked(err error) bool {
	var wrong *wrongRequest
	return errors.Is(err, runtime.ErrCommand) || errors.Is(err, runtime.ErrNotExecutable) || errors.As(err, &wrong)
}

// wrongRequest is a user or a working directory that the container does not have.
type wrongRequest struct{ error }

func (w *wrongRequest) Unwrap() error { return w.error }

// endPatience is how long after a further process could not be started the container's
// first one is given to be gone too: the kernel kills a group one by one, which takes its time on a host with much to do.
const endPatience = 2 * time.Second

// endsNow tells whether the container's first process has ended, of which we may not have
// heard yet, or does so now.
func endsNow(ctx context.Context, st *state) bool {
	proc := holdSame(st.Pid, st.StartTime)
	if proc == nil {
		return true
	}
	defer proc.close()
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	return proc.wait(ctx) == nil
}

// spawn starts the process through our helper, which loads the container's
// filter and then becomes the program.
func (k *Keeper) spawn(ctx context.Context, st *state, req *wire.ExecRequest, files execFiles) (*process, error) {
	k.launching.RLock()
	defer k.launching.RUnlock()
	defer warmGroups()()
	p, err := execProcess(st, req)
	if err != nil {
		return nil, err
	}
	lc, err := libcontainer.Load(k.layout.Libcontainer(), st.ID)
	if err != nil {
		return nil, translate(err)
	}
	filter := st.Filter
	if req.Privileged {
		filter = filterRef{}
		k.privilege(p, lc)
	} else {
		p.Capabilities = execCaps(lc.Config().Capabilities, p.UID)
	}
	job := newInitJob(k.exe)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	job.err = job.add(w)
	program, err := k.filters.open(filter)
	if err != nil {
		return nil, err
	}
	if program != nil {
		defer program.Close()
		job.flt, job.flags = job.add(program), filter.Flags
	}
	p.Args = job.args(false, req.Args)
	p.ExtraFiles = job.files
	files.give(p, req)
	c, _ := k.find(st.ID)
	if err := k.reach(atExecLoaded, c); err != nil {
		return nil, err
	}
	if err := lc.Run(p); err != nil {
		k.reapStrays()
		return nil, translate(err)
	}
	return awaitSpawned(ctx, p, r, w, func(proc *process) {
		k.reach(atExecBegun, c)
		k.noteExec(st, req, proc)
		k.reach(atExecNoted, c)
	})
}

// execFiles are what a further process gets along: its stdin, stdout and stderr, those
// that are not nil, or instead a socket that its terminal's master is sent on.
type execFiles struct {
	stdio   [3]*os.File
	console *os.File
}

// give leaves out nil files one by one: a nil *os.File in an interface is
// not nil.
func (f execFiles) give(p *libcontainer.Process, req *wire.ExecRequest) {
	if f.console != nil {
		p.ConsoleSocket, p.ConsoleHeight, p.ConsoleWidth = f.console, req.Rows, req.Columns
		return
	}
	stdio := f.stdio
	if stdio[0] != nil {
		p.Stdin = stdio[0]
	}
	if stdio[1] != nil {
		p.Stdout = stdio[1]
	}
	if stdio[2] != nil {
		p.Stderr = stdio[2]
	}
}

// awaitSpawned returns the process once its program has been exec'd. It hands it
// to began as soon as it is held.
func awaitSpawned(ctx context.Context, p *libcontainer.Process, r, w *os.File, began func(*process)) (*process, error) {
	pid, err := p.Pid()
	if err != nil {
		return nil, err
	}
	proc, err := openProcess(pid)
	if err != nil {
		return nil, err
	}
	w.Close()
	began(proc)
	stop := context.AfterFunc(ctx, func() { proc.signal(unix.SIGKILL) })
	err = awaitExec(r)
	stop()
	if err != nil {
		proc.wait(context.Background())
		proc.reap()
		proc.close()
		return nil, err
	}
	return proc, nil
}

// execProcess is the container's own first process with what the request
// changes.
func execProcess(st *state, req *wire.ExecRequest) (*libcontainer.Process, error) {
	d := st.Process
	if req.Cwd != "" {
		d.Cwd = req.Cwd
	}
	if req.User != "" {
		root, err := os.Open(fmt.Sprintf("/proc/%d/root", st.Pid))
		if err != nil {
			return nil, err
		}
		defer root.Close()
		id, err := lookupUser(root, req.User)
		if err != nil {
			return nil, &wrongRequest{err}
		}
		d.UID, d.GID, d.Groups = id.uid, id.gid, id.groups
		d.Env = withHome(dropHome(d.Env), id.home)
	}
	d.Env = append(d.Env[:len(d.Env):len(d.Env)], req.Env...) // libcontainer keeps the last of equal names
	return libcontainerProcess(d), nil
}

// execCaps are the capabilities of a process of user uid; nil means those of the
// container's own user. Root in a container of somebody else gets what
// root would have had from the start.
func execCaps(of *configs.Capabilities, uid int) *configs.Capabilities {
	if of == nil || uid != 0 || len(of.Permitted) > 0 {
		return nil
	}
	return &configs.Capabilities{Bounding: of.Bounding, Effective: of.Bounding, Permitted: of.Bounding}
}

// privilege gives p all that the host can give. Its filter the caller leaves out, and libcontainer's
// own, which a container without no_new_privs has, is emptied: lc is loaded for p alone.
func (k *Keeper) privilege(p *libcontainer.Process, lc *libcontainer.Container) {
	var all []string
	for c := range k.host.caps {
		all = append(all, c)
	}
	slices.Sort(all)
	p.Capabilities = &configs.Capabilities{Bounding: all, Effective: all, Permitted: all}
	nnp := false
	p.NoNewPrivileges = &nnp
	if s := lc.Config().Seccomp; s != nil {
		*s = configs.Seccomp{DefaultAction: configs.Allow}
	}
}

func dropHome(env []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "HOME=") {
			out = append(out, kv)
		}
	}
	return out
}
