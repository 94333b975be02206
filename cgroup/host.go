package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	cgroups "github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// host is where the kernel shows its control groups. It does not change while
// the host runs.
type host struct {
	mode    Mode
	unified string            // mount point of the v2 hierarchy; empty if there is none
	v1      map[string]string // mount point of each v1 controller and of "name=systemd"
}

var theHost = sync.OnceValues(findHost)

func findHost() (*host, error) {
	switch cgroups.Mode() {
	case cgroups.Unavailable:
		return nil, errors.New("control groups: /sys/fs/cgroup is not mounted")
	case cgroups.Unified:
		return &host{mode: Unified, unified: "/sys/fs/cgroup"}, nil
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "cgroup" && m.FSType != "cgroup2", false
	})
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	return legacyHost(mounts)
}

// legacyHost finds the hierarchies of v1. The first mount of each counts; a
// later one is a bind mount for somebody else.
func legacyHost(mounts []*mountinfo.Info) (*host, error) {
	h := &host{mode: Legacy, v1: map[string]string{}}
	for _, m := range mounts {
		if !isWhole(m.Root) {
			continue
		}
		if m.FSType == "cgroup2" {
			if h.unified == "" {
				h.unified = m.Mountpoint
			}
			continue
		}
		for opt := range strings.SplitSeq(m.VFSOptions, ",") {
			if _, known := h.v1[opt]; !known && (slices.Contains(v1Controllers, opt) || strings.HasPrefix(opt, "name=")) {
				h.v1[opt] = m.Mountpoint
			}
		}
	}
	if len(h.v1) == 0 {
		return nil, errors.New("control groups: no controller is mounted")
	}
	return h, nil
}

// isWhole tells whether a mount with that root in mountinfo shows its hierarchy, or more than our control group namespace has of it: then
// the root stands above the namespace's own, as "/../.." (cgroup_namespaces(7)). Any other is a bind mount of one group.
func isWhole(root string) bool {
	return strings.Trim(root, "/.") == "" && path.Clean(root) == "/"
}

// v1Controllers in the order in which a group's processes are looked for: the
// first ones are those that every container of ours is in.
var v1Controllers = []string{
	"pids", "memory", "freezer", "cpu", "cpuacct", "devices", "cpuset", "blkio",
	"net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc",
}

// roots are the mount points of all hierarchies, each once.
func (h *host) roots() []string {
	var roots []string
	add := func(r string) {
		if r != "" && !slices.Contains(roots, r) {
			roots = append(roots, r)
		}
	}
	for _, c := range v1Controllers {
		add(h.v1[c])
	}
	add(h.unified)
	var named []string
	for c, r := range h.v1 {
		if strings.HasPrefix(c, "name=") {
			named = append(named, r)
		}
	}
	slices.Sort(named)
	for _, r := range named {
		add(r)
	}
	return roots
}

// dirs are the group's folders in the hierarchies that have it.
func (h *host) dirs(group string) []string {
	var dirs []string
	for _, r := range h.roots() {
		dir := filepath.Join(r, group)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// file is the path of a group's file of a controller; empty if the host has
// not got the controller.
func (h *host) file(controller, group, name string) string {
	root := h.unified
	if h.mode == Legacy {
		root = h.v1[controller]
	}
	if root == "" {
		return ""
	}
	return filepath.Join(root, group, name)
}

// gone tells whether an error means that the group was removed: reading an open
// file of it gives ENODEV.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
