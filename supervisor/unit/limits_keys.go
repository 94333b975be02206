package unit

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/wherry-run/wherry/cgroup"
)

// containerLimits are the keys of a container that say how much it may use.
var containerLimits = []field[Container]{
	withKeys(known("resources", "map", "", "What it may use, and what is set aside for it.", func(p *reader, n *node, c *Container) {
		resourcesTable.fill(p, n, &c.Limits)
		p.checkLimits(n, c)
	}), resourcesTable.keys()),
	known("oom", "word", oomGroup, "What the kernel kills when its memory runs out: group (all of it) or process (one process, the rest lives on).",
		func(p *reader, n *node, c *Container) { c.OOM, _ = parsed(p, n, parseOOM) }),
	known("cpu_shares", "number", "1024", "Its weight where processors are contended, instead of one made of resources.reservations.cpus.",
		func(p *reader, n *node, c *Container) {
			got, _ := p.integer(n, leastShares, mostShares)
			c.Limits.CPUShares = uint64(got)
			p.checkLimits(n, c)
		}),
	known("cpuset", "list of numbers", "all", "The processors it may run on, \"0-3,5\".", func(p *reader, n *node, c *Container) {
		c.Limits.CpusetCPUs, _ = parsed(p, n, parseSet)
		p.checkLimits(n, c)
	}),
	known("cpuset_mems", "list of numbers", "all", "The memory nodes it may use, \"0,1\".", func(p *reader, n *node, c *Container) {
		c.Limits.CpusetMems, _ = parsed(p, n, parseSet)
		p.checkLimits(n, c)
	}),
	withKeys(known("blkio_config", "map", "", "How much it may read from and write to block devices.", func(p *reader, n *node, c *Container) {
		blkioTable.fill(p, n, &c.Limits.IO)
		p.checkLimits(n, c)
	}), blkioTable.keys()),
}

// limitsElsewhere are Compose's words for what has another name here.
var limitsElsewhere = map[string]string{
	"mem_reservation": "write resources: {reservations: {memory: ...}}", "mem_swappiness": "there is no such limit on cgroup v2",
	"memswap_limit":    "write resources: {limits: {swap: ...}}, which is swap alone, without the memory",
	"oom_kill_disable": "a container that may not be killed hangs instead; see oom", "cpu_quota": "write resources: {limits: {cpus: ...}}",
	"cpu_period": "write resources: {limits: {cpus: ...}}", "cpu_count": "write resources: {limits: {cpus: ...}}",
	"cpu_percent": "write resources: {limits: {cpus: ...}}", "cpu_weight": "write cpu_shares",
	"blkio_weight": "write blkio_config: {weight: ...}", "io_weight": "write blkio_config: {weight: ...}",
	"blkio_weight_device": "write blkio_config: {weight: ...}: one weight holds for all devices",
	"device_read_bps":     "it stands in blkio_config", "device_write_bps": "it stands in blkio_config",
	"device_read_iops": "it stands in blkio_config", "device_write_iops": "it stands in blkio_config",
	"memory_high": "it stands in resources: {limits: ...}", "memory_swap": "write resources: {limits: {swap: ...}}, which is swap alone, without the memory",
}

// checkLimits refuses limits that contradict what has been read so far: the
// later of two keys is the one that is told of.
func (p *reader) checkLimits(n *node, c *Container) {
	if n.broken {
		return
	}
	if err := c.Limits.Validate(); err != nil {
		p.badf(n, "", "%v", err)
		n.broken = true
	}
}

var resourcesTable = table[cgroup.Limits]{fields: []field[cgroup.Limits]{
	into("limits", "What it may use at most.", limitsTable, func(l *cgroup.Limits) *cgroup.Limits { return l }),
	into("reservations", "What is set aside for it: its share when others want more, too.", reservationsTable, func(l *cgroup.Limits) *cgroup.Limits { return l }),
}, elsewhere: map[string]string{"requests": "write reservations"}}

// leastMemory is what Docker asks for as well: with less, a container hardly
// gets through its own start.
const leastMemory = 6 << 20

const (
	leastCPUs, mostCPUs     = 0.01, 4096
	mostPids                = 1 << 22
	leastShares, mostShares = 2, 1 << 18
	leastWeight, mostWeight = 10, 1000
)

var limitsTable = table[cgroup.Limits]{fields: []field[cgroup.Limits]{
	known("cpus", "number", "no limit", "Processors, 1.5 for one and a half.", func(p *reader, n *node, l *cgroup.Limits) {
		l.CPUs, _ = p.float(n, leastCPUs, mostCPUs)
	}),
	known("memory", "size", "no limit", "Memory, page cache included.", func(p *reader, n *node, l *cgroup.Limits) {
		l.Memory, _ = parsed(p, n, parseMemory)
	}),
	known("memory_high", "size", "no limit", "Where the kernel begins to slow it down and to take memory back. It needs cgroup v2.", func(p *reader, n *node, l *cgroup.Limits) {
		l.MemoryHigh, _ = parsed(p, n, parseMemory)
	}),
	known("swap", "size", "0", "Swap that it may use beside its memory; 0 for none, -1 for no limit. Without a limit of memory, swap has none.", func(p *reader, n *node, l *cgroup.Limits) {
		l.Swap, _ = parsed(p, n, parseSwap)
	}),
	known("pids", "number", "no limit", "Processes and threads.", func(p *reader, n *node, l *cgroup.Limits) {
		l.Pids, _ = p.integer(n, 1, mostPids)
	}),
	known("hugepages", "map of sizes", "no limit", "Huge pages, by their size: {2MiB: 64MiB}.", (*reader).setHugepages),
}, elsewhere: map[string]string{"cpuset": "it stands beside resources", "blkio_config": "it stands beside resources", "memory_swap": "write swap"}}

var reservationsTable = table[cgroup.Limits]{fields: []field[cgroup.Limits]{
	known("cpus", "number", "none", "Processors: its share where they are contended.", func(p *reader, n *node, l *cgroup.Limits) {
		l.CPUReservation, _ = p.float(n, leastCPUs, mostCPUs)
	}),
	known("memory", "size", "none", "Memory that the kernel takes from it last when others want some.", func(p *reader, n *node, l *cgroup.Limits) {
		l.MemoryReservation, _ = parsed(p, n, ParseSize)
	}),
}}

var blkioTable = table[cgroup.IO]{fields: []field[cgroup.IO]{
	known("weight", "number", "100", "Its share of a contended device, 10 to 1000. It needs the scheduler BFQ, or iocost.", func(p *reader, n *node, i *cgroup.IO) {
		got, _ := p.integer(n, leastWeight, mostWeight)
		i.Weight = uint16(got)
	}),
	blkioRates("device_read_bps", "size", "read", func(i *cgroup.IO) *[]cgroup.Rate { return &i.ReadBytes }),
	blkioRates("device_write_bps", "size", "written", func(i *cgroup.IO) *[]cgroup.Rate { return &i.WriteBytes }),
	blkioRates("device_read_iops", "number", "read", func(i *cgroup.IO) *[]cgroup.Rate { return &i.Reads }),
	blkioRates("device_write_iops", "number", "written", func(i *cgroup.IO) *[]cgroup.Rate { return &i.Writes }),
}, elsewhere: map[string]string{"weight_device": "one weight holds for all devices"}}

// rateDraft is one entry of a list of rates, before its unit is known.
type rateDraft struct {
	path string
	rate *node
}

var rateTable = table[rateDraft]{fields: []field[rateDraft]{
	known("path", "path", "", "The device, /dev/sda. Of a partition the whole disk is limited.", func(p *reader, n *node, r *rateDraft) {
		r.path, _ = p.text(n)
	}),
	known("rate", "size or number", "", "How much a second: a size for bps, a number for iops.", func(_ *reader, n *node, r *rateDraft) { r.rate = n }),
}}

func blkioRates(name, typ, done string, to func(*cgroup.IO) *[]cgroup.Rate) field[cgroup.IO] {
	what := map[string]string{"size": "Bytes", "number": "Requests"}[typ]
	f := known(name, "list of maps", "", what+" "+done+" a second, by device: {path, rate}.", func(p *reader, n *node, i *cgroup.IO) {
		if n.shape != list {
			p.badf(n, "write [{path: /dev/sda, rate: ...}]", "wants a list, not %s", n.kind())
			return
		}
		for _, item := range n.items {
			var d rateDraft
			rateTable.fill(p, item, &d)
			if item.shape != mapping {
				continue
			}
			if d.path == "" || d.rate == nil {
				p.badf(item, "", "wants path and rate")
				continue
			}
			parse := ParseSize
			if typ == "number" {
				parse = parseCount
			}
			rate, ok := parsed(p, d.rate, parse)
			if ok {
				*to(i) = append(*to(i), cgroup.Rate{Device: d.path, Rate: uint64(rate)})
			}
		}
	})
	f.Keys = rateTable.keys()
	return f
}

func parseCount(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, faultf("", "%q is not a number of requests", text)
	}
	return n, nil
}

func (p *reader) setHugepages(n *node, l *cgroup.Limits) {
	if n.shape != mapping {
		p.badf(n, "write {2MiB: 64MiB}", "wants a map, not %s", n.kind())
		return
	}
	for _, pr := range n.pairs {
		page, err := ParseSize(pr.name.text)
		if err != nil {
			p.bad(pr.name, err)
			continue
		}
		amount, ok := parsed(p, pr.value, parseAmount)
		if !ok {
			continue
		}
		if l.Hugepages == nil {
			l.Hugepages = map[string]int64{}
		}
		l.Hugepages[cgroup.PageSizeName(page)] = amount
	}
}

// parseAmount is a size that may be 0.
func parseAmount(text string) (int64, error) {
	if text == "0" {
		return 0, nil
	}
	return ParseSize(text)
}

func parseMemory(text string) (int64, error) {
	bytes, err := ParseSize(text)
	if err == nil && bytes < leastMemory {
		err = faultf("the least is "+Size(leastMemory).String(), "%s is too little", text)
	}
	return bytes, err
}

func parseSwap(text string) (int64, error) {
	if text == "-1" {
		return -1, nil
	}
	return parseAmount(text)
}

func parseSet(text string) (string, error) {
	if _, err := cgroup.ParseSet(text); err != nil || text == "" {
		return "", faultf("write it like 0-3,5", "%q is not a list of numbers", text)
	}
	return text, nil
}

const oomGroup, oomProcess = "group", "process"

// parseOOM gives what Container.OOM holds: nothing for the default.
func parseOOM(text string) (string, error) {
	switch text {
	case oomGroup:
		return "", nil
	case oomProcess:
		return text, nil
	}
	return "", faultf("it is one of group, process", "%q is unknown", text)
}

// limits are their fields for people.
func (f *flat) limits(l cgroup.Limits) {
	f.size("limits.memory", l.Memory)
	f.size("limits.memory_high", l.MemoryHigh)
	if l.Swap < 0 {
		f.add("limits.swap", "no limit")
	} else {
		f.size("limits.swap", l.Swap)
	}
	f.float("limits.cpus", l.CPUs)
	f.number("limits.pids", l.Pids)
	for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
		f.add("limits.hugepages."+size, Size(l.Hugepages[size]).String())
	}
	f.float("reservations.cpus", l.CPUReservation)
	f.size("reservations.memory", l.MemoryReservation)
	f.number("cpu_shares", int64(l.CPUShares))
	f.add("cpuset", l.CpusetCPUs)
	f.add("cpuset_mems", l.CpusetMems)
	f.number("blkio_config.weight", int64(l.IO.Weight))
	for _, r := range []struct {
		key   string
		bytes bool
		list  []cgroup.Rate
	}{
		{"device_read_bps", true, l.IO.ReadBytes}, {"device_write_bps", true, l.IO.WriteBytes},
		{"device_read_iops", false, l.IO.Reads}, {"device_write_iops", false, l.IO.Writes},
	} {
		for _, d := range r.list {
			value := fmt.Sprint(d.Rate)
			if r.bytes {
				value = Size(d.Rate).String()
			}
			f.add("blkio_config."+r.key+"."+d.Device, value)
		}
	}
}
