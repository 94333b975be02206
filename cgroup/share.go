package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Share is what a group has when there is not enough for all. The kernel divides level by level:
// what a group is given counts among its siblings only, and of memory that is kept for
// it no more holds than is kept for the group that it is in.
type Share struct {
	CPUWeight uint64 // v2's numbers; 100: as everybody
	IOWeight  uint64 // of whichever file there is: BFQ's ends at 1000
	MemoryLow int64  // bytes; v2
}

// even is the weight that every group has at first.
const even = 100

// Sum adds up what the groups right below have: the share that gives each of them what it was
// given, among all. Where no group below differs from others, neither does the sum. Known are
// groups below of which the caller knows better, by name.
func (g Group) Sum(known map[string]Share) (Share, error) {
	h, err := g.host("add up shares")
	if err != nil || h.mode == Legacy {
		return Share{CPUWeight: even, IOWeight: even}, err
	}
	entries, err := os.ReadDir(filepath.Join(h.unified, g.Path))
	if err != nil {
		return Share{}, g.wrap("add up shares", err)
	}
	var sum Share
	differs := Share{}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "+") {
			continue // helpers of ours
		}
		s, ok := known[e.Name()]
		if !ok {
			if s, err = (Group{Path: filepath.Join(g.Path, e.Name())}).Share(); err != nil {
				continue // it has just gone
			}
		}
		sum.CPUWeight += s.CPUWeight
		sum.IOWeight += s.IOWeight
		sum.MemoryLow += s.MemoryLow
		differs.CPUWeight += differ(s.CPUWeight)
		differs.IOWeight += differ(s.IOWeight)
	}
	if differs.CPUWeight == 0 {
		sum.CPUWeight = even
	}
	if differs.IOWeight == 0 {
		sum.IOWeight = even
	}
	most := uint64(10_000)
	if h.ioWeightFile(g.Path) == "io.bfq.weight" {
		most = maxIOWeight
	}
	sum.CPUWeight, sum.IOWeight = min(sum.CPUWeight, 10_000), min(sum.IOWeight, most)
	return sum, nil
}

func differ(weight uint64) uint64 {
	if weight == even {
		return 0
	}
	return 1
}

// Share reads a group's own.
func (g Group) Share() (Share, error) {
	h, err := g.host("read share")
	if err != nil {
		return Share{}, err
	}
	s := Share{CPUWeight: even, IOWeight: even}
	if h.mode == Legacy {
		return s, nil
	}
	for _, x := range []struct {
		file string
		to   *uint64
	}{{"cpu.weight", &s.CPUWeight}, {h.ioWeightFile(g.Path), &s.IOWeight}} {
		if x.file == "" {
			continue
		}
		b, err := os.ReadFile(h.file("", g.Path, x.file))
		if err != nil {
			if gone(err) {
				continue // no such controller here
			}
			return s, g.wrap("read share", err)
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(b)), "default "), "\n")
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			*x.to = n
		}
	}
	s.MemoryLow = h.usage(h.file("memory", g.Path, "memory.low"))
	return s, nil
}

// SetShare writes what of it differs from what the group has. It is for v2.
func (g Group) SetShare(s Share) error {
	h, err := g.host("set share")
	if err != nil || h.mode == Legacy {
		return err
	}
	now, err := g.Share()
	if err != nil {
		return err
	}
	for _, x := range []struct {
		file     string
		now, new uint64
	}{
		{"cpu.weight", now.CPUWeight, s.CPUWeight}, {h.ioWeightFile(g.Path), now.IOWeight, s.IOWeight},
		{"memory.low", uint64(now.MemoryLow), uint64(s.MemoryLow)},
	} {
		if x.file == "" || x.now == x.new {
			continue
		}
		if err := writeFile(h.file("", g.Path, x.file), strconv.FormatUint(x.new, 10)); err != nil && !gone(err) {
			return g.wrap("set share", fmt.Errorf("%s: %w", x.file, err))
		}
	}
	return nil
}
