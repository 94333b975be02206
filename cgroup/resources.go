package cgroup

import (
	"maps"
	"math"
	"os"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Resources are the limits in the words of the OCI runtime specification. Swap
// is memory and swap together there, so equal numbers mean no swap; the file
// system drivers of v2 turn that into memory.swap.max=0. A v1 host without swap
// accounting has no file for it: see [SwapAccounting]. What only v2 has is in
// Unified. Devices must be resolved: one that is not is left out.
func (l Limits) Resources() *specs.LinuxResources {
	r := &specs.LinuxResources{Memory: l.memoryResources(), CPU: l.cpuResources(), BlockIO: l.IO.resources()}
	if l.Pids > 0 {
		pids := l.Pids
		r.Pids = &specs.LinuxPids{Limit: &pids}
	}
	for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
		r.HugepageLimits = append(r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(l.Hugepages[size])})
	}
	if l.MemoryHigh > 0 {
		r.Unified = map[string]string{"memory.high": strconv.FormatInt(l.MemoryHigh, 10)}
	}
	return r
}

func (l Limits) memoryResources() *specs.LinuxMemory {
	if l.Memory == 0 && l.MemoryReservation == 0 {
		return nil
	}
	m := &specs.LinuxMemory{}
	if l.Memory > 0 {
		memory, swap := l.Memory, l.Memory+l.Swap
		if l.Swap < 0 {
			swap = -1
		}
		m.Limit, m.Swap = &memory, &swap
	}
	if l.MemoryReservation > 0 {
		low := l.MemoryReservation
		m.Reservation = &low
	}
	return m
}

func (l Limits) cpuResources() *specs.LinuxCPU {
	shares := l.shares()
	if l.CPUs == 0 && shares == 0 && l.CpusetCPUs == "" && l.CpusetMems == "" {
		return nil
	}
	c := &specs.LinuxCPU{Cpus: l.CpusetCPUs, Mems: l.CpusetMems}
	if l.CPUs > 0 {
		period := uint64(cpuPeriod)
		quota := int64(math.Round(l.CPUs * cpuPeriod))
		c.Quota, c.Period = &quota, &period
	}
	if shares > 0 {
		c.Shares = &shares
	}
	return c
}

func (i IO) resources() *specs.LinuxBlockIO {
	if i.Weight == 0 && !i.throttled() {
		return nil
	}
	b := &specs.LinuxBlockIO{}
	if i.Weight != 0 {
		weight := i.Weight
		b.Weight = &weight
	}
	throttles := func(list []Rate) (out []specs.LinuxThrottleDevice) {
		for _, r := range list {
			if numbers, ok := parseDevice(r.Device); ok {
				d := specs.LinuxThrottleDevice{Rate: r.Rate}
				d.Major, d.Minor = numbers[0], numbers[1]
				out = append(out, d)
			}
		}
		return out
	}
	b.ThrottleReadBpsDevice, b.ThrottleWriteBpsDevice = throttles(i.ReadBytes), throttles(i.WriteBytes)
	b.ThrottleReadIOPSDevice, b.ThrottleWriteIOPSDevice = throttles(i.Reads), throttles(i.Writes)
	return b
}

// FromResources is the inverse of Resources, as far as there are words for it here.
func FromResources(r *specs.LinuxResources) Limits {
	var l Limits
	if r == nil {
		return l
	}
	if m := r.Memory; m != nil {
		l.Memory, l.MemoryReservation = positive(m.Limit), positive(m.Reservation)
		switch {
		case m.Swap == nil || l.Memory == 0:
		case *m.Swap < 0:
			l.Swap = -1
		default:
			l.Swap = max(*m.Swap-l.Memory, 0)
		}
	}
	if c := r.CPU; c != nil {
		if c.Quota != nil && *c.Quota > 0 {
			period := uint64(cpuPeriod)
			if c.Period != nil && *c.Period > 0 {
				period = *c.Period
			}
			l.CPUs = float64(*c.Quota) / float64(period)
		}
		if c.Shares != nil {
			l.CPUShares = *c.Shares
		}
		l.CpusetCPUs, l.CpusetMems = c.Cpus, c.Mems
	}
	if r.Pids != nil {
		l.Pids = positive(r.Pids.Limit)
	}
	if b := r.BlockIO; b != nil {
		l.IO = ioFrom(b)
	}
	for _, h := range r.HugepageLimits {
		if l.Hugepages == nil {
			l.Hugepages = map[string]int64{}
		}
		l.Hugepages[h.Pagesize] = int64(min(h.Limit, math.MaxInt64))
	}
	if n, err := strconv.ParseInt(r.Unified["memory.high"], 10, 64); err == nil {
		l.MemoryHigh = n
	}
	return l
}

func ioFrom(b *specs.LinuxBlockIO) IO {
	var i IO
	if b.Weight != nil {
		i.Weight = *b.Weight
	}
	rates := func(list []specs.LinuxThrottleDevice) (out []Rate) {
		for _, d := range list {
			out = append(out, Rate{Device: strconv.FormatInt(d.Major, 10) + ":" + strconv.FormatInt(d.Minor, 10), Rate: d.Rate})
		}
		return out
	}
	i.ReadBytes, i.WriteBytes = rates(b.ThrottleReadBpsDevice), rates(b.ThrottleWriteBpsDevice)
	i.Reads, i.Writes = rates(b.ThrottleReadIOPSDevice), rates(b.ThrottleWriteIOPSDevice)
	return i
}

func positive(n *int64) int64 {
	if n == nil {
		return 0
	}
	return max(*n, 0)
}

// SwapAccounting tells whether the host can limit swap. Where it cannot (v1
// booted without swapaccount=1), asking for it would fail the start, so the
// keeper takes Memory.Swap out of the resources and says so.
func SwapAccounting() (bool, error) {
	h, err := theHost()
	if err != nil || h.mode == Unified {
		return err == nil, err
	}
	return h.swapAccounting(), nil
}

func (h *host) swapAccounting() bool {
	if h.mode == Unified {
		return true
	}
	_, err := os.Stat(h.file("memory", "/", "memory.memsw.limit_in_bytes"))
	return err == nil
}
