package cgroup

import "io/fs"

// MemoryUse is what a group's end is explained with.
type MemoryUse struct {
	Peak     int64  // bytes; 0: the kernel does not know (before 5.19)
	Limit    int64  // bytes; 0: none
	OOMKills uint64 // processes killed for lack of memory
}

// Memory reads a few files of those that Stats reads, and none that makes the kernel add up
// its counters first, as memory.stat does.
func (g Group) Memory() (MemoryUse, error) {
	h, err := g.host("read memory")
	if err != nil {
		return MemoryUse{}, err
	}
	if len(h.dirs(g.Path)) == 0 {
		return MemoryUse{}, g.wrap("read memory", fs.ErrNotExist)
	}
	r := reader{host: h, group: g.Path}
	var m MemoryUse
	if h.mode == Unified {
		m.Peak, m.Limit = r.value("memory", "memory.peak"), r.value("memory", "memory.max")
	} else {
		m.Peak, m.Limit = r.value("memory", "memory.max_usage_in_bytes"), r.value("memory", "memory.limit_in_bytes")
	}
	if r.err == nil {
		m.OOMKills, r.err = h.oomKills(g.Path)
	}
	return m, g.wrap("read memory", r.err)
}
