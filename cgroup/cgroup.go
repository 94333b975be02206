package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mode is how the host lays out its control groups.
type Mode int

// Unified is cgroup v2 alone; Legacy is v1 controllers, with or without an
// empty v2 hierarchy beside them ("hybrid").
const (
	Unified Mode = iota
	Legacy
)

func (m Mode) String() string {
	if m == Unified {
		return "cgroup v2"
	}
	return "cgroup v1"
}

// Detect tells the host's mode.
func Detect() (Mode, error) {
	h, err := theHost()
	if err != nil {
		return 0, err
	}
	return h.mode, nil
}

// Group is one control group, named by its path below every hierarchy's root,
// "/wherry/web.1-7f3k/app".
type Group struct{ Path string }

// OOMKills is how many processes the kernel killed in it for memory.
func (g Group) OOMKills() (uint64, error) {
	h, err := g.host("read OOM kills")
	if err != nil {
		return 0, err
	}
	if len(h.dirs(g.Path)) == 0 {
		return 0, g.wrap("read OOM kills", fs.ErrNotExist)
	}
	n, err := h.oomKills(g.Path)
	return n, g.wrap("read OOM kills", err)
}

// Procs lists the group's processes, those of groups below it included.
func (g Group) Procs() ([]int, error) {
	h, err := g.host("list processes")
	if err != nil {
		return nil, err
	}
	pids, err := h.procs(g.Path)
	return pids, g.wrap("list processes", err)
}

// Exists tells whether the group is there, in any hierarchy.
func (g Group) Exists() (bool, error) {
	h, err := g.host("look up")
	if err != nil {
		return false, err
	}
	return len(h.dirs(g.Path)) > 0, nil
}

// host checks the path and returns the host.
func (g Group) host(op string) (*host, error) {
	if err := g.check(); err != nil {
		return nil, g.wrap(op, err)
	}
	h, err := theHost()
	return h, g.wrap(op, err)
}

// errPath guards every operation: the root group is the whole host.
var errPath = errors.New("not the path of a group below the root")

func (g Group) check() error {
	if !path.IsAbs(g.Path) || path.Clean(g.Path) != g.Path || g.Path == "/" {
		return errPath
	}
	return nil
}

func (g Group) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s of group %s: %w", op, g.Path, err)
}

// procs reads cgroup.procs of the group and all below it, in the first
// hierarchy that has the group.
func (h *host) procs(group string) ([]int, error) {
	dirs := h.dirs(group)
	if len(dirs) == 0 {
		return nil, fs.ErrNotExist
	}
	var pids []int
	err := walk(dirs[0], func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return fmt.Errorf("cgroup.procs: %w", err)
			}
			if pid > 0 { // 0: a process of another PID namespace
				pids = append(pids, pid)
			}
		}
		return nil
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// walk calls f for the group's folder and those below it, the deepest first. A
// group that vanishes meanwhile is passed over.
func walk(dir string, f func(dir string) error) error {
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walk(filepath.Join(dir, e.Name()), f); err != nil {
				return err
			}
		}
	}
	return f(dir)
}
