package cgroup

import (
	"context"
	"errors"
)

// Mode is how the host lays out its control groups.
type Mode int

// Unified is cgroup v2 alone; Legacy is v1 controllers, with or without an
// empty v2 hierarchy beside them ("hybrid").
const (
	Unified Mode = iota
	Legacy
)

// Detect tells the host's mode.
func Detect() (Mode, error) { return 0, errors.ErrUnsupported }

// Limits is how much a group may use. Zero means no limit.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes; swap is not added to it
	CPUs   float64 `json:"cpus,omitempty"`   // 1.5 is one and a half cores
	Pids   int64   `json:"pids,omitempty"`
}

// Stats is how much a group uses.
type Stats struct {
	MemoryCurrent int64  `json:"memory_current"` // bytes, page cache included
	MemoryWorking int64  `json:"memory_working"` // current less inactive file pages
	MemoryPeak    int64  `json:"memory_peak"`
	MemoryLimit   int64  `json:"memory_limit"` // 0: none
	CPUUsec       uint64 `json:"cpu_usec"`     // user and system
	ThrottledUsec uint64 `json:"throttled_usec"`
	Pids          int64  `json:"pids"`
	PidsLimit     int64  `json:"pids_limit"`
	OOMKills      uint64 `json:"oom_kills"`
}

// Group is one control group, named by its path below every hierarchy's root,
// "/wherry/web.1-7f3k/app".
type Group struct{ Path string }

// Stats reads the group.
func (g Group) Stats() (Stats, error) { return Stats{}, errors.ErrUnsupported }

// OOMKills is how many processes the kernel killed in it for memory.
func (g Group) OOMKills() (uint64, error) { return 0, errors.ErrUnsupported }

// Procs lists the group's processes, those of groups below it included.
func (g Group) Procs() ([]int, error) { return nil, errors.ErrUnsupported }

// Kill ends every process in it: cgroup.kill where there is one, else freeze,
// kill and thaw until none is left.
func (g Group) Kill(ctx context.Context) error { return errors.ErrUnsupported }

// Remove deletes the group and those below it, in every hierarchy. A group
// that is not there is no error.
func (g Group) Remove(ctx context.Context) error { return errors.ErrUnsupported }
