package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/types"
	"github.com/sirupsen/logrus"
)

func (o *oci) events(args []string) error {
	fs := newOCIFlags("events")
	interval := fs.Duration("interval", 5*time.Second, "time between two looks")
	once := fs.Bool("stats", false, "show the use of resources once")
	words, err := ociParse(fs, args, false, 1, 1)
	if err != nil {
		return err
	}
	lc, err := o.find(words[0])
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return errors.New("--interval: it must be greater than 0")
	}
	st, err := lc.Status()
	if err != nil {
		return err
	}
	if st == libcontainer.Stopped {
		return fmt.Errorf("container %s: %w", lc.ID(), libcontainer.ErrNotRunning)
	}
	out := json.NewEncoder(os.Stdout)
	if *once {
		return printStats(out, lc)
	}
	return follow(out, lc, *interval)
}

// follow prints until the container's group is gone.
func follow(out *json.Encoder, lc *libcontainer.Container, interval time.Duration) error {
	kills, err := lc.NotifyOOM()
	if err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case _, more := <-kills:
			if !more {
				return nil
			}
			err = out.Encode(types.Event{Type: "oom", ID: lc.ID()})
		case <-tick.C:
			err = printStats(out, lc)
		}
		if err != nil {
			logrus.Error(err)
		}
	}
}

func printStats(out *json.Encoder, lc *libcontainer.Container) error {
	s, err := lc.Stats()
	if err != nil {
		return err
	}
	return out.Encode(types.Event{Type: "stats", ID: lc.ID(), Data: ociStats(s)})
}

// ociStats puts libcontainer's figures into the shape that readers of runc's know.
func ociStats(from *libcontainer.Stats) *types.Stats {
	c := from.CgroupStats
	if c == nil {
		return nil
	}
	s := &types.Stats{
		CPUSet:            types.CPUSet(c.CPUSetStats),
		Pids:              types.Pids{Current: c.PidsStats.Current, Limit: c.PidsStats.Limit},
		Hugetlb:           map[string]types.Hugetlb{},
		NetworkInterfaces: from.Interfaces,
	}
	used, slowed := c.CpuStats.CpuUsage, c.CpuStats.ThrottlingData
	s.CPU = types.Cpu{
		Usage: types.CpuUsage{
			Total: used.TotalUsage, Kernel: used.UsageInKernelmode, User: used.UsageInUsermode,
			Percpu: used.PercpuUsage, PercpuKernel: used.PercpuUsageInKernelmode, PercpuUser: used.PercpuUsageInUsermode,
		},
		Throttling: types.Throttling{Periods: slowed.Periods, ThrottledPeriods: slowed.ThrottledPeriods, ThrottledTime: slowed.ThrottledTime},
		PSI:        c.CpuStats.PSI,
	}
	m := c.MemoryStats
	s.Memory = types.Memory{
		Cache: m.Cache, Usage: memoryEntry(m.Usage), Swap: memoryEntry(m.SwapUsage),
		Kernel: memoryEntry(m.KernelUsage), KernelTCP: memoryEntry(m.KernelTCPUsage), Raw: m.Stats, PSI: m.PSI,
	}
	b := c.BlkioStats
	s.Blkio = types.Blkio{
		IoServiceBytesRecursive: blockEntries(b.IoServiceBytesRecursive), IoServicedRecursive: blockEntries(b.IoServicedRecursive),
		IoQueuedRecursive: blockEntries(b.IoQueuedRecursive), IoServiceTimeRecursive: blockEntries(b.IoServiceTimeRecursive),
		IoWaitTimeRecursive: blockEntries(b.IoWaitTimeRecursive), IoMergedRecursive: blockEntries(b.IoMergedRecursive),
		IoTimeRecursive: blockEntries(b.IoTimeRecursive), SectorsRecursive: blockEntries(b.SectorsRecursive), PSI: b.PSI,
	}
	for size, h := range c.HugetlbStats {
		s.Hugetlb[size] = types.Hugetlb{Usage: h.Usage, Max: h.MaxUsage, Failcnt: h.Failcnt}
	}
	return s
}

func memoryEntry(m cgroups.MemoryData) types.MemoryEntry {
	return types.MemoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt}
}

func blockEntries(list []cgroups.BlkioStatEntry) []types.BlkioEntry {
	out := make([]types.BlkioEntry, len(list))
	for i, e := range list {
		out[i] = types.BlkioEntry(e)
	}
	return out
}
