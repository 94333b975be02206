package cgroup

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// setting is one value in a file of a group.
type setting struct {
	name       string // for people
	controller string
	file       string
	value      string
	// device is whose line it is, in a file with a line for each.
	device string
	// lifted says that the value is the kernel's own: where there is no file,
	// there is no limit either.
	lifted bool
}

// settings are the limits as files, those included that lift what is not limited.
func (h *host) settings(l Limits, group string) []setting {
	if h.mode == Unified {
		return h.unifiedSettings(l, group)
	}
	return h.legacySettings(l, group)
}

// amount is a number, or the word for no limit.
func amount(n int64, none string) string {
	if n <= 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

func quota(cpus float64, none string) string {
	if cpus <= 0 {
		return none
	}
	return strconv.FormatInt(int64(math.Round(cpus*cpuPeriod)), 10)
}

func (h *host) unifiedSettings(l Limits, group string) []setting {
	swap := "max"
	if n := l.swapLimit(); n >= 0 {
		swap = strconv.FormatInt(n, 10)
	}
	list := []setting{
		{name: "limit memory", controller: "memory", file: "memory.max", value: amount(l.Memory, "max"), lifted: l.Memory == 0},
		// Without a file no swap is used: the kernel knows none.
		{name: "limit swap", controller: "memory", file: "memory.swap.max", value: swap, lifted: l.Swap <= 0},
		{name: "limit memory_high", controller: "memory", file: "memory.high", value: amount(l.MemoryHigh, "max"), lifted: l.MemoryHigh == 0},
		{name: "reservation memory", controller: "memory", file: "memory.low", value: amount(l.MemoryReservation, "0"), lifted: l.MemoryReservation == 0},
		{name: "limit cpus", controller: "cpu", file: "cpu.max", value: quota(l.CPUs, "max") + " " + strconv.Itoa(cpuPeriod), lifted: l.CPUs == 0},
		{name: "cpu_shares", controller: "cpu", file: "cpu.weight", value: strconv.FormatUint(weightOf(l.shares()), 10), lifted: l.shares() == 0},
		{name: "cpuset", controller: "cpuset", file: "cpuset.cpus", value: h.orAll(l.CpusetCPUs, group, "cpuset.cpus"), lifted: l.CpusetCPUs == ""},
		{name: "cpuset_mems", controller: "cpuset", file: "cpuset.mems", value: h.orAll(l.CpusetMems, group, "cpuset.mems"), lifted: l.CpusetMems == ""},
		{name: "limit pids", controller: "pids", file: "pids.max", value: amount(l.Pids, "max"), lifted: l.Pids == 0},
	}
	list = append(list, h.ioWeight(l, group)...)
	for _, device := range h.devices(l, group, "io.max") {
		value := device
		for _, r := range l.IO.rates() {
			value += " " + r.v2 + "=" + amount(rateOf(r.list, device), "max")
		}
		list = append(list, setting{name: "blkio_config", controller: "io", file: "io.max", value: value, device: device,
			lifted: !strings.ContainsAny(strings.TrimPrefix(value, device), "0123456789")})
	}
	return append(list, h.hugepages(l, group, "max")...)
}

func (h *host) legacySettings(l Limits, group string) []setting {
	both := "-1"
	if l.Memory > 0 && l.Swap >= 0 {
		both = strconv.FormatInt(l.Memory+l.Swap, 10)
	}
	shares := l.shares()
	list := []setting{
		{name: "limit memory", controller: "memory", file: "memory.limit_in_bytes", value: amount(l.Memory, "-1"), lifted: l.Memory == 0},
		// Where swap is not counted, nothing can be said of it: see SwapAccounting.
		{name: "limit swap", controller: "memory", file: "memory.memsw.limit_in_bytes", value: both, lifted: l.Swap <= 0},
		{name: "reservation memory", controller: "memory", file: "memory.soft_limit_in_bytes", value: amount(l.MemoryReservation, "-1"), lifted: l.MemoryReservation == 0},
		{name: "limit cpus", controller: "cpu", file: "cpu.cfs_period_us", value: strconv.Itoa(cpuPeriod), lifted: l.CPUs == 0},
		{name: "limit cpus", controller: "cpu", file: "cpu.cfs_quota_us", value: quota(l.CPUs, "-1"), lifted: l.CPUs == 0},
		{name: "cpu_shares", controller: "cpu", file: "cpu.shares", value: amount(int64(shares), strconv.Itoa(defaultShares)), lifted: shares == 0},
		{name: "cpuset", controller: "cpuset", file: "cpuset.cpus", value: h.orParents(l.CpusetCPUs, group, "cpuset.cpus"), lifted: l.CpusetCPUs == ""},
		{name: "cpuset_mems", controller: "cpuset", file: "cpuset.mems", value: h.orParents(l.CpusetMems, group, "cpuset.mems"), lifted: l.CpusetMems == ""},
		{name: "limit pids", controller: "pids", file: "pids.max", value: amount(l.Pids, "max"), lifted: l.Pids == 0},
	}
	if h.swapAccounting() && h.raises(group, "memory.memsw.limit_in_bytes", both) {
		list[0], list[1] = list[1], list[0] // memory may never be above memory and swap
	}
	list = append(list, h.ioWeight(l, group)...)
	for _, r := range l.IO.rates() {
		for _, device := range h.devices(Limits{IO: IO{Reads: r.list}}, group, r.v1) {
			rate := rateOf(r.list, device)
			list = append(list, setting{name: "blkio_config " + r.key, controller: "blkio", file: r.v1, device: device,
				value: device + " " + strconv.FormatInt(rate, 10), lifted: rate == 0})
		}
	}
	return append(list, h.hugepages(l, group, "-1")...)
}

// weightOf is v2's weight for v1's shares, so that the least, the most and what
// everybody has are the same: libcontainer has it so too.
func weightOf(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 100
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10_000
	}
	log := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (log*log+125*log)/612-7.0/34)))
}

// raises tells whether value is above what stands in a v1 group's file of memory.
func (h *host) raises(group, name, value string) bool {
	b, err := os.ReadFile(h.file("memory", group, name))
	if err != nil || value == "-1" {
		return true
	}
	now, err1 := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	next, err2 := strconv.ParseInt(value, 10, 64)
	return err1 == nil && err2 == nil && next > now
}

// orParents is the set, or all that a v1 group can have: one of its own must be
// there.
func (h *host) orParents(set, group, name string) string {
	if set != "" {
		return set
	}
	file := h.file("cpuset", filepath.Dir(group), name)
	if file == "" {
		return ""
	}
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// orAll is the set, or what lifts it: nothing where nothing was set, else all that
// the parent has. A v2 group with processes does not take an empty set back
// (ENOSPC, validate_change in kernel/cgroup/cpuset.c).
func (h *host) orAll(set, group, name string) string {
	if now, err := os.ReadFile(h.file("cpuset", group, name)); set != "" || err != nil || strings.TrimSpace(string(now)) == "" {
		return set
	}
	all, _ := os.ReadFile(h.file("cpuset", filepath.Dir(group), name+".effective"))
	return strings.TrimSpace(string(all))
}

func (h *host) ioWeight(l Limits, group string) []setting {
	s := setting{name: "blkio_config weight", controller: h.ioController(), file: h.ioWeightFile(group), lifted: l.IO.Weight == 0}
	if s.file == "" {
		if s.lifted {
			return nil
		}
		s.file = "io.weight" // whose absence is then the error
	}
	switch {
	case s.lifted && s.file == "blkio.weight":
		s.value = "500"
	case s.lifted:
		s.value = "100"
	case s.file == "io.weight": // 1 to 10000 for 10 to 1000
		s.value = strconv.FormatUint(1+(uint64(l.IO.Weight)-minIOWeight)*9999/(maxIOWeight-minIOWeight), 10)
	default:
		s.value = strconv.Itoa(int(l.IO.Weight))
	}
	return []setting{s}
}

// devices are those with a limit, wanted or in the file now.
func (h *host) devices(l Limits, group, name string) []string {
	var list []string
	for _, r := range l.IO.rates() {
		for _, d := range r.list {
			list = append(list, d.Device)
		}
	}
	if file := h.file(h.ioController(), group, name); file != "" {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 {
				list = append(list, f[0])
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func rateOf(list []Rate, device string) int64 {
	for _, r := range list {
		if r.Device == device {
			return int64(min(r.Rate, math.MaxInt64))
		}
	}
	return 0
}

// hugepages are those limited, and those that the group has a file for.
func (h *host) hugepages(l Limits, group, none string) []setting {
	sizes := map[string]bool{}
	for size := range l.Hugepages {
		sizes[size] = true
	}
	if dir := h.file("hugetlb", group, ""); dir != "" {
		files, _ := filepath.Glob(filepath.Join(dir, h.hugepageFile("*")))
		for _, f := range files {
			parts := strings.Split(filepath.Base(f), ".")
			if _, err := PageSize(parts[1]); err == nil {
				sizes[parts[1]] = true
			}
		}
	}
	var list []setting
	for _, size := range slices.Sorted(maps.Keys(sizes)) {
		n, limited := l.Hugepages[size]
		value := none
		if limited { // 0 is a limit as well
			value = strconv.FormatInt(n, 10)
		}
		list = append(list, setting{name: "limit hugepages " + size, controller: "hugetlb", file: h.hugepageFile(size), value: value, lifted: !limited})
	}
	return list
}
