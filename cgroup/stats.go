package cgroup

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

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

	IOReadBytes  uint64 `json:"io_read_bytes"` // of block devices
	IOWriteBytes uint64 `json:"io_write_bytes"`
	IOReads      uint64 `json:"io_reads"`
	IOWrites     uint64 `json:"io_writes"`
}

// Stats reads the group. What the host has no controller for is zero.
func (g Group) Stats() (Stats, error) {
	h, err := g.host("read usage")
	if err != nil {
		return Stats{}, err
	}
	if len(h.dirs(g.Path)) == 0 {
		return Stats{}, g.wrap("read usage", fs.ErrNotExist)
	}
	s, err := h.stats(g.Path)
	return s, g.wrap("read usage", err)
}

func (h *host) stats(group string) (Stats, error) {
	r := reader{host: h, group: group}
	var s Stats
	if h.mode == Unified {
		s = r.unified()
	} else {
		s = r.legacy()
	}
	if r.err == nil {
		s.OOMKills, r.err = h.oomKills(group)
	}
	return s, r.err
}

// oomKills of v1 are counted for each group alone, those of v2 for the groups
// below as well.
func (h *host) oomKills(group string) (n uint64, err error) {
	if h.mode == Unified {
		r := reader{host: h, group: group}
		return r.key("memory", "memory.events", "oom_kill"), r.err
	}
	dir := h.file("memory", group, "")
	if dir == "" {
		return 0, nil
	}
	err = walk(dir, func(dir string) error {
		k, err := readKey(filepath.Join(dir, "memory.oom_control"), "oom_kill")
		if gone(err) {
			return nil
		}
		n += k
		return err
	})
	return n, err
}

// reader reads a group's files and keeps the first error. A file that is not
// there gives 0.
type reader struct {
	host  *host
	group string
	err   error
}

func (r *reader) unified() (s Stats) {
	s.MemoryCurrent = r.value("memory", "memory.current")
	s.MemoryWorking = working(s.MemoryCurrent, r.key("memory", "memory.stat", "inactive_file"))
	s.MemoryPeak = r.value("memory", "memory.peak") // since 5.19
	s.MemoryLimit = r.value("memory", "memory.max")
	s.CPUUsec = r.key("cpu", "cpu.stat", "usage_usec")
	s.ThrottledUsec = r.key("cpu", "cpu.stat", "throttled_usec")
	s.Pids = r.value("pids", "pids.current")
	s.PidsLimit = r.value("pids", "pids.max")
	s.IOReadBytes, s.IOWriteBytes, s.IOReads, s.IOWrites = parseIOStat(r.text("io", "io.stat"))
	return s
}

func (r *reader) legacy() (s Stats) {
	s.MemoryCurrent = r.value("memory", "memory.usage_in_bytes")
	s.MemoryWorking = working(s.MemoryCurrent, r.key("memory", "memory.stat", "total_inactive_file"))
	s.MemoryPeak = r.value("memory", "memory.max_usage_in_bytes")
	s.MemoryLimit = r.value("memory", "memory.limit_in_bytes")
	s.CPUUsec = uint64(r.value("cpuacct", "cpuacct.usage")) / 1000
	s.ThrottledUsec = r.key("cpu", "cpu.stat", "throttled_time") / 1000
	s.Pids = r.value("pids", "pids.current")
	s.PidsLimit = r.value("pids", "pids.max")
	s.IOReadBytes, s.IOWriteBytes = parseBlkio(r.text("blkio", "blkio.throttle.io_service_bytes_recursive"))
	s.IOReads, s.IOWrites = parseBlkio(r.text("blkio", "blkio.throttle.io_serviced_recursive"))
	return s
}

// working is the memory that reclaim could not take back at once. The two
// numbers are read one after the other, so their difference may be negative.
func working(current int64, inactive uint64) int64 {
	return max(0, current-int64(min(inactive, math.MaxInt64)))
}

func (r *reader) value(controller, name string) int64 {
	file := r.host.file(controller, r.group, name)
	if file == "" || r.err != nil {
		return 0
	}
	b, err := os.ReadFile(file)
	if err == nil {
		var v int64
		if v, err = parseValue(string(b)); err == nil {
			return v
		}
		err = fmt.Errorf("%s: %w", name, err)
	}
	r.keep(err)
	return 0
}

func (r *reader) text(controller, name string) string {
	file := r.host.file(controller, r.group, name)
	if file == "" || r.err != nil {
		return ""
	}
	b, err := os.ReadFile(file)
	r.keep(err)
	return string(b)
}

func (r *reader) key(controller, name, key string) uint64 {
	file := r.host.file(controller, r.group, name)
	if file == "" || r.err != nil {
		return 0
	}
	v, err := readKey(file, key)
	r.keep(err)
	return v
}

func (r *reader) keep(err error) {
	if !gone(err) && r.err == nil {
		r.err = err
	}
}

func readKey(file, key string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	v, err := parseKey(string(b), key)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return v, nil
}

// noLimit is what v1 shows for "no limit" at least: the largest number of
// bytes, rounded down to pages of any size.
const noLimit = math.MaxInt64 &^ (1<<20 - 1)

// parseValue reads a file of one number, where "max" and v1's huge number are 0.
func parseValue(s string) (int64, error) {
	s = strings.TrimSpace(s)
	if s == "max" {
		return 0, nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("not a number: %q", s)
	}
	if v >= noLimit {
		return 0, nil
	}
	return v, nil
}

// parseKey finds one number in a file of lines "key number". A key that the
// kernel does not know yet is 0.
func parseKey(s, key string) (uint64, error) {
	for line := range strings.Lines(s) {
		k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || k != key {
			continue
		}
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s is not a number: %q", key, v)
		}
		return n, nil
	}
	return 0, nil
}

// parseIOStat sums up io.stat of v2: lines "254:0 rbytes=1 wbytes=2 rios=3 wios=4 ...".
func parseIOStat(text string) (readBytes, writeBytes, reads, writes uint64) {
	sums := map[string]*uint64{"rbytes": &readBytes, "wbytes": &writeBytes, "rios": &reads, "wios": &writes}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		if sum := sums[key]; sum != nil {
			n, _ := strconv.ParseUint(value, 10, 64)
			*sum += n
		}
	}
	return readBytes, writeBytes, reads, writes
}

// parseBlkio sums up a file of v1's throttling: lines "254:0 Read 1".
func parseBlkio(text string) (read, write uint64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, _ := strconv.ParseUint(f[2], 10, 64)
		switch f[1] {
		case "Read":
			read += n
		case "Write":
			write += n
		}
	}
	return read, write
}
