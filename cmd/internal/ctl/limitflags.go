package ctl

import (
	"github.com/spf13/pflag"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// addLimitFlags adds those of unit.LimitFlags that run has not had for ever.
func addLimitFlags(fl *pflag.FlagSet, f *unit.LimitFlags) {
	fl.StringVar(&f.MemoryReservation, "memory-reservation", "", "memory that is taken from it last")
	fl.StringVar(&f.MemoryHigh, "memory-high", "", "where the kernel begins to slow it down (cgroup v2)")
	fl.StringVar(&f.MemorySwap, "memory-swap", "", "memory and swap together; -1 for no limit; without it, no swap")
	fl.StringVar(&f.CPUReservation, "cpu-reservation", "", "its share of contended processors, in processors")
	fl.StringVarP(&f.CPUShares, "cpu-shares", "c", "", "its weight where processors are contended, others have 1024")
	fl.StringVar(&f.CpusetCPUs, "cpuset-cpus", "", "processors it may run on, such as 0-3,5, or none for all")
	fl.StringVar(&f.CpusetMems, "cpuset-mems", "", "memory nodes it may use")
	fl.StringVar(&f.IOWeight, "blkio-weight", "", "its share of contended devices, 10 to 1000")
	fl.StringArrayVar(&f.ReadBps, "device-read-bps", nil, "`DEVICE:RATE`: bytes read a second, such as /dev/sda:10m")
	fl.StringArrayVar(&f.WriteBps, "device-write-bps", nil, "`DEVICE:RATE`: bytes written a second")
	fl.StringArrayVar(&f.ReadIOps, "device-read-iops", nil, "`DEVICE:RATE`: reads a second")
	fl.StringArrayVar(&f.WriteIOps, "device-write-iops", nil, "`DEVICE:RATE`: writes a second")
}
