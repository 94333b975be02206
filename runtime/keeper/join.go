package keeper

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/cgroups/systemd"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// joining puts a starting container into its groups where v1 controllers are.
//
// libcontainer moves the process that it has forked. A move of somebody else's
// process waits for an RCU grace period, some 10 ms. A thread that moves
// itself does not wait: ours enters the groups first, so that what it forks
// begins there, and leaves them when libcontainer is done. Limits are set then,
// before anything of the user's runs: none of them ever holds for our thread.
//
// A v2 hierarchy beside v1 moves whole processes only, so libcontainer does
// that. It has no controllers: only systemd needs it, to see that containers
// are not part of our own service. Where there is no systemd we leave it be.
//
// If libcontainer one day hides its map of paths from us it moves the process
// itself again, and all stays right but for the time.
type joining struct {
	lc     *libcontainer.Container
	conf   *configs.Config
	limits *cgroups.Resources
	own    map[string]string // libcontainer's map of controllers to folders
	all    map[string]string // what stood in it
	doors  map[string]string
}

// newJoining makes the groups and keeps libcontainer from moving processes.
// It is nil where there is nothing to gain.
func newJoining(lc *libcontainer.Container, conf *configs.Config) (*joining, error) {
	if cgroups.IsCgroup2UnifiedMode() {
		return nil, nil
	}
	st, err := lc.State()
	if err != nil {
		return nil, err
	}
	j := &joining{lc: lc, conf: conf, limits: conf.Cgroups.Resources, own: st.CgroupPaths, all: maps.Clone(st.CgroupPaths)}
	if j.doors, err = doors(j.all, conf.Cgroups.Path); err != nil {
		return nil, err
	}
	m, err := manager.NewWithPaths(conf.Cgroups, j.all)
	if err != nil {
		return nil, err
	}
	if !systemd.IsRunningSystemd() {
		delete(j.all, "")
	}
	if err := m.Apply(-1); err != nil { // makes them, moves nobody
		return nil, err
	}
	maps.DeleteFunc(j.own, func(controller, _ string) bool { return j.all[controller] == "" || controller != "" })
	// Without a folder no device rule can be set; this flag makes that no error.
	conf.Cgroups.Resources, conf.Cgroups.Rootless = &cgroups.Resources{}, true
	return j, nil
}

// doors are the folders of a group in each hierarchy of v1, with the root of
// that hierarchy: there our thread leaves to, for the moment that it still has.
func doors(folders map[string]string, group string) (map[string]string, error) {
	out := map[string]string{}
	for controller, dir := range folders {
		if controller == "" {
			continue // v2
		}
		root, ok := strings.CutSuffix(dir, group)
		if !ok {
			return nil, fmt.Errorf("group %s: controller %s has it at %s", group, controller, dir)
		}
		out[dir] = root
	}
	return out, nil
}

// enter moves the calling thread, which must be locked, into the groups.
func (j *joining) enter() error {
	if j == nil {
		return nil
	}
	for dir := range j.doors {
		if err := cgroups.WriteFile(dir, "tasks", "0"); err != nil {
			j.leave()
			return err
		}
	}
	return nil
}

// leave moves the calling thread out of the groups, which otherwise would have
// a process too many as long as it lives.
func (j *joining) leave() error {
	if j == nil {
		return nil
	}
	var first error
	for _, root := range j.doors {
		if err := cgroups.WriteFile(root, "tasks", "0"); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// finish sets the limits, and lets libcontainer know of the groups again: it
// joins them with every further process.
func (j *joining) finish() error {
	if j == nil {
		return nil
	}
	maps.Copy(j.own, j.all)
	j.conf.Cgroups.Resources, j.conf.Cgroups.Rootless = j.limits, false
	return j.lc.Set(*j.conf)
}

// movesProcesses tells whether a start moves a process from group to group.
func movesProcesses() bool { return cgroups.IsCgroup2UnifiedMode() || systemd.IsRunningSystemd() }

// warmEvery is well below a grace period of RCU.
const warmEvery = 4 * time.Millisecond

// warmGroups lets the kernel begin with what it does before it moves another
// process: it waits for a grace period of RCU, unless it did so a moment ago.
// So we move ourselves to where we are while other things are prepared. The
// result ends it.
func warmGroups() (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			if warmOnce() != nil {
				return
			}
			select {
			case <-done:
				return
			case <-time.After(warmEvery):
			}
		}
	}()
	return func() { close(done) }
}

func warmOnce() error {
	root := "/sys/fs/cgroup"
	if !cgroups.IsCgroup2UnifiedMode() {
		root = "/sys/fs/cgroup/unified"
	}
	// Read every time: a service manager may move us.
	now, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	own, ok := now[""]
	if !ok {
		return os.ErrNotExist
	}
	return os.WriteFile(filepath.Join(root, own, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}
