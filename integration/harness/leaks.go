package harness

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// close removes all units, stops the daemon, waits for the keeper to end and
// looks for what is left.
func (h *Host) close() {
	if h.daemon == nil {
		h.Start()
	}
	keeper := h.keeperPid()
	h.Run("rm", "--all", "--yes", "-f")
	h.NothingLeft("all units")
	h.StopDaemon()
	for end := time.Now().Add(patience * 10 * time.Second); alive(keeper) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if alive(keeper) {
		h.t.Errorf("left behind: the keeper, pid %d, after the daemon and all containers", keeper)
		syscall.Kill(keeper, syscall.SIGKILL)
	}
	if h.t.Failed() {
		h.t.Logf("--- daemon.log\n%s", h.DaemonLog())
	}
	h.log.Close()
	h.checkNetwork()
	if h.small {
		h.soon(h.Root, func() error { return unix.Unmount(h.Root, 0) })
	}
	if err := os.RemoveAll(h.Dir); err != nil {
		h.t.Errorf("left behind: %v", err)
	}
	h.removeCgroups()
}

// soon tries to take away what the last processes that have ended may still hold.
func (h *Host) soon(what string, do func() error) {
	err := do()
	for end := time.Now().Add(patience * 10 * time.Second); err == syscall.EBUSY && time.Now().Before(end); err = do() {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		h.t.Errorf("left behind: %s: %v", what, err)
	}
}

func (h *Host) keeperPid() int {
	i, err := h.Client().Info(context.Background())
	if err != nil {
		h.t.Errorf("info: %v", err)
	}
	return i.KeeperPid
}

// NothingLeft waits until nothing is left of whose containers are gone: the kernel ends processes and
// lets go of mounts and devices in its own time.
func (h *Host) NothingLeft(whose string, more ...func() []string) {
	h.t.Helper()
	left := h.Leaks
	for _, m := range more {
		before := left
		left = func() []string { return append(before(), m()...) }
	}
	var now []string
	for end := time.Now().Add(patience * 20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if now = left(); len(now) == 0 {
			return
		}
	}
	h.t.Errorf("left behind of %s: %s", whose, strings.Join(now, "\n"))
}

// Leaks lists what is there of containers: after all units are gone, nothing.
func (h *Host) Leaks() []string {
	var l []string
	l = append(l, h.leakedMounts()...)
	l = append(l, h.leakedCgroups()...)
	l = append(l, h.leakedProcesses()...)
	l = append(l, h.leakedFiles()...)
	l = append(l, h.leakedLinks()...)
	return l
}

func (h *Host) leakedMounts() (l []string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, h.Dir+"/") && !(h.small && strings.Contains(line, " "+h.Root+" ")) {
			l = append(l, "mount "+strings.TrimSpace(line))
		}
	}
	return l
}

// cgroups lists the groups below our parent, in every hierarchy, but for those
// of the daemon's own helpers, whose names begin with a dot.
func (h *Host) cgroups() (l []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/" + h.Cgroup, "/sys/fs/cgroup/*/" + h.Cgroup} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() && p != root {
					l = append(l, p)
				}
				return nil
			})
		}
	}
	return l
}

func (h *Host) leakedCgroups() (l []string) {
	for _, p := range h.cgroups() {
		if !strings.Contains(p, "/"+h.Cgroup+"/.") && !strings.Contains(p, "keeper") {
			l = append(l, "cgroup "+p)
		}
	}
	return l
}

// leakedProcesses finds processes whose root or cgroup is one of ours.
func (h *Host) leakedProcesses() (l []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		b, _ := os.ReadFile(p + "/cgroup")
		if strings.Contains(string(b), "/"+h.Cgroup+"/") && !strings.Contains(string(b), "keeper") && !strings.Contains(string(b), "/"+h.Cgroup+"/.") {
			cmd, _ := os.ReadFile(p + "/cmdline")
			l = append(l, fmt.Sprintf("process %s %q", filepath.Base(p), cmd))
		}
	}
	return l
}

func (h *Host) leakedFiles() (l []string) {
	for _, d := range []string{h.Root + "/runs", h.Root + "/logs", h.RunDir + "/containers", h.RunDir + "/libcontainer"} {
		entries, _ := os.ReadDir(d)
		for _, e := range entries {
			l = append(l, "file "+filepath.Join(d, e.Name()))
		}
	}
	return l
}

// leakedLinks finds veth pairs: ports of our bridge.
func (h *Host) leakedLinks() (l []string) {
	bridge, err := netlink.LinkByName(h.Bridge)
	if err != nil {
		return nil
	}
	links, _ := netlink.LinkList()
	for _, i := range links {
		if i.Attrs().MasterIndex == bridge.Attrs().Index {
			l = append(l, "link "+i.Attrs().Name)
		}
	}
	return l
}

// checkNetwork looks for the bridge and the table, which a daemon without runs
// takes away when it ends.
func (h *Host) checkNetwork() {
	if link, err := netlink.LinkByName(h.Bridge); err == nil {
		h.t.Errorf("left behind: bridge %s", h.Bridge)
		netlink.LinkDel(link)
	}
	c, err := nftables.New()
	if err != nil {
		h.t.Errorf("nftables: %v", err)
		return
	}
	tables, _ := c.ListTables()
	for _, t := range tables {
		if strings.Contains(t.Name, h.Bridge) {
			h.t.Errorf("left behind: table %s", t.Name)
			c.DelTable(t)
		}
	}
	c.Flush()
}

func (h *Host) removeCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/" + h.Cgroup, "/sys/fs/cgroup/*/" + h.Cgroup} {
		roots, _ := filepath.Glob(pattern)
		for _, r := range roots {
			h.soon("cgroup "+r, func() error {
				all := h.cgroups()
				for i := len(all) - 1; i >= 0; i-- {
					syscall.Rmdir(all[i])
				}
				return syscall.Rmdir(r)
			})
		}
	}
}

func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	// A zombie whose parent has not looked yet is dead.
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}
