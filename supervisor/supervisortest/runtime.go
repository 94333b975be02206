package supervisortest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Script is how a container behaves.
type Script struct {
	StartErr   error         // the start fails with it
	StartTakes time.Duration // until the process runs, or the start fails
	RunsFor    time.Duration // zero: until it is stopped
	EndsFirst  bool          // it ends, and everybody hears of it, before the start is answered
	Exit       runtime.Exit  // how it ends then
	IgnoreStop bool          // it does not heed its stop signal
	Stuck      bool          // not even SIGKILL ends it, as in D state
	Output     []string      // lines written at the start

	// Exec says how long a further process takes and how it ends. Nil: it is done at once.
	Exec func(p runtime.Process) (takes time.Duration, x runtime.Exit)
}

// Runtime is a keeper without processes. It is safe for concurrent use. Where a name is
// asked for, it is that of an instance, or INSTANCE/CONTAINER for one of several.
type Runtime struct {
	// Refuse, if set, makes updates fail. It is set before anything runs.
	Refuse func(l cgroup.Limits) error

	// Script says how the n-th start (from 1) of a container behaves. Nil:
	// every container runs until it is stopped.
	Script func(c runtime.Config, n int) Script
	// Renewal says how an upgrade of the keeper goes. Nil: there is none to do.
	Renewal func() (renewed bool, err error)

	mu     sync.Mutex
	boxes  map[string]*box
	starts map[string]int // by name
	log    []string       // what happened, in order
	subs   map[chan runtime.Event]bool
	pid    int
	peak   map[string]int // most runs of a unit at once
	shared map[string]runtime.Namespaces
}

type box struct {
	limits *cgroup.Limits // of the last update
	status runtime.Status
	config runtime.Config
	script Script
	ended  chan struct{}
	timer  *time.Timer
}

func (b *box) name() string { return nameOf(b.status.Instance, b.status.Container) }

// NewRuntime makes a keeper without containers.
func NewRuntime() *Runtime {
	return &Runtime{boxes: map[string]*box{}, starts: map[string]int{}, subs: map[chan runtime.Event]bool{},
		pid: 1000, peak: map[string]int{}, shared: map[string]runtime.Namespaces{}}
}

// Log is what happened so far: "start web.1", "exit web.1", "stop web.1", "remove web.1".
func (r *Runtime) Log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// nameOf is the name of a container for tests.
func nameOf(instance, container string) string {
	if container == unit.OnlyContainer {
		return instance
	}
	return instance + "/" + container
}

// is tells whether a name means the container.
func is(st runtime.Status, name string) bool {
	return st.Instance == name || nameOf(st.Instance, st.Container) == name
}

// Config is what the running container of an instance was started with.
func (r *Runtime) Config(instance string) runtime.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.boxes {
		if is(b.status, instance) && b.status.State == runtime.Running {
			return b.config
		}
	}
	return runtime.Config{}
}

// Starts is how often an instance was started, failures included.
func (r *Runtime) Starts(instance string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts[instance]
}

// Peak is how many runs of a unit there were at once at most.
func (r *Runtime) Peak(unit string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peak[unit]
}

// Running lists the runs of which a container of the name runs.
func (r *Runtime) Running(name string) []string {
	var runs []string
	for _, st := range r.all() {
		if is(st, name) && st.State == runtime.Running {
			runs = append(runs, st.Run)
		}
	}
	return slices.Compact(runs) // all is sorted
}

// Pid is that of a running container, 0 if there is none.
func (r *Runtime) Pid(name string) int {
	for _, st := range r.all() {
		if is(st, name) && st.State == runtime.Running {
			return st.Pid
		}
	}
	return 0
}

// Unsettle has the keeper still make a container that runs, as a daemon finds it
// that was started again in the midst of a start.
func (r *Runtime) Unsettle(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.boxes {
		if is(b.status, name) && b.status.State == runtime.Running {
			b.status.State, b.status.Pid = runtime.Creating, 0
		}
	}
}

// End ends the running container of an instance, as a crash would.
func (r *Runtime) End(instance string, x runtime.Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.boxes {
		if is(b.status, instance) && b.status.State == runtime.Running {
			r.end(b, x)
		}
	}
}

// OOM tells of a process that the kernel has killed in a container of an instance, which lives on.
func (r *Runtime) OOM(instance string, o *runtime.OOM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.boxes {
		if is(b.status, instance) && b.status.State == runtime.Running {
			r.tell(runtime.Event{Type: runtime.EventOOM, ID: b.status.ID, Status: b.status, OOM: o})
		}
	}
}

// Restart is the keeper's death and return: whoever listens sees a gap. With
// forget, it comes back without its containers.
func (r *Runtime) Restart(forget bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pid++
	if forget {
		for id, b := range r.boxes {
			if b.timer != nil {
				b.timer.Stop()
			}
			delete(r.boxes, id)
		}
	}
	r.tell(runtime.Event{Type: runtime.EventGap})
}

func (r *Runtime) all() []runtime.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []runtime.Status
	for _, b := range r.boxes {
		list = append(list, b.status)
	}
	slices.SortFunc(list, func(a, b runtime.Status) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (r *Runtime) note(what, instance string) { r.log = append(r.log, what+" "+instance) }

func (r *Runtime) tell(e runtime.Event) {
	for ch := range r.subs {
		ch <- e // room enough for every test, see Events
	}
}

func (r *Runtime) end(b *box, x runtime.Exit) {
	if b.status.State == runtime.Exited || b.script.Stuck {
		return
	}
	if b.timer != nil {
		b.timer.Stop()
	}
	if x.At.IsZero() {
		x.At = time.Now()
	}
	b.status.State, b.status.Exit, b.status.Drained = runtime.Exited, &x, true
	r.note("exit", b.name())
	close(b.ended)
	r.tell(runtime.Event{Type: runtime.EventExit, ID: b.status.ID, Status: b.status})
}

// MakeNamespaces gives a file that stands for a namespace.
func (r *Runtime) MakeNamespaces(_ context.Context, n runtime.Namespaces) (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.shared[n.Run]; ok {
		return nil, fmt.Errorf("%w: %s", runtime.ErrExists, n.Run)
	}
	r.shared[n.Run] = n
	if !n.Net {
		return nil, nil
	}
	return os.Open(os.DevNull)
}

// ReleaseNamespaces forgets those of the run.
func (r *Runtime) ReleaseNamespaces(_ context.Context, run string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.shared, run)
	return nil
}

// Shared are the namespaces that are held, by run.
func (r *Runtime) Shared() map[string]runtime.Namespaces {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.shared)
}

// Start starts a container as its script says.
func (r *Runtime) Start(ctx context.Context, c runtime.Config) (runtime.Status, error) {
	r.mu.Lock()
	if r.boxes[c.ID()] != nil {
		r.mu.Unlock()
		return runtime.Status{}, fmt.Errorf("%w: %s", runtime.ErrExists, c.ID())
	}
	name := nameOf(c.Instance, c.Container)
	r.starts[name]++
	var s Script
	if r.Script != nil {
		s = r.Script(c, r.starts[name])
	}
	r.mu.Unlock()
	if s.StartTakes > 0 {
		select {
		case <-time.After(s.StartTakes):
		case <-ctx.Done():
			return runtime.Status{}, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.StartErr != nil {
		r.note("fail", name)
		return runtime.Status{}, s.StartErr
	}
	b := &box{script: s, config: c, ended: make(chan struct{}), status: runtime.Status{ID: c.ID(), Unit: c.Unit, Instance: c.Instance,
		Run: c.Run, Container: c.Container, State: runtime.Running, Pid: 2000 + len(r.log), StartedAt: time.Now(), LogPath: c.Log.Path}}
	r.boxes[c.ID()] = b
	r.note("start", name)
	up := map[string]bool{}
	for _, o := range r.boxes {
		if o.status.Unit == c.Unit && o.status.State != runtime.Exited {
			up[o.status.Run] = true
		}
	}
	r.peak[c.Unit] = max(r.peak[c.Unit], len(up))
	if err := write(c.Log.Path, s.Output); err != nil {
		return runtime.Status{}, err
	}
	if s.RunsFor > 0 {
		b.timer = time.AfterFunc(s.RunsFor, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.end(b, s.Exit)
		})
	}
	if s.EndsFirst {
		st := b.status
		r.end(b, s.Exit)
		r.mu.Unlock()
		time.Sleep(time.Millisecond)
		r.mu.Lock()
		return st, nil
	}
	return b.status, nil
}

func write(path string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, l := range lines {
		if _, err := fmt.Fprintf(f, "%s stdout F %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z"), l); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runtime) find(id string) (*box, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boxes[id]
	if b == nil {
		return nil, fmt.Errorf("%w: %s", runtime.ErrNotFound, id)
	}
	return b, nil
}

// List returns all containers, ended ones too.
func (r *Runtime) List(context.Context) ([]runtime.Status, error) { return r.all(), nil }

// Events reports changes until ctx ends.
func (r *Runtime) Events(ctx context.Context) <-chan runtime.Event {
	ch := make(chan runtime.Event, 100_000)
	ch <- runtime.Event{Type: runtime.EventGap}
	r.mu.Lock()
	r.subs[ch] = true
	r.mu.Unlock()
	go func() {
		<-ctx.Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subs, ch)
		close(ch)
	}()
	return ch
}

// Stop ends the container by its stop signal, or after grace by force.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) (runtime.Exit, error) {
	b, err := r.find(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	r.mu.Lock()
	r.note("stop", b.name())
	ignores := b.script.IgnoreStop
	if !ignores {
		r.end(b, runtime.Exit{Code: 0})
	}
	r.mu.Unlock()
	if ignores {
		select {
		case <-b.ended:
		case <-time.After(grace):
			_ = r.Kill(ctx, id)
		case <-ctx.Done():
			return runtime.Exit{}, ctx.Err()
		}
	}
	return r.Wait(ctx, id)
}

// Kill ends the container at once.
func (r *Runtime) Kill(_ context.Context, id string) error {
	b, err := r.find(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.status.State == runtime.Creating {
		r.mu.Unlock()
		time.Sleep(time.Second) // the rest of the start
		r.mu.Lock()
	}
	r.end(b, runtime.Exit{Signal: "SIGKILL"})
	return nil
}

// Wait blocks until the container has exited.
func (r *Runtime) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	b, err := r.find(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	select {
	case <-b.ended:
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return *b.status.Exit, nil
}

// Remove forgets an exited container.
func (r *Runtime) Remove(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boxes[id]
	if b == nil {
		return nil
	}
	if b.status.State != runtime.Exited {
		return fmt.Errorf("remove %s: it is running", id)
	}
	delete(r.boxes, id)
	r.note("remove", b.name())
	return nil
}

// Exec tells what it was asked to run, and succeeds unless the script says
// something else.
func (r *Runtime) Exec(ctx context.Context, id string, p runtime.Process) (runtime.Exit, error) {
	b, err := r.running(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	if p.Stdout != nil {
		fmt.Fprintln(p.Stdout, strings.Join(p.Args, " "))
	}
	if b.script.Exec == nil {
		return runtime.Exit{At: time.Now()}, nil
	}
	r.mu.Lock()
	r.note("exec "+strings.Join(p.Args, " "), b.name())
	r.mu.Unlock()
	takes, x := b.script.Exec(p)
	select {
	case <-time.After(takes):
		x.At = time.Now()
		return x, nil
	case <-b.ended:
		return runtime.Exit{Signal: "SIGKILL", At: time.Now()}, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

// Stats are invented.
func (r *Runtime) Stats(_ context.Context, id string) (cgroup.Stats, error) {
	if _, err := r.find(id); err != nil {
		return cgroup.Stats{}, err
	}
	return cgroup.Stats{Pids: 1}, nil
}

// KeeperPid is the keeper's process id.
func (r *Runtime) KeeperPid() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pid
}

// Outdated tells whether there is a Renewal.
func (r *Runtime) Outdated(context.Context) (bool, error) { return r.Renewal != nil, nil }

// Renew upgrades the keeper, as Renewal says.
func (r *Runtime) Renew(context.Context) (bool, error) {
	if r.Renewal == nil {
		return false, nil
	}
	return r.Renewal()
}

// Close does nothing: the keeper outlives its clients.
func (r *Runtime) Close() error { return nil }
