package cgroup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Limits is how much a group may use. Zero means no limit.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes; swap is not added to it
	CPUs   float64 `json:"cpus,omitempty"`   // 1.5 is one and a half cores
	Pids   int64   `json:"pids,omitempty"`
}

const (
	// cpuPeriod is the kernel's default: 100 ms, in microseconds.
	cpuPeriod = 100_000
	// minCPUs gives the least quota the kernel takes, 1 ms a period.
	minCPUs = 0.01
	// minMemory is what a container needs to start: below it the kernel kills
	// its first process before the program runs.
	minMemory = 6 << 20
)

// Validate tells what is wrong with the limits on any host.
func (l Limits) Validate() error {
	switch {
	case l.Memory < 0:
		return fmt.Errorf("limit memory: %d bytes is negative", l.Memory)
	case l.Memory > 0 && l.Memory < minMemory:
		return fmt.Errorf("limit memory: %d bytes is too little to start a process; at least 6MiB", l.Memory)
	case math.IsNaN(l.CPUs) || math.IsInf(l.CPUs, 0) || l.CPUs > 1e6:
		return fmt.Errorf("limit cpus: %v is not a number of cores", l.CPUs)
	case l.CPUs < 0:
		return fmt.Errorf("limit cpus: %v is negative", l.CPUs)
	case l.CPUs > 0 && l.CPUs < minCPUs:
		return fmt.Errorf("limit cpus: %v is less than the kernel can give; at least %v", l.CPUs, minCPUs)
	case l.Pids < 0:
		return fmt.Errorf("limit pids: %d is negative", l.Pids)
	}
	return nil
}

// Check tells what is wrong with the limits on this host, for groups below
// parent: a controller that is not there is named.
func (l Limits) Check(parent Group) error {
	if err := l.Validate(); err != nil {
		return err
	}
	h, err := parent.host("look up controllers")
	if err != nil {
		return err
	}
	have, err := h.controllers(parent.Path)
	if err != nil {
		return parent.wrap("look up controllers", err)
	}
	return l.checkAgainst(have, h.mode)
}

// limitNames are the limits by the controller that each of them needs.
var limitNames = map[string]string{"memory": "memory", "cpu": "cpus", "pids": "pids"}

// controllers that the limits need.
func (l Limits) controllers() []string {
	var need []string
	if l.Memory > 0 {
		need = append(need, "memory")
	}
	if l.CPUs > 0 {
		need = append(need, "cpu")
	}
	if l.Pids > 0 {
		need = append(need, "pids")
	}
	return need
}

func (l Limits) checkAgainst(have []string, mode Mode) error {
	for _, c := range l.controllers() {
		if !slices.Contains(have, c) {
			return fmt.Errorf("limit %s: the %s controller %q is not available to us", limitNames[c], mode, c)
		}
	}
	return nil
}

// controllers that can limit groups below parent.
func (h *host) controllers(parent string) ([]string, error) {
	if h.mode == Legacy {
		var have []string
		for _, c := range v1Controllers {
			if h.v1[c] != "" {
				have = append(have, c)
			}
		}
		return have, nil
	}
	// The file of a group that is not there yet: its nearest ancestor's.
	for dir := filepath.Join(h.unified, parent); ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err == nil {
			return strings.Fields(string(b)), nil
		}
		if !gone(err) || dir == h.unified || len(dir) <= len(h.unified) {
			return nil, err
		}
	}
}

// Resources are the limits in the words of the OCI runtime specification. Swap
// is memory and swap together there, so equal numbers mean no swap; the file
// system drivers of v2 turn that into memory.swap.max=0. A v1 host without swap
// accounting has no file for it: see [SwapAccounting].
func (l Limits) Resources() *specs.LinuxResources {
	r := &specs.LinuxResources{}
	if l.Memory > 0 {
		memory, swap := l.Memory, l.Memory
		r.Memory = &specs.LinuxMemory{Limit: &memory, Swap: &swap}
	}
	if l.CPUs > 0 {
		period := uint64(cpuPeriod)
		quota := int64(math.Round(l.CPUs * cpuPeriod))
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if l.Pids > 0 {
		pids := l.Pids
		r.Pids = &specs.LinuxPids{Limit: &pids}
	}
	return r
}

// SwapAccounting tells whether the host can limit swap. Where it cannot (v1
// booted without swapaccount=1), asking for it would fail the start, so the
// keeper takes Memory.Swap out of the resources and says so.
func SwapAccounting() (bool, error) {
	h, err := theHost()
	if err != nil || h.mode == Unified {
		return err == nil, err
	}
	_, err = os.Stat(h.file("memory", "/", "memory.memsw.limit_in_bytes"))
	return err == nil, nil
}
