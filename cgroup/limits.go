package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Limits is how much a group may use, and what share it has of what is scarce.
// Zero means no limit, and no share but everybody's.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes; swap is not added to it
	CPUs   float64 `json:"cpus,omitempty"`   // 1.5 is one and a half cores
	Pids   int64   `json:"pids,omitempty"`

	MemoryHigh        int64 `json:"memory_high,omitempty"`        // where the kernel begins to slow it down; v2
	MemoryReservation int64 `json:"memory_reservation,omitempty"` // what reclaim leaves alone as long as it can
	Swap              int64 `json:"swap,omitempty"`               // bytes beside Memory; 0: none if Memory is limited; -1: no limit

	CPUReservation float64 `json:"cpu_reservation,omitempty"` // cores; its share of the processors, unless CPUShares says
	CPUShares      uint64  `json:"cpu_shares,omitempty"`      // of contended processors; others have 1024
	CpusetCPUs     string  `json:"cpuset_cpus,omitempty"`     // "0-3,5"
	CpusetMems     string  `json:"cpuset_mems,omitempty"`

	IO        IO               `json:"io,omitzero"`
	Hugepages map[string]int64 `json:"hugepages,omitempty"` // bytes by the kernel's name of a page size, "2MB"
}

const (
	// cpuPeriod is the kernel's default: 100 ms, in microseconds.
	cpuPeriod = 100_000
	// minCPUs gives the least quota the kernel takes, 1 ms a period.
	minCPUs = 0.01
	// minMemory is what a container needs to start: below it the kernel kills
	// its first process before the program runs.
	minMemory = 6 << 20

	minShares, defaultShares, maxShares = 2, 1024, 1 << 18 // as the kernel's, of v1
)

// Equal tells whether two groups may use the same.
func (l Limits) Equal(o Limits) bool {
	same := l.IO.equal(o.IO) && maps.Equal(l.Hugepages, o.Hugepages)
	return same && l.Memory == o.Memory && l.CPUs == o.CPUs && l.Pids == o.Pids &&
		l.MemoryHigh == o.MemoryHigh && l.MemoryReservation == o.MemoryReservation && l.Swap == o.Swap &&
		l.CPUReservation == o.CPUReservation && l.CPUShares == o.CPUShares &&
		l.CpusetCPUs == o.CpusetCPUs && l.CpusetMems == o.CpusetMems
}

// Validate tells what is wrong with the limits on any host.
func (l Limits) Validate() error {
	for _, check := range []func() error{l.validateMemory, l.validateCPU, l.IO.validate, l.validateHugepages} {
		if err := check(); err != nil {
			return err
		}
	}
	if l.Pids < 0 {
		return fmt.Errorf("limit pids: %d is negative", l.Pids)
	}
	return nil
}

func (l Limits) validateMemory() error {
	switch {
	case l.Memory < 0:
		return fmt.Errorf("limit memory: %s is negative", sizeText(l.Memory))
	case l.Memory > 0 && l.Memory < minMemory:
		return fmt.Errorf("limit memory: %s is too little to start a process; at least 6MiB", sizeText(l.Memory))
	case l.MemoryHigh < 0:
		return fmt.Errorf("limit memory_high: %s is negative", sizeText(l.MemoryHigh))
	case l.MemoryHigh > 0 && l.MemoryHigh < minMemory:
		return fmt.Errorf("limit memory_high: %s is too little to start a process; at least 6MiB", sizeText(l.MemoryHigh))
	case l.Memory > 0 && l.MemoryHigh > l.Memory:
		return fmt.Errorf("limit memory_high: %s is more than the memory limit of %s: it would do nothing", sizeText(l.MemoryHigh), sizeText(l.Memory))
	case l.MemoryReservation < 0:
		return fmt.Errorf("reservation memory: %s is negative", sizeText(l.MemoryReservation))
	case l.Memory > 0 && l.MemoryReservation > l.Memory:
		return fmt.Errorf("reservation memory: %s is more than the memory limit of %s", sizeText(l.MemoryReservation), sizeText(l.Memory))
	case l.MemoryHigh > 0 && l.MemoryReservation > l.MemoryHigh:
		return fmt.Errorf("reservation memory: %s is more than memory_high, %s", sizeText(l.MemoryReservation), sizeText(l.MemoryHigh))
	case l.Swap < -1:
		return fmt.Errorf("limit swap: %s is negative", sizeText(l.Swap))
	case l.Swap > 0 && l.Memory == 0:
		return fmt.Errorf("limit swap: %s without a limit of memory: it is what may be used beside that", sizeText(l.Swap))
	case l.Swap > 0 && l.Memory > math.MaxInt64-l.Swap:
		return fmt.Errorf("limit swap: %s is too much", sizeText(l.Swap))
	}
	return nil
}

func (l Limits) validateCPU() error {
	for _, c := range []struct {
		name  string
		value float64
	}{{"limit", l.CPUs}, {"reservation", l.CPUReservation}} {
		switch {
		case math.IsNaN(c.value) || math.IsInf(c.value, 0) || c.value > 1e6:
			return fmt.Errorf("%s cpus: %v is not a number of cores", c.name, c.value)
		case c.value < 0:
			return fmt.Errorf("%s cpus: %v is negative", c.name, c.value)
		case c.value > 0 && c.value < minCPUs && c.name == "limit":
			return fmt.Errorf("limit cpus: %v is less than the kernel can give; at least %v", c.value, minCPUs)
		}
	}
	if l.CPUs > 0 && l.CPUReservation > l.CPUs {
		return fmt.Errorf("reservation cpus: %v is more than the limit of %v", l.CPUReservation, l.CPUs)
	}
	if l.CPUShares != 0 && (l.CPUShares < minShares || l.CPUShares > maxShares) {
		return fmt.Errorf("cpu_shares: %d is not between %d and %d", l.CPUShares, minShares, maxShares)
	}
	cpus, err := ParseSet(l.CpusetCPUs)
	if err != nil {
		return fmt.Errorf("cpuset: %w", err)
	}
	if l.CpusetCPUs != "" && l.CPUs > float64(len(cpus)) {
		return fmt.Errorf("limit cpus: %v is more than the cpuset %s has", l.CPUs, l.CpusetCPUs)
	}
	if _, err := ParseSet(l.CpusetMems); err != nil {
		return fmt.Errorf("cpuset_mems: %w", err)
	}
	return nil
}

func (l Limits) validateHugepages() error {
	for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
		bytes, err := PageSize(size)
		if err != nil {
			return fmt.Errorf("limit hugepages: %w", err)
		}
		if n := l.Hugepages[size]; n < 0 || n%bytes != 0 {
			return fmt.Errorf("limit hugepages %s: %d bytes is not a number of such pages", size, n)
		}
	}
	return nil
}

// shares are the group's of contended processors; 0: as everybody.
func (l Limits) shares() uint64 {
	if l.CPUShares != 0 || l.CPUReservation == 0 {
		return l.CPUShares
	}
	return uint64(min(max(math.Round(l.CPUReservation*defaultShares), minShares), maxShares))
}

// swapLimit is the limit of swap alone, -1 for none.
func (l Limits) swapLimit() int64 {
	if l.Memory == 0 {
		return -1
	}
	return l.Swap
}
