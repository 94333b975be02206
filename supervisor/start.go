package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/runtime/spec"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/room"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// start is one start of an instance: a list of steps. It runs in a goroutine
// of its own and gives its result to the loop. First come the steps of the run
// (run), then those of a container (container), which with several containers are a
// start of their own for each.
type start struct {
	s      *Supervisor
	rec    record
	starts chan struct{} // bounds how many are made at once
	pulls  chan struct{}

	// Of the run.
	images map[string]image.Image // by container
	idmap  *runtime.IDMap         // of the run's user namespace; nil: the host's
	shared bool                   // the run has namespaces that the keeper holds
	ns     *os.File
	lease  *network.Lease
	made   bool // there is something to undo

	// Of one container.
	con      *unit.Container
	again    bool // it has been started before in this run
	img      image.Image
	rootfs   []specs.Mount
	mounts   []specs.Mount
	populate []runtime.Populate
	result   spec.Result
	devices  []runtime.Device
	status   runtime.Status
}

type startResult struct {
	run      string
	err      error
	clean    bool // after an error: nothing is left
	lease    *network.Lease
	shared   bool
	idmap    *runtime.IDMap
	noUserNS string
	images   map[string]image.Image
	only     *runtime.Status // of a run's only container, which has been started too
}

// run does the steps of the run, and those of its container if it has only one;
// it undoes them if one fails.
func (st *start) run(ctx context.Context) startResult {
	err := st.steps(ctx)
	if err == nil && st.con != nil {
		err = st.do(ctx, stepPostStart, st.postStart) // a hook that takes its time holds up no other start
	}
	if st.ns != nil {
		st.ns.Close()
	}
	if err == nil {
		res := startResult{run: st.rec.Run, lease: st.lease, shared: st.shared, idmap: st.idmap, noUserNS: st.rec.NoUserNS, images: st.images}
		if st.con != nil {
			res.only = &st.status
		}
		return res
	}
	if errors.Is(err, errDied) || !st.made {
		return startResult{run: st.rec.Run, err: err, clean: true}
	}
	return st.s.undo(ctx, st.rec, err)
}

// undo removes all of a run whose start has failed with err.
func (s *Supervisor) undo(ctx context.Context, rec record, err error) startResult {
	res := startResult{run: rec.Run, err: err, clean: true}
	limited, cancel := detached(ctx)
	defer cancel()
	left := cleanup{s: s, run: rec.Run}.once(limited)
	if errors.Is(left, errDied) {
		res.err = left
		return res
	}
	if left != nil {
		res.clean = false // the plan removes the failed run, with the same code
		s.event(api.Event{Type: event.Cleanup, Unit: rec.Unit.Name, Instance: rec.Instance, Run: rec.Run,
			Message: "left over after a failed start, tried again: " + left.Error()})
	}
	return res
}

// A step of a start.
type step struct {
	name string
	do   func(context.Context) error
}

func (st *start) steps(ctx context.Context) error {
	containers := st.rec.Revision.Definition.Containers
	for _, c := range containers {
		st.hold(c.Image, st.rec.Revision.ImageDigest(c.Name))
	}
	defer st.unhold()
	if err := st.do(ctx, stepPull, st.pullAll); err != nil {
		return err
	}
	digests, stale := map[string]string{}, false
	for name, img := range st.images {
		st.hold(img.Digest)
		digests[name], stale = img.Digest, stale || img.Stale
	}
	select {
	case st.starts <- struct{}{}:
		defer func() { <-st.starts }()
	case <-ctx.Done():
		return st.fail(stepPull, ctx.Err())
	}
	st.s.post(pulled{st.rec.Run, digests, stale})
	st.rec.Revision = st.rec.Revision.WithDigests(digests, stale)
	if err := st.each(ctx, step{stepRecord, st.record}, step{stepUserNS, st.userns}); err != nil {
		return err
	}
	if len(containers) > 1 {
		return st.each(ctx, step{stepNamespaces, st.namespaces}, step{stepNetwork, st.attach}, step{stepRecord, st.record})
	}
	st.con, st.img = &containers[0], st.images[containers[0].Name]
	if err := st.each(ctx, step{stepRootfs, st.prepare}, step{stepVolumes, st.volumes}, step{stepNamespaces, st.namespaces},
		step{stepNetwork, st.attach}, step{stepFiles, st.files}, step{stepSpec, st.build}, step{stepProcess, st.process}); err != nil {
		return err
	}
	if st.s.fault("started") {
		return errDied
	}
	return nil
}

// containerStarted is the result of the start of one of several containers.
type containerStarted struct {
	run, name string
	status    runtime.Status
	err       error
}

// container does the steps of one of several containers, and undoes them if one
// fails. What an earlier start of it has left goes first.
func (st *start) container(ctx context.Context) containerStarted {
	res := containerStarted{run: st.rec.Run, name: st.con.Name}
	if res.err = st.containerSteps(ctx); res.err == nil {
		res.err = st.do(ctx, stepPostStart, st.postStart)
	}
	if res.err == nil {
		res.status = st.status
		return res
	}
	if errors.Is(res.err, errDied) {
		return res
	}
	undo, cancel := detached(ctx)
	defer cancel()
	switch err := (cleanup{s: st.s, run: st.rec.Run}).member(undo, st.con.Name); {
	case errors.Is(err, errDied):
		res.err = err
	case err != nil: // its next start, or the run's end, tries again
		st.s.log.Warn("left over after a failed start", "unit", st.rec.Unit.Name, "container", st.named(), "err", err)
	}
	return res
}

func (st *start) containerSteps(ctx context.Context) error {
	st.hold(st.rec.Revision.ImageDigest(st.con.Name))
	defer st.unhold()
	select {
	case st.starts <- struct{}{}:
		defer func() { <-st.starts }()
	case <-ctx.Done():
		return st.fail(stepProcess, ctx.Err())
	}
	var list []step
	if st.again {
		list = append(list, step{stepAgain, st.clear})
	}
	if st.img.Digest == "" {
		list = append(list, step{stepPull, st.pull})
	}
	list = append(list, step{stepRootfs, st.prepare}, step{stepVolumes, st.volumes}, step{stepFiles, st.files},
		step{stepSpec, st.build}, step{stepProcess, st.process})
	if err := st.each(ctx, list...); err != nil {
		return err
	}
	if st.s.fault("started") {
		return errDied
	}
	return nil
}

// clear removes what the container's earlier start has left. Its attempts are on
// disk before: the next daemon would not find it to count it.
func (st *start) clear(ctx context.Context) error {
	_ = st.s.store.Flush()
	return cleanup{s: st.s, run: st.rec.Run}.member(ctx, st.con.Name)
}

func (st *start) each(ctx context.Context, steps ...step) error {
	for _, one := range steps {
		if err := st.do(ctx, one.name, one.do); err != nil {
			return err
		}
	}
	return nil
}

func (st *start) do(ctx context.Context, name string, f func(context.Context) error) error {
	if st.s.fault(name) {
		return errDied
	}
	began := time.Now()
	err := ctx.Err()
	if err == nil {
		err = f(ctx)
	}
	st.s.log.Debug("start", "unit", st.rec.Unit.Name, "container", st.named(), "step", name, "took", time.Since(began))
	if err == nil {
		return nil
	}
	return st.fail(name, err)
}

func (st *start) fail(step string, err error) error {
	return &StartError{Unit: st.rec.Unit.Name, Instance: st.rec.Instance, Container: st.shown(), Step: step,
		Err: room.Explain(err, st.s.paths.root, st.s.paths.runDir)}
}

func (st *start) app() *unit.Container { return st.con }

// shown is the container's name where it says something: if there are several.
func (st *start) shown() string {
	if st.con == nil || len(st.rec.Revision.Definition.Containers) == 1 {
		return ""
	}
	return st.con.Name
}

func (st *start) named() string { return api.JoinTarget(st.rec.Instance, st.shown()) }

func (st *start) record(context.Context) error {
	st.made = true
	st.rec.Shared, st.rec.IDMap = st.shared, st.idmap
	return writeRecord(st.s.paths, st.rec)
}

// dir is where what belongs to the container lies.
func (st *start) dir() string { return st.s.paths.container(st.rec.Run, st.con.Name) }

func (st *start) prepare(ctx context.Context) (err error) {
	// A writable layer also under read_only: the mount points of volumes that the image lacks are made there, before
	// the root becomes read-only for the container (spec.Root.Readonly).
	o := image.PrepareOptions{Quota: st.app().StorageOpt.Size}
	dir, id := st.dir(), containerID(st.rec.Run, st.con.Name)
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st.rootfs, err = st.s.img.Prepare(ctx, st.img.Digest, id, dir, o)
	if errors.Is(err, image.ErrDamaged) || errors.Is(err, image.ErrNotFound) { // or somebody has deleted it since it was looked for
		if perr := st.pullAgain(ctx); perr != nil {
			return errors.Join(err, perr)
		}
		st.rootfs, err = st.s.img.Prepare(ctx, st.img.Digest, id, dir, o)
	}
	if errors.Is(err, image.ErrNoQuota) {
		err = fmt.Errorf("storage_opt.size: %w", err)
	}
	return err
}

func (st *start) attach(ctx context.Context) error {
	def := &st.rec.Revision.Definition
	if def.Network != "bridge" {
		return nil
	}
	kept := st.rec.Unit.Ports
	lease, err := st.s.net.Attach(ctx, st.ns, st.endpoint(kept))
	if errors.Is(err, network.ErrPortTaken) && len(kept) > 0 {
		// A port that was drawn earlier is only a preference.
		lease, err = st.s.net.Attach(ctx, st.ns, st.endpoint(nil))
	}
	if err != nil {
		return err
	}
	st.lease = &lease
	return nil
}

func (st *start) endpoint(kept map[string]uint16) network.Endpoint {
	e := network.Endpoint{Run: st.rec.Run, Unit: st.rec.Unit.Name}
	for _, p := range st.rec.Revision.Definition.Ports {
		np := network.Port{HostPort: uint16(p.HostPort), Port: uint16(p.Port), Protocol: p.Protocol, Share: st.rec.Unit.Name}
		if np.HostPort == 0 {
			np.HostPort = kept[portKey(np.Port, np.Protocol)]
		}
		np.HostIP, _ = netip.ParseAddr(p.HostIP) // checked by the parser; empty is all
		e.Ports = append(e.Ports, np)
	}
	return e
}

func portKey(port uint16, protocol string) string { return fmt.Sprintf("%d/%s", port, protocol) }

// randomPort tells whether the unit leaves the choice of the host port to us.
func randomPort(def *unit.Unit, port uint16, protocol string) bool {
	return slices.ContainsFunc(def.Ports, func(p unit.Port) bool {
		return p.Port == int(port) && p.Protocol == protocol && p.HostPort == 0
	})
}

func (st *start) build(context.Context) error {
	app, dir := st.app(), st.dir()
	kind := map[string]spec.Network{"bridge": spec.Private, "host": spec.Host, "none": spec.None}[st.rec.Revision.Definition.Network]
	c := st.img.Config
	img := spec.Image{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
		StopSignal: c.StopSignal, Volumes: c.Volumes}
	def := &st.rec.Revision.Definition
	want := spec.Container{
		Hostname: cmp.Or(def.Hostname, hostname(st.rec.Instance)), Entrypoint: app.Entrypoint, Command: app.Command, Env: environment(app.Environment),
		WorkingDir: app.WorkingDir, User: app.User, StopSignal: app.StopSignal, ReadOnly: app.ReadOnly, Bounded: app.StorageOpt.Size > 0,
		CapAdd: app.CapAdd, CapDrop: app.CapDrop, Limits: app.Limits, Mounts: st.mounts, Network: kind,
		Machine: st.s.machine, HostsPath: dir + "/hosts", HostnamePath: dir + "/hostname", ResolvConfPath: dir + "/resolv.conf",
		ShmSize: app.ShmSize, Terminal: app.TTY, UserNS: st.idmap != nil, PID: def.PID, IPC: def.IPC, Sysctls: def.Sysctls, CDI: app.CDI,
		Privileged: app.Privileged, NewPrivileges: app.NewPrivileges, Seccomp: app.Seccomp, SeccompProfile: app.SeccompProfile,
		AppArmor: app.AppArmor, SELinux: app.SELinux, GroupAdd: app.GroupAdd, OOMScoreAdj: app.OOMScoreAdj,
	}
	for _, d := range app.Devices {
		want.Devices = append(want.Devices, spec.Device(d))
	}
	for _, u := range app.Ulimits {
		want.Ulimits = append(want.Ulimits, spec.Ulimit(u))
	}
	res, err := spec.Build(img, want)
	if err != nil {
		return err
	}
	if len(res.Volumes) > 0 {
		for _, target := range res.Volumes {
			m, err := st.anonymous(len(st.mounts), unit.Volume{Target: target})
			if err != nil {
				return err
			}
			st.mounts = append(st.mounts, m)
		}
		want.Mounts = sortMounts(st.mounts)
		if res, err = spec.Build(img, want); err != nil {
			return err
		}
	}
	st.result = res
	st.devices, err = hostDevices(res, app.CDI)
	return err
}

func environment(env map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

func (st *start) process(ctx context.Context) (err error) {
	app := st.app()
	rows, columns := st.s.startSize(st.rec.Unit.Name)
	st.status, err = st.s.rt.Start(ctx, runtime.Config{
		Rows: rows, Columns: columns,
		Unit: st.rec.Unit.Name, Instance: st.rec.Instance, Run: st.rec.Run, Container: app.Name,
		Spec: st.result.Spec, User: st.result.User, Rootfs: st.rootfs, Populate: st.populate, Init: app.Init, Join: st.shared, IDMap: st.idmap,
		GroupAdd: app.GroupAdd, Devices: st.devices, Privileged: app.Privileged, SELinux: st.result.SELinux, OOM: app.OOM, Stdin: app.StdinOpen,
		StopSignal: st.result.StopSignal, StopGracePeriod: time.Duration(app.StopGracePeriod),
		Log: runtime.LogConfig{Path: st.s.paths.log(st.rec.Unit.Name, st.rec.Instance, app.Name), MaxSize: app.Logging.MaxSize, MaxFile: app.Logging.MaxFile,
			NonBlocking: app.Logging.Mode == "non-blocking", Buffer: app.Logging.MaxBufferSize},
	})
	if errors.Is(err, runtime.ErrNotFound) {
		err = fmt.Errorf("%w: they went with a keeper that ended before any container ran", err)
	}
	return err
}
