package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// setLimits gives a running container other limits, all of them or none. The
// kernel is told first: what libcontainer remembers is for what it starts later.
func (k *Keeper) setLimits(id string, l cgroup.Limits) error {
	c, err := k.running(id)
	if err != nil {
		return err
	}
	k.launching.RLock() // no exec of a new keeper in the middle of it
	defer k.launching.RUnlock()
	c.handling.Lock()
	defer c.handling.Unlock()
	if err := k.changeLimits(c, l); err != nil {
		if c.snapshot().State != runtime.Running || errors.Is(err, fs.ErrNotExist) {
			err = runtime.ErrNotRunning // it ended meanwhile: that is the reason
		}
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

func (k *Keeper) changeLimits(c *container, l cgroup.Limits) error {
	st := c.snapshot()
	g, parent := cgroup.Group{Path: st.Cgroup}, k.parentOf(path.Dir(st.Cgroup))
	l, err := l.Resolve()
	if err != nil {
		return err
	}
	r := l.Resources()
	if err := k.fitLimits(r, parent, k.logger.With("unit", st.Unit, "container", st.ID)); err != nil {
		return err
	}
	groupOOM(r, st.OOM, memoryAccounted(parent.Path))
	// Before the limit: a kill that it brings is to be seen.
	if l.Memory > 0 && !st.WatchOOM {
		if err := k.ooms.Add(g); err != nil {
			return err
		}
	}
	lc, err := libcontainer.Load(k.layout.Libcontainer(), st.ID)
	if err != nil {
		return translate(err)
	}
	former := lc.Config().Cgroups.Resources
	if err := g.SetLimits(l); err != nil {
		return err
	}
	if err := rememberLimits(lc, r); err != nil {
		return errors.Join(err, g.SetLimits(fromRemembered(former)))
	}
	k.shareOf(context.Background(), &st)
	return k.update(c, func(st *state) { st.WatchOOM = st.WatchOOM || l.Memory > 0 })
}

// rememberLimits has libcontainer set the limits too, which they already are,
// and keep them in its state.
func rememberLimits(lc *libcontainer.Container, r *specs.LinuxResources) error {
	conf := lc.Config()
	group := *conf.Cgroups
	res := *group.Resources
	takeLimits(&res, r)
	res.SkipDevices = true // they stay; it is not kept with the state
	group.Resources = &res
	conf.Cgroups = &group
	if err := lc.Set(conf); err != nil {
		return translate(err)
	}
	return nil
}

// takeLimits puts what r limits into libcontainer's form, as its specconv does, and takes out the rest.
func takeLimits(to *cgroups.Resources, r *specs.LinuxResources) {
	to.Memory, to.MemorySwap, to.MemoryReservation = 0, 0, 0
	if m := r.Memory; m != nil {
		to.Memory, to.MemorySwap, to.MemoryReservation = deref(m.Limit), deref(m.Swap), deref(m.Reservation)
	}
	to.CpuShares, to.CpuWeight, to.CpuQuota, to.CpuPeriod, to.CpusetCpus, to.CpusetMems = 0, 0, 0, 0, "", ""
	if c := r.CPU; c != nil {
		to.CpuShares, to.CpuQuota, to.CpuPeriod = deref(c.Shares), deref(c.Quota), deref(c.Period)
		to.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(to.CpuShares)
		to.CpusetCpus, to.CpusetMems = c.Cpus, c.Mems
	}
	to.PidsLimit = nil
	if r.Pids != nil {
		to.PidsLimit = r.Pids.Limit
	}
	to.BlkioWeight = 0
	var b specs.LinuxBlockIO
	if r.BlockIO != nil {
		b = *r.BlockIO
		to.BlkioWeight = deref(b.Weight)
	}
	to.BlkioThrottleReadBpsDevice, to.BlkioThrottleWriteBpsDevice = throttles(b.ThrottleReadBpsDevice), throttles(b.ThrottleWriteBpsDevice)
	to.BlkioThrottleReadIOPSDevice, to.BlkioThrottleWriteIOPSDevice = throttles(b.ThrottleReadIOPSDevice), throttles(b.ThrottleWriteIOPSDevice)
	to.HugetlbLimit = nil
	for _, h := range r.HugepageLimits {
		to.HugetlbLimit = append(to.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	to.Unified = maps.Clone(r.Unified)
}

func throttles(list []specs.LinuxThrottleDevice) (out []*cgroups.ThrottleDevice) {
	for _, d := range list {
		out = append(out, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
	}
	return out
}

// fromRemembered are the limits that libcontainer remembers, to go back to.
func fromRemembered(r *cgroups.Resources) cgroup.Limits {
	spec := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &r.Memory, Reservation: &r.MemoryReservation},
		CPU:    &specs.LinuxCPU{Quota: &r.CpuQuota, Period: &r.CpuPeriod, Shares: &r.CpuShares, Cpus: r.CpusetCpus, Mems: r.CpusetMems},
		Pids:   &specs.LinuxPids{Limit: r.PidsLimit}, Unified: r.Unified,
		BlockIO: &specs.LinuxBlockIO{Weight: &r.BlkioWeight},
	}
	if r.MemorySwap != 0 {
		spec.Memory.Swap = &r.MemorySwap
	}
	for _, x := range []struct {
		from []*cgroups.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioThrottleReadBpsDevice, &spec.BlockIO.ThrottleReadBpsDevice}, {r.BlkioThrottleWriteBpsDevice, &spec.BlockIO.ThrottleWriteBpsDevice},
		{r.BlkioThrottleReadIOPSDevice, &spec.BlockIO.ThrottleReadIOPSDevice}, {r.BlkioThrottleWriteIOPSDevice, &spec.BlockIO.ThrottleWriteIOPSDevice},
	} {
		for _, d := range x.from {
			t := specs.LinuxThrottleDevice{Rate: d.Rate}
			t.Major, t.Minor = d.Major, d.Minor
			*x.to = append(*x.to, t)
		}
	}
	for _, h := range r.HugetlbLimit {
		spec.HugepageLimits = append(spec.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	return cgroup.FromResources(spec)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// pauseLimit is how long a container may take to stand still: a process in
// an uninterruptible wait cannot be frozen on v1.
const pauseLimit = 5 * time.Second

// pause freezes a container's processes.
func (k *Keeper) pause(ctx context.Context, id string) error {
	c, err := k.running(id)
	if err != nil {
		return err
	}
	c.handling.Lock()
	defer c.handling.Unlock()
	st := c.snapshot()
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	if err := (cgroup.Group{Path: st.Cgroup}).Freeze(ctx); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = runtime.ErrNotRunning
		}
		return fmt.Errorf("container %s: pause: %w", id, err)
	}
	return k.update(c, func(st *state) { st.Paused = true })
}

// resume lets them go on.
func (k *Keeper) resume(id string) error {
	c, err := k.running(id)
	if err != nil {
		return err
	}
	return k.thaw(c)
}

// thaw lets a container go on if it is paused.
func (k *Keeper) thaw(c *container) error {
	c.handling.Lock()
	defer c.handling.Unlock()
	st := c.snapshot()
	if err := (cgroup.Group{Path: st.Cgroup}).Thaw(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("container %s: resume: %w", st.ID, err)
	}
	if !st.Paused {
		return nil
	}
	return k.update(c, func(st *state) { st.Paused = false })
}

// seePaused looks at the kernel whether an adopted container is paused: the
// keeper before us may have died before it could keep it.
func seePaused(st *state) {
	if frozen, err := (cgroup.Group{Path: st.Cgroup}).Frozen(); err == nil {
		st.Paused = frozen
	}
}
