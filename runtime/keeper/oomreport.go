package keeper

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// reportPause is the least time between two reports of one container: one that
// has processes killed all the time must not keep us busy.
const reportPause = 250 * time.Millisecond

// reportOOM finds out whom the kernel has killed, keeps it, and tells
// subscribers: the container may live on.
func (k *Keeper) reportOOM(c *container) {
	if c.reports.Add(1) > 2 { // one at work, and one that comes after it and sees all
		c.reports.Add(-1)
		return
	}
	defer c.reports.Add(-1)
	c.reporting.Lock()
	defer c.reporting.Unlock()
	st := c.snapshot()
	g := cgroup.Group{Path: st.Cgroup}
	if r := k.oomOf(&st, g); r != nil && st.State == runtime.Running {
		if err := k.update(c, func(st *state) { st.LastOOM = r }); err != nil {
			k.logger.Warn("cannot keep a kill for lack of memory", "unit", st.Unit, "container", st.ID, "err", err)
		}
		k.publish(runtime.Event{Type: runtime.EventOOM, ID: st.ID, Status: st.Status, OOM: r})
		time.Sleep(reportPause)
	}
}

// oomOf is what can be known of the last kill in a container, nil if it has been
// reported already.
func (k *Keeper) oomOf(st *state, g cgroup.Group) *runtime.OOM {
	stats, err := g.Memory()
	if err != nil || stats.OOMKills <= st.OOMKills {
		return nil
	}
	kills := stats.OOMKills - st.OOMKills
	if st.LastOOM != nil && st.LastOOM.Kills >= kills {
		return nil
	}
	r := &runtime.OOM{
		At: time.Now(), Kills: kills,
		Memory:   &runtime.Memory{Peak: stats.Peak, Limit: stats.Limit},
		Pressure: pressureOf(g),
	}
	if log := readKernelLog(st.Cgroup); log != nil {
		r.Victim, r.Tasks = &log.victim, log.tasks
	}
	if len(r.Tasks) == 0 {
		r.Tasks = tasksOf(g)
	}
	return r
}

func pressureOf(g cgroup.Group) *cgroup.Pressure {
	p, err := g.Pressure()
	if err != nil {
		return nil // a kernel without
	}
	return &p
}

// maxLookedAt bounds how many processes are looked at for the largest ones.
const maxLookedAt = 500

// tasksOf are the processes of a group, the largest first.
func tasksOf(g cgroup.Group) []runtime.Task {
	pids, err := g.Procs()
	if err != nil {
		return nil
	}
	var tasks []runtime.Task
	for _, pid := range pids[:min(len(pids), maxLookedAt)] {
		if t, ok := readTask(pid); ok {
			tasks = append(tasks, t)
		}
	}
	return largest(tasks)
}

func readTask(pid int) (runtime.Task, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	comm, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return runtime.Task{}, false
	}
	statm, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return runtime.Task{}, false
	}
	t := runtime.Task{Pid: pid, Comm: strings.TrimSuffix(string(comm), "\n")}
	var size, rss int64
	if _, err := fmt.Sscan(string(statm), &size, &rss); err == nil {
		t.RSS = rss * int64(os.Getpagesize())
	}
	return t, true
}
