package apitest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/apiserver"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Daemon pretends to be a supervisor. It is safe for concurrent use.
type Daemon struct {
	mu      sync.Mutex
	units   map[string]*pretended
	images  []api.Image
	events  []api.Event
	ends    []api.ExitRecord
	made    int           // names made up
	changed chan struct{} // closed and replaced at each change
	calls   []string
	fail    map[string]error

	operations map[string]*operation
	damage     map[string][]image.Damage // by digest

	healthy  bool                     // the host
	Root     string                   // the root folder of all containers
	attached int                      // how many ever were
	inputs   map[string]chan struct{} // closed when one is read to its end
}

// pretended is one unit.
type pretended struct {
	api.UnitDetail
	output []api.LogLine
	ended  bool // for good
}

// New has no units and no images.
func New() *Daemon {
	return &Daemon{units: map[string]*pretended{}, changed: make(chan struct{}), fail: map[string]error{},
		operations: map[string]*operation{}, damage: map[string][]image.Damage{}, inputs: map[string]chan struct{}{}}
}

// Serve answers at ln until ctx ends.
func (d *Daemon) Serve(ctx context.Context, ln net.Listener) error {
	return (&apiserver.Server{Backend: d, Images: (*images)(d)}).Serve(ctx, ln)
}

// ListenAndServe answers at a new socket until ctx ends.
func (d *Daemon) ListenAndServe(ctx context.Context, socket string) error {
	ln, err := apiserver.Listen(socket, "")
	if err != nil {
		return err
	}
	return d.Serve(ctx, ln)
}

// Add puts a unit there as it is, with what it has written.
func (d *Daemon) Add(u api.UnitDetail, output ...api.LogLine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ended := u.State == plan.StateStopped || u.State == plan.StateCompleted || u.State == plan.StateFailed
	d.units[u.Name] = &pretended{UnitDetail: u, output: output, ended: ended}
}

// AddImage puts an image there.
func (d *Daemon) AddImage(i api.Image) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.images = append(d.images, i)
}

// Fail makes a method of the backend ("Start", "Pull") fail from now on.
func (d *Daemon) Fail(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[method] = err
}

// Calls lists what was asked for, in order: "Stop web by root (uid 0, pid 1)".
func (d *Daemon) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// called notes a call and gives the error it is to fail with; mu is held.
func (d *Daemon) called(method, what, by string) error {
	call := method + " " + what
	if by != "" {
		call += " by " + by
	}
	d.calls = append(d.calls, call)
	return d.fail[method]
}

// change wakes everybody who waits; mu is held.
func (d *Daemon) change() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// until waits, mu held, until ok.
func (d *Daemon) until(ctx context.Context, ok func() bool) error {
	for !ok() {
		changed := d.changed
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			d.mu.Lock()
			return ctx.Err()
		case <-changed:
		}
		d.mu.Lock()
	}
	return nil
}

// Info describes the daemon.
func (d *Daemon) Info() api.Info {
	return api.Info{Version: "1.2.3", Pid: 812, KeeperPid: 813, StartedAt: time.Now().Add(-3 * time.Hour), Root: "/var/lib/wherry",
		RunDir: "/run/wherry", Cgroup: "/wherry", CgroupMode: "unified", Bridge: "wherry0", Subnet: "10.88.0.0/16",
		Warnings: []string{"/etc/wherry/units/refused.yaml:2:1: unknown key \"comand\""},
		Registries: []api.RateLimit{
			{Registry: "docker.io", Limit: 100, Remaining: 63, Window: 6 * time.Hour, At: time.Now()},
			{Registry: "quay.io", Limit: -1, Remaining: -1, Until: time.Now().Add(90 * time.Second)},
		},
		Disk:   &api.Disk{Path: "/var/lib/wherry", Total: 100e9, Free: 12e9, Reserve: 1e9, Used: 88, Pressure: "88 % in use, above 85 %"},
		LastGC: &api.LastGC{At: time.Now().Add(-time.Hour), Images: 3, Freed: 2e9}}
}

// Vitals are those of a daemon that was asked for r.
func (d *Daemon) Vitals(_ context.Context, r api.VitalsRequest) (api.Vitals, error) {
	v := api.Vitals{Daemon: api.ProcessVitals{Pid: 812, Goroutines: 40, Heap: 5 << 20}, Keeper: &api.ProcessVitals{Pid: 813, Goroutines: 9, Heap: 2 << 20}}
	if r.Collect {
		v.Daemon.Heap = 4 << 20
	}
	if r.Stacks {
		v.Keeper.Stacks = "goroutine 1 [running]"
	}
	return v, nil
}

// Reload says that something was applied.
func (d *Daemon) Reload(_ context.Context, by string) (api.ReloadResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return api.ReloadResult{Applied: []string{"registries"}, NeedsRestart: []string{"root"}}, d.called("Reload", "", by)
}

// Units returns all units by name.
func (d *Daemon) Units() []api.Unit {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []api.Unit{}
	for _, name := range d.sorted() {
		list = append(list, d.units[name].detail().Unit)
	}
	return list
}

func (d *Daemon) sorted() []string {
	var names []string
	for name := range d.units {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Unit returns one unit.
func (d *Daemon) Unit(_ context.Context, name string) (api.UnitDetail, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.units[name]; u != nil {
		return u.detail(), nil
	}
	return api.UnitDetail{}, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, name)
}

// Match resolves names, prefixes and globs.
func (d *Daemon) Match(patterns []string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.match(patterns)
}

func (d *Daemon) match(patterns []string) ([]string, error) {
	var found []string
	for _, p := range patterns {
		var mine []string
		for _, name := range d.sorted() {
			ok, _ := path.Match(p, name)
			if name == p {
				mine = []string{name}
				break
			}
			if ok || strings.HasPrefix(name, p) {
				mine = append(mine, name)
			}
		}
		if len(mine) == 0 {
			return nil, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, p)
		}
		if len(mine) > 1 && !strings.ContainsAny(p, "*?[") {
			return nil, fmt.Errorf("%w %s: %s", api.ErrAmbiguous, p, strings.Join(mine, ", "))
		}
		found = append(found, mine...)
	}
	return found, nil
}

// Start makes units run.
func (d *Daemon) Start(_ context.Context, r api.ActRequest, by string) ([]string, error) {
	return d.act("Start", r, by, (*pretended).start)
}

// Stop makes units end by SIGTERM.
func (d *Daemon) Stop(_ context.Context, r api.ActRequest, by string) ([]string, error) {
	return d.act("Stop", r, by, func(u *pretended) {
		u.end(api.Exit{Signal: "SIGTERM"})
		u.Intent, u.State = string(plan.Stopped), plan.StateStopped
	})
}

// Restart ends units and makes them run again.
func (d *Daemon) Restart(_ context.Context, r api.ActRequest, by string) ([]string, error) {
	return d.act("Restart", r, by, (*pretended).start)
}

// Remove forgets units.
func (d *Daemon) Remove(_ context.Context, r api.ActRequest, by string) ([]string, error) {
	return d.act("Remove", r, by, func(u *pretended) {
		u.ended = true
		delete(d.units, u.Name)
	})
}

func (d *Daemon) act(method string, r api.ActRequest, by string, do func(*pretended)) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called(method, strings.Join(r.Units, " "), by); err != nil {
		return nil, err
	}
	names := d.sorted()
	if !r.All {
		var err error
		if names, err = d.match(r.Units); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		do(d.units[name])
	}
	d.change()
	return names, nil
}

// detail is a copy for others.
func (u *pretended) detail() api.UnitDetail {
	c := u.UnitDetail
	c.Instances = slices.Clone(c.Instances)
	return c
}

func (u *pretended) start() {
	u.Intent, u.State, u.Running, u.ended = string(plan.Running), plan.StateRunning, u.Replicas, false
	for n := range u.Instances {
		i := &u.Instances[n]
		i.State, i.Exit, i.Pid, i.StartedAt = plan.StateRunning, nil, 4000+n, time.Now()
	}
}

// end ends all instances for good.
func (u *pretended) end(e api.Exit) {
	if u.ended {
		return
	}
	e.At = time.Now()
	u.ended, u.Running, u.State = true, 0, plan.StateCompleted
	if e.Code != 0 || e.Signal != "" || e.Unknown {
		u.State = plan.StateFailed
	}
	for n := range u.Instances {
		i := &u.Instances[n]
		i.State, i.Exit, i.Pid, i.EndedAt = u.State, &e, 0, e.At
	}
}

// Apply parses the files and makes units of them, which run at once.
func (d *Daemon) Apply(_ context.Context, r api.ApplyRequest, by string) (api.ApplyResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("Apply", fmt.Sprint(len(r.Files)), by); err != nil {
		return api.ApplyResult{}, err
	}
	var res api.ApplyResult
	var parsed []unit.Unit
	var bad []error
	for _, f := range r.Files {
		u, warnings, err := unit.Parse(f.Source, []byte(f.Text), unit.Options{ReadFile: func(name string) ([]byte, error) {
			if text, ok := f.Files[name]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		}, Dir: cmp.Or(f.Dir, filepath.Dir(f.Source))})
		if err != nil {
			bad = append(bad, err)
		}
		for _, w := range warnings {
			res.Warnings = append(res.Warnings, w.String())
		}
		parsed = append(parsed, u)
	}
	if len(bad) > 0 {
		return api.ApplyResult{}, errors.Join(bad...)
	}
	for _, u := range parsed {
		res.Units = append(res.Units, d.applyOne(u, r.DryRun))
	}
	d.change()
	return res, nil
}

func (d *Daemon) applyOne(u unit.Unit, dryRun bool) api.UnitChange {
	c := api.UnitChange{Unit: u.Name, Change: "create", Revision: 1}
	if old := d.units[u.Name]; old != nil {
		c.Change, c.Revision = "unchanged", old.Revision
		if was, is := old.Image, u.Containers[0].Image; was != is {
			c.Change, c.Revision = "update", old.Revision+1
			c.Fields = []unit.Change{{Path: "containers.app.image", Old: was, New: is}}
		}
	}
	if !dryRun && c.Change != "unchanged" {
		p := newPretended(u, c.Revision)
		p.start()
		d.units[u.Name] = p
	}
	return c
}

func newPretended(u unit.Unit, revision int) *pretended {
	c := u.Containers[0]
	p := &pretended{UnitDetail: api.UnitDetail{Definition: u, Unit: api.Unit{
		Name: u.Name, Kind: string(u.Kind), Revision: revision, Image: c.Image,
		Command: append(slices.Clone(c.Entrypoint), c.Command...), Network: u.Network, Replicas: u.Replicas,
		CreatedAt: time.Now(), Ports: u.Ports, Labels: u.Labels,
	}}}
	for n := range u.Replicas {
		p.Instances = append(p.Instances, api.Instance{Name: fmt.Sprintf("%s.%d", u.Name, n+1)})
	}
	return p
}

// WaitExit waits for the end of a unit.
func (d *Daemon) WaitExit(ctx context.Context, name string) (api.Exit, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.units[name]
	if u == nil {
		return api.Exit{}, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, name)
	}
	if err := d.until(ctx, func() bool { return u.ended }); err != nil {
		return api.Exit{}, err
	}
	for _, i := range u.Instances {
		if i.Exit != nil {
			return *i.Exit, nil
		}
	}
	return api.Exit{Unknown: true}, nil
}

// WaitUp waits until units run.
func (d *Daemon) WaitUp(ctx context.Context, names []string) error {
	return d.WaitState(ctx, names, plan.StateRunning)
}

// WaitState waits for a state of units.
func (d *Daemon) WaitState(ctx context.Context, names []string, state string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("WaitState", strings.Join(names, " ")+" "+state, ""); err != nil {
		return err
	}
	return d.until(ctx, func() bool {
		return !slices.ContainsFunc(names, func(n string) bool { return d.units[n] == nil || d.units[n].State != state })
	})
}
