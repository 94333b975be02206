package main

import (
	"errors"
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

// left lists what is on the machine of a soak whose daemon has ended.
func (h *host) left() (l []string) {
	for _, p := range processesOf(h.dir, h.tag) {
		l = append(l, fmt.Sprintf("process %d: %s", p.pid, p.command))
	}
	for _, m := range mountsOf("/proc/self/mountinfo", h.dir) {
		l = append(l, "mount "+m)
	}
	for _, g := range groupsOf(h.tag) {
		if filepath.Base(g) != h.tag { // the parent may stay
			l = append(l, "group "+g)
		}
	}
	if _, err := netlink.LinkByName(h.tag); err == nil {
		l = append(l, "bridge "+h.tag)
	}
	for _, d := range []string{h.root + "/runs", h.root + "/logs", h.run + "/containers", h.run + "/ns"} {
		entries, _ := os.ReadDir(d)
		for _, e := range entries {
			l = append(l, "file "+filepath.Join(d, e.Name()))
		}
	}
	return l
}

// process is one of ours.
type process struct {
	pid           int
	state, parent string
	command       string
}

// processesOf finds processes whose group or command line is one of the soak's.
func processesOf(dir, tag string) (l []process) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		pid, _ := strconv.Atoi(filepath.Base(p))
		cmd, _ := os.ReadFile(p + "/cmdline")
		group, _ := os.ReadFile(p + "/cgroup")
		if pid == os.Getpid() || !strings.Contains(string(group), "/"+tag) && !strings.Contains(string(cmd), dir+"/run") {
			continue
		}
		stat, err := os.ReadFile(p + "/stat")
		_, rest, ok := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if err != nil || !ok || len(f) < 2 || f[0] == "X" {
			continue
		}
		l = append(l, process{pid: pid, state: f[0], parent: f[1], command: strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))})
	}
	return l
}

func mountsOf(mountinfo, dir string) (l []string) {
	b, _ := os.ReadFile(mountinfo)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], strings.TrimSuffix(dir, "/")+"/") {
			l = append(l, f[4])
		}
	}
	return l
}

// groupsOf lists our groups in every hierarchy, parents first.
func groupsOf(tag string) (l []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/" + tag, "/sys/fs/cgroup/*/" + tag} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					l = append(l, p)
				}
				return nil
			})
		}
	}
	return l
}

// keepLogs copies the logs out of the folder that is swept.
func (h *host) keepLogs() string {
	to := h.dir + "-logs"
	_ = os.MkdirAll(to, 0o755)
	for _, f := range []string{h.dir + "/daemon.log", h.run + "/keeper.log"} {
		if b, err := os.ReadFile(f); err == nil {
			_ = os.WriteFile(filepath.Join(to, filepath.Base(f)), b, 0o644)
		}
	}
	return to
}

// sweepAll takes away all that a soak in the folder has made, by its name alone.
func sweepAll(dir string) error {
	tag := filepath.Base(dir)
	if !strings.HasPrefix(tag, "whs") || len(tag) != 9 || filepath.Dir(dir) != "/tmp" {
		return fmt.Errorf("sweep %s: not a folder of a soak", dir)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		procs := processesOf(dir, tag)
		if len(procs) == 0 {
			break
		}
		for _, p := range procs {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	var errs []error
	for again := 0; again < 3; again++ {
		for _, m := range mountsOf("/proc/self/mountinfo", dir) {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	}
	groups := groupsOf(tag)
	for i := len(groups) - 1; i >= 0; i-- {
		err := syscall.Rmdir(groups[i])
		// Those that have just ended may still hold it.
		for end := time.Now().Add(10 * time.Second); err == syscall.EBUSY && time.Now().Before(end); err = syscall.Rmdir(groups[i]) {
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove group %s: %w", groups[i], err))
		}
	}
	errs = append(errs, sweepNetwork(tag), os.RemoveAll(dir))
	return errors.Join(errs...)
}

func sweepNetwork(tag string) error {
	if bridge, err := netlink.LinkByName(tag); err == nil {
		links, _ := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().MasterIndex == bridge.Attrs().Index {
				_ = netlink.LinkDel(l)
			}
		}
		if err := netlink.LinkDel(bridge); err != nil {
			return fmt.Errorf("remove bridge %s: %w", tag, err)
		}
	}
	c, err := nftables.New()
	if err != nil {
		return nil // none here, so no table
	}
	tables, _ := c.ListTables()
	for _, t := range tables {
		if t.Name == tag {
			c.DelTable(t)
		}
	}
	return c.Flush()
}
