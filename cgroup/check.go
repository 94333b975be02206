package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrBeyondHost marks what another host could give and this one has too little of:
// processors, memory nodes.
var ErrBeyondHost = errors.New("this host has not got it")

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
	if err := l.checkAgainst(have, h.mode); err != nil {
		return h.remedy(err, parent.Path)
	}
	if err := l.checkFiles(h, parent.Path); err != nil {
		return err
	}
	return l.checkSets(h, parent.Path)
}

// need is a controller that a limit needs, with the limit's name for people.
type need struct{ controller, name string }

// needs of the limits, in a fixed order. v1's name of the controller io is blkio.
func (l Limits) needs(mode Mode) []need {
	var list []need
	add := func(wanted bool, controller, name string) {
		if wanted {
			list = append(list, need{controller, name})
		}
	}
	add(l.Memory > 0, "memory", "resources.limits.memory")
	add(l.MemoryHigh > 0, "memory", "resources.limits.memory_high")
	add(l.MemoryReservation > 0, "memory", "resources.reservations.memory")
	add(l.CPUs > 0, "cpu", "resources.limits.cpus")
	add(l.CPUReservation > 0, "cpu", "resources.reservations.cpus")
	add(l.CPUShares > 0, "cpu", "cpu_shares")
	add(l.Pids > 0, "pids", "resources.limits.pids")
	add(l.CpusetCPUs != "", "cpuset", "cpuset")
	add(l.CpusetMems != "", "cpuset", "cpuset_mems")
	io := "io"
	if mode == Legacy {
		io = "blkio"
	}
	add(l.IO.Weight != 0, io, "blkio_config.weight")
	for _, r := range l.IO.rates() {
		add(len(r.list) > 0, io, "blkio_config."+r.key)
	}
	for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
		add(true, "hugetlb", "resources.limits.hugepages "+size)
	}
	return list
}

// controllers that the limits need.
func (l Limits) controllers() []string {
	var list []string
	for _, n := range l.needs(Unified) {
		if !slices.Contains(list, n.controller) {
			list = append(list, n.controller)
		}
	}
	return list
}

func (l Limits) checkAgainst(have []string, mode Mode) error {
	for _, n := range l.needs(mode) {
		if !slices.Contains(have, n.controller) {
			return &missing{need: n, mode: mode}
		}
	}
	if mode == Legacy && l.MemoryHigh > 0 {
		return fmt.Errorf("resources.limits.memory_high: the %s controller %q has no such limit: it needs cgroup v2", mode, "memory")
	}
	return nil
}

// checkFiles looks for files that kernels have or have not, by how they were
// built and booted. Where the parent is not there yet, the start will tell.
func (l Limits) checkFiles(h *host, parent string) error {
	if l.Swap > 0 && !h.swapAccounting() {
		return fmt.Errorf("resources.limits.swap: the %s controller %q does not count swap: boot the host with swapaccount=1", h.mode, "memory")
	}
	if l.IO.Weight != 0 {
		if dir := h.file(h.ioController(), parent, ""); isDir(dir) && h.ioWeightFile(parent) == "" {
			return fmt.Errorf("blkio_config.weight: the %s controller %q has no weights: the kernel has neither the scheduler BFQ nor iocost: leave it out, or boot a kernel built with CONFIG_IOSCHED_BFQ or CONFIG_BLK_CGROUP_IOCOST",
				h.mode, h.ioController())
		}
	}
	for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
		if dir := h.file("hugetlb", parent, ""); isDir(dir) && !exists(h.file("hugetlb", parent, h.hugepageFile(size))) {
			return fmt.Errorf("resources.limits.hugepages %s: the host has no pages of that size", size)
		}
	}
	return nil
}

func (h *host) ioController() string {
	if h.mode == Legacy {
		return "blkio"
	}
	return "io"
}

// ioWeightFile is the group's file for its share of a device; empty if there is none.
func (h *host) ioWeightFile(group string) string {
	names := []string{"io.bfq.weight", "io.weight"} // the order of libcontainer's driver
	if h.mode == Legacy {
		names = []string{"blkio.weight", "blkio.bfq.weight"}
	}
	for _, name := range names {
		if exists(h.file(h.ioController(), group, name)) {
			return name
		}
	}
	return ""
}

func (h *host) hugepageFile(size string) string {
	if h.mode == Legacy {
		return "hugetlb." + size + ".limit_in_bytes"
	}
	return "hugetlb." + size + ".max"
}

// checkSets holds the sets against what the parent, or the host, has.
func (l Limits) checkSets(h *host, parent string) error {
	for _, c := range []struct{ name, text, v2, v1, online string }{
		{"cpuset", l.CpusetCPUs, "cpuset.cpus.effective", "cpuset.effective_cpus", "/sys/devices/system/cpu/online"},
		{"cpuset_mems", l.CpusetMems, "cpuset.mems.effective", "cpuset.effective_mems", "/sys/devices/system/node/online"},
	} {
		if c.text == "" {
			continue
		}
		want, err := ParseSet(c.text)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		have, err := h.available(parent, c.v2, c.v1, c.online)
		if err != nil {
			continue // the kernel will tell
		}
		if missing := without(want, have); len(missing) > 0 {
			return fmt.Errorf("%s: %s: %w: there is %s", c.name, formatSet(missing), ErrBeyondHost, formatSet(have))
		}
	}
	return nil
}

// available is the set of the nearest group that has one.
func (h *host) available(parent, v2, v1, online string) ([]int, error) {
	name := v2
	if h.mode == Legacy {
		name = v1
	}
	for group := parent; ; group = filepath.Dir(group) {
		if file := h.file("cpuset", group, name); file != "" {
			if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) != "" {
				return ParseSet(strings.TrimSpace(string(b)))
			}
		}
		if group == "/" {
			break
		}
	}
	b, err := os.ReadFile(online)
	if err != nil {
		return nil, err
	}
	return ParseSet(strings.TrimSpace(string(b)))
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return file != "" && err == nil
}

func isDir(dir string) bool {
	st, err := os.Stat(dir)
	return dir != "" && err == nil && st.IsDir()
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
