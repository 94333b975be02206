package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	bolt "go.etcd.io/bbolt"
)

// process measures one of ours from outside.
func (m *measures) process(name string, pid int) {
	proc := fmt.Sprintf("/proc/%d", pid)
	// What a process has allocated is anonymous. The rest are pages of the program, which are there once
	// that code has run, be it since the last kill or not, and shared or not with another one.
	m.allow(name, "anonymous memory", "KiB", field(proc+"/smaps_rollup", "Anonymous:"), 0.25, 6<<10)
	program := 0.0
	if info, err := os.Stat(proc + "/exe"); err == nil {
		program = float64(info.Size()) / 1024
	}
	m.allow(name, "PSS", "KiB", field(proc+"/smaps_rollup", "Pss:"), 0, 8<<10+program)
	m.allow(name, "RSS", "KiB", field(proc+"/status", "VmRSS:"), 0, 8<<10+program)
	// Go keeps threads that blocked in the kernel once, for the next time: as many as did so at once at the busiest moment,
	// however long ago. More than all callers and starts together would be a leak.
	m.allow(name, "threads", "", field(proc+"/status", "Threads:"), 1, 32)
	kinds := map[string]int{}
	watches := 0
	fds, _ := os.ReadDir(proc + "/fd")
	for _, fd := range fds {
		to, err := os.Readlink(proc + "/fd/" + fd.Name())
		if err != nil {
			continue
		}
		kind := kindOf(to)
		kinds[kind]++
		key := name + " descriptors: " + kind
		m.lists[key] = append(m.lists[key], fd.Name()+" -> "+to)
		if kind == "inotify" {
			b, _ := os.ReadFile(proc + "/fdinfo/" + fd.Name())
			watches += strings.Count(string(b), "inotify wd:")
		}
	}
	for _, kind := range descriptorKinds {
		if name == "daemon" && kind == "pidfd" { // of the keeper, if this daemon has started it
			m.allow(name, "descriptors: "+kind, "", float64(kinds[kind]), 0, 1)
			continue
		}
		m.add(name, "descriptors: "+kind, kinds[kind])
	}
	m.add(name, "inotify watches", watches)
	mounts := mountsOf(proc+"/mountinfo", m.dir)
	m.add(name, "mounts seen", len(mounts))
	m.lists[name+" mounts seen"] = mounts
	zombies := 0
	tasks, _ := filepath.Glob(proc + "/task/*/children")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, child := range strings.Fields(string(b)) {
			if stat, _ := os.ReadFile("/proc/" + child + "/stat"); strings.Contains(string(stat), ") Z ") {
				zombies++
			}
		}
	}
	m.add(name, "zombies", zombies)
}

var descriptorKinds = []string{"socket", "pipe", "pidfd", "eventpoll", "eventfd", "timerfd", "inotify", "memfd", "namespace", "terminal", "folder", "file"}

// kindOf says what a descriptor is.
func kindOf(link string) string {
	switch {
	case strings.HasPrefix(link, "socket:"):
		return "socket"
	case strings.HasPrefix(link, "pipe:"), strings.HasSuffix(link, ".stdout"), strings.HasSuffix(link, ".stderr"), strings.HasSuffix(link, ".stdin"):
		return "pipe"
	case strings.HasPrefix(link, "anon_inode:"):
		kind := strings.Trim(strings.TrimPrefix(link, "anon_inode:"), "[]")
		if slices.Contains(descriptorKinds, kind) {
			return kind
		}
		return "file"
	case strings.HasPrefix(link, "/memfd:"):
		return "memfd"
	case strings.HasPrefix(link, "pidfd:"):
		return "pidfd"
	case strings.HasPrefix(link, "/dev/pts"), strings.HasPrefix(link, "/dev/ptmx"):
		return "terminal"
	case strings.Contains(link, ":["):
		return "namespace"
	}
	if info, err := os.Stat(link); err == nil && info.IsDir() {
		return "folder"
	}
	return "file"
}

// field is a number of a file of lines, in KiB if it is memory.
func field(file, name string) float64 {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	return 0
}

// host measures what the kernel has of ours.
func (m *measures) host(h *host) {
	procs := processesOf(h.dir, h.tag)
	m.add("host", "processes", len(procs))
	for _, p := range procs {
		m.lists["host processes"] = append(m.lists["host processes"], p.command)
	}
	mounts := mountsOf("/proc/self/mountinfo", h.dir)
	m.add("host", "mounts", len(mounts))
	m.lists["host mounts"] = mounts
	groups := groupsOf(h.tag)
	m.add("host", "groups", len(groups))
	m.lists["host groups"] = groups
	spaces := namespacesOf(procs)
	m.add("host", "namespaces", len(spaces))
	m.lists["host namespaces"] = spaces
	m.network(h)
	m.add("host", "loop devices", loops(h.dir))
	ipc := 0
	for _, f := range []string{"shm", "sem", "msg"} {
		b, _ := os.ReadFile("/proc/sysvipc/" + f)
		ipc += max(0, strings.Count(string(b), "\n")-1)
	}
	m.add("host", "System V IPC", ipc)
}

// namespacesOf lists the namespaces of processes that are not the host's.
func namespacesOf(procs []process) (l []string) {
	own, _ := filepath.Glob("/proc/self/ns/*")
	hosts := map[string]bool{}
	for _, p := range own {
		to, _ := os.Readlink(p)
		hosts[to] = true
	}
	for _, p := range procs {
		spaces, _ := filepath.Glob(fmt.Sprintf("/proc/%d/ns/*", p.pid))
		for _, s := range spaces {
			if to, err := os.Readlink(s); err == nil && !hosts[to] && !slices.Contains(l, to) {
				l = append(l, to)
			}
		}
	}
	return l
}

// network counts links of our bridge, and what stands in our table.
func (m *measures) network(h *host) {
	ports, rules, elements := 0, 0, 0
	if bridge, err := netlink.LinkByName(h.tag); err == nil {
		links, _ := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().MasterIndex == bridge.Attrs().Index {
				ports++
			}
		}
	}
	if c, err := nftables.New(); err == nil {
		tables, _ := c.ListTables()
		for _, t := range tables {
			if t.Name != h.tag {
				continue
			}
			chains, _ := c.ListChains()
			for _, ch := range chains {
				if ch.Table.Name == t.Name {
					r, _ := c.GetRules(t, ch)
					rules += len(r)
				}
			}
			sets, _ := c.GetSets(t)
			for _, s := range sets {
				e, _ := c.GetSetElements(s)
				elements += len(e)
			}
		}
	}
	m.add("host", "links of the bridge", ports)
	m.add("host", "nftables rules", rules)
	m.add("host", "nftables elements", elements)
	claims := 0
	entries, _ := os.ReadDir("/run/wherry-ids")
	for _, e := range entries {
		if to, err := os.Readlink("/run/wherry-ids/" + e.Name()); err == nil && strings.HasPrefix(to, h.dir+"/") {
			claims++
		}
	}
	m.add("host", "claims of user ids", claims)
}

func loops(dir string) (n int) {
	all, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, p := range all {
		if b, _ := os.ReadFile(p); strings.HasPrefix(string(b), dir+"/") {
			n++
		}
	}
	return n
}

// database counts what stands in state.db, in a copy: the daemon holds a lock on it.
func (m *measures) database(h *host) error {
	b, err := os.ReadFile(h.root + "/state.db")
	if err != nil {
		return err
	}
	file := h.dir + "/state.copy"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		return nil // written to meanwhile: it is looked at again
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		keys := 0
		err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			keys += b.Stats().KeyN
			return nil
		})
		used := (tx.Size() - int64(db.Stats().FreePageN+db.Stats().PendingPageN)*int64(db.Info().PageSize)) / 1024
		m.add("state.db", "keys", keys)
		m.allow("state.db", "pages in use", "KiB", float64(used), 0, 128)
		return err
	})
}

func blocks(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks
	}
	return 0
}
