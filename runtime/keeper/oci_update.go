package keeper

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (o *oci) update(args []string) error {
	fs := newOCIFlags("update")
	var from string
	ociAlias(fs, &from, "file of limits, - for stdin; other flags do not count then", "resources", "r")
	r := newLimits()
	limitFlags(fs, r)
	words, err := ociParse(fs, args, false, 1, 1)
	if err != nil {
		return err
	}
	lc, err := o.find(words[0])
	if err != nil {
		return err
	}
	if from != "" {
		r = newLimits()
		if err := readLimits(from, r); err != nil {
			return fmt.Errorf("update: %w", err)
		}
	}
	if err := changeLimits(lc, r); err != nil {
		return fmt.Errorf("update %s: %w", lc.ID(), err)
	}
	return nil
}

func newLimits() *specs.LinuxResources {
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, BlockIO: &specs.LinuxBlockIO{}, Pids: &specs.LinuxPids{},
	}
}

func readLimits(from string, r *specs.LinuxResources) error {
	var b []byte
	var err error
	if from == "-" {
		b, err = io.ReadAll(os.Stdin)
	} else {
		b, err = os.ReadFile(from)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, r); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	for _, empty := range []bool{r.Memory == nil, r.CPU == nil, r.BlockIO == nil, r.Pids == nil} {
		if empty {
			return fmt.Errorf("%s: memory, cpu, blockIO and pids may be left out, but not null", from)
		}
	}
	return nil
}

// limitFlags are runc's, with its units: bytes, microseconds.
func limitFlags(fs *flag.FlagSet, r *specs.LinuxResources) {
	number := func(name string, set func(int64)) {
		fs.Func(name, "a number", func(s string) error {
			n, err := strconv.ParseInt(s, 10, 64)
			if err == nil {
				set(n)
			}
			return err
		})
	}
	size := func(name string, p **int64) {
		fs.Func(name, "bytes, or with k, m, g, t; -1 for no limit", func(s string) error {
			n, err := parseOCISize(s)
			if err == nil {
				*p = &n
			}
			return err
		})
	}
	positive := func(name string, p **uint64) {
		fs.Func(name, "a number", func(s string) error {
			n, err := strconv.ParseUint(s, 10, 64)
			if err == nil {
				*p = &n
			}
			return err
		})
	}
	fs.StringVar(&r.CPU.Cpus, "cpuset-cpus", "", "processors to use")
	fs.StringVar(&r.CPU.Mems, "cpuset-mems", "", "memory nodes to use")
	number("blkio-weight", func(n int64) { w := uint16(n); r.BlockIO.Weight = &w })
	number("cpu-quota", func(n int64) { r.CPU.Quota = &n })
	number("cpu-rt-runtime", func(n int64) { r.CPU.RealtimeRuntime = &n })
	number("cpu-idle", func(n int64) { r.CPU.Idle = &n })
	number("pids-limit", func(n int64) { r.Pids.Limit = &n })
	positive("cpu-period", &r.CPU.Period)
	positive("cpu-burst", &r.CPU.Burst)
	positive("cpu-share", &r.CPU.Shares)
	positive("cpu-rt-period", &r.CPU.RealtimePeriod)
	size("memory", &r.Memory.Limit)
	size("memory-swap", &r.Memory.Swap)
	size("memory-reservation", &r.Memory.Reservation)
	for _, gone := range []string{"kernel-memory", "kernel-memory-tcp"} {
		fs.String(gone, "", "without effect: kernels no longer have it")
	}
}

// parseOCISize knows 1048576, 1024k, 1m, 1mb, 1MiB and -1.
func parseOCISize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	t := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "b"), "i")
	unit := int64(1)
	if i := strings.IndexByte("kmgtp", last(t)); i >= 0 {
		t, unit = t[:len(t)-1], 1<<(10*(i+1))
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(t), 64)
	if err != nil || n < 0 || n*float64(unit) >= 1<<63 {
		return 0, fmt.Errorf("size %q is not known", s)
	}
	return int64(n * float64(unit)), nil
}

func last(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// changeLimits gives a container other limits. What r does not name stays.
func changeLimits(lc *libcontainer.Container, r *specs.LinuxResources) error {
	conf := lc.Config()
	res := conf.Cgroups.Resources
	if m := r.Memory; m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		m.Swap = new(int64) // a limit on swap alone cannot stay
	}
	if r.CPU.Idle != nil && r.CPU.Shares == nil {
		r.CPU.Shares = new(uint64) // an idle group has no weight to set
	}
	changeCPU(res, r.CPU)
	set(&res.Memory, r.Memory.Limit)
	set(&res.MemoryReservation, r.Memory.Reservation)
	set(&res.MemorySwap, r.Memory.Swap)
	set(&res.MemoryCheckBeforeUpdate, r.Memory.CheckBeforeUpdate)
	set(&res.BlkioWeight, r.BlockIO.Weight)
	set(&res.BlkioLeafWeight, r.BlockIO.LeafWeight)
	for _, d := range r.BlockIO.WeightDevice {
		res.BlkioWeightDevice = changeWeight(res.BlkioWeightDevice, d)
	}
	for _, t := range []struct {
		have *[]*cgroups.ThrottleDevice
		want []specs.LinuxThrottleDevice
	}{
		{&res.BlkioThrottleReadBpsDevice, r.BlockIO.ThrottleReadBpsDevice},
		{&res.BlkioThrottleWriteBpsDevice, r.BlockIO.ThrottleWriteBpsDevice},
		{&res.BlkioThrottleReadIOPSDevice, r.BlockIO.ThrottleReadIOPSDevice},
		{&res.BlkioThrottleWriteIOPSDevice, r.BlockIO.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.want {
			*t.have = changeThrottle(*t.have, d)
		}
	}
	res.PidsLimit, res.Unified = r.Pids.Limit, r.Unified
	res.SkipDevices = true // somebody may have allowed a further one meanwhile
	return lc.Set(conf)
}

func set[T any](p *T, v *T) {
	if v != nil {
		*p = *v
	}
}

// changeCPU: quota and period may come one by one, and the other one stays. The rest is written as it
// comes, where nothing means what is set already.
func changeCPU(res *cgroups.Resources, c *specs.LinuxCPU) {
	var period uint64
	var quota int64
	set(&period, c.Period)
	set(&quota, c.Quota)
	if period != 0 || quota == 0 {
		res.CpuPeriod = period
	}
	if quota != 0 || period == 0 {
		res.CpuQuota = quota
	}
	if c.Shares != nil {
		res.CpuShares = *c.Shares
		res.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*c.Shares)
	}
	set(&res.CpuRtPeriod, c.RealtimePeriod)
	set(&res.CpuRtRuntime, c.RealtimeRuntime)
	res.CpuBurst, res.CPUIdle = c.Burst, c.Idle
	res.CpusetCpus, res.CpusetMems = c.Cpus, c.Mems
}

func changeWeight(list []*cgroups.WeightDevice, d specs.LinuxWeightDevice) []*cgroups.WeightDevice {
	for i := len(list) - 1; i >= 0; i-- { // of several the last one counts
		if list[i].Major == d.Major && list[i].Minor == d.Minor {
			set(&list[i].Weight, d.Weight)
			set(&list[i].LeafWeight, d.LeafWeight)
			return list
		}
	}
	var weight, leaf uint16
	set(&weight, d.Weight)
	set(&leaf, d.LeafWeight)
	return append(list, cgroups.NewWeightDevice(d.Major, d.Minor, weight, leaf))
}

func changeThrottle(list []*cgroups.ThrottleDevice, d specs.LinuxThrottleDevice) []*cgroups.ThrottleDevice {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Major == d.Major && list[i].Minor == d.Minor {
			list[i].Rate = d.Rate
			return list
		}
	}
	return append(list, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
}
