package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
)

// groupDeadline is how long the kernel gets to end and take apart a group:
// processes in an uninterruptible wait can hold it up.
const groupDeadline = 10 * time.Second

// ownGroup is the group of a keeper that nobody else put anywhere, below the
// containers' parent and beside them.
const ownGroup = ".keeper"

// hierarchies are the mount points of all control group hierarchies. They do not change
// while the host runs.
var hierarchies = sync.OnceValues(findHierarchies)

func findHierarchies() ([]string, error) {
	if cgroupUnified() {
		return []string{"/sys/fs/cgroup"}, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var dirs []string
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup") && strings.HasPrefix(fields[4], "/sys/fs/cgroup/") {
			dirs = append(dirs, fields[4])
		}
	}
	return dirs, nil
}

// cgroupUnified says whether the host has cgroup v2 alone.
func cgroupUnified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// leavePatience is how long the last processes of containers may take to leave the keeper's group.
const leavePatience = 3 * time.Second

// leaveGroup moves the keeper to the root and removes its group, and the
// parent if nothing else stands below it. On a host with both versions of cgroups all
// containers are in the keeper's group of the second, and one that was just killed, or
// what a failed start has left, may still be on its way out.
func leaveGroup(parent string) {
	dirs, err := hierarchies()
	if err != nil {
		return
	}
	own := path.Join(parent, ownGroup)
	for _, h := range dirs {
		if _, err := os.Stat(filepath.Join(h, own)); err == nil {
			os.WriteFile(filepath.Join(h, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	_ = (cgroup.Group{Path: own}).Remove(ctx) // a next keeper finds it, and uses it
	for _, h := range dirs {
		for d := filepath.Join(h, parent); d != h; d = filepath.Dir(d) {
			if os.Remove(d) != nil {
				break
			}
		}
	}
}

// removeEmptyGroup removes the group at path where it has no group below it, and
// is none of systemd's.
func removeEmptyGroup(path string) {
	if isScope(path) {
		return
	}
	dirs, err := hierarchies()
	if err != nil {
		return
	}
	for _, h := range dirs {
		unix.Rmdir(filepath.Join(h, path))
	}
}

// emptyGroup ends every process of the group and waits until none is left.
func emptyGroup(g cgroup.Group) error {
	pids, err := g.Procs()
	if err == nil && len(pids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), groupDeadline)
	defer cancel()
	if err := g.Kill(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for ctx.Err() == nil {
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("group %s: processes do not end", g.Path)
}

func removeGroup(g cgroup.Group) error {
	ctx, cancel := context.WithTimeout(context.Background(), groupDeadline)
	defer cancel()
	return g.Remove(ctx)
}
