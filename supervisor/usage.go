package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/procs"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// Top lists the processes of the running containers that the target names.
func (s *Supervisor) Top(_ context.Context, target string) ([]api.Process, error) {
	t, err := s.snap.Load().target(target)
	if err != nil {
		return nil, err
	}
	places, err := t.up()
	if err != nil {
		return nil, err
	}
	list := []api.Process{}
	for _, at := range places {
		c := t.entry.container(at)
		if c == nil || c.Cgroup == "" {
			continue
		}
		pids, err := (cgroup.Group{Path: c.Cgroup}).Procs()
		if err != nil {
			continue // it has just ended
		}
		for _, p := range procs.Read("/proc", pids) {
			list = append(list, api.Process{Instance: at.instance, Container: at.container, Pid: p.Pid, Inside: p.Inside, Parent: p.Parent,
				UID: p.UID, State: p.State, Wait: p.Wait, CPU: p.CPU.Seconds(), RSS: p.RSS, Threads: p.Threads, Command: p.Command})
		}
	}
	return list, nil
}

// container is what the API says of a container.
func (e *entry) container(at place) *api.Container {
	for i := range e.unit.Instances {
		if e.unit.Instances[i].Name != at.instance {
			continue
		}
		for n := range e.unit.Instances[i].Containers {
			if c := &e.unit.Instances[i].Containers[n]; c.Name == at.container {
				return c
			}
		}
	}
	return nil
}

// statsAtOnce is how many groups are read side by side: reading waits for the
// kernel's locks.
const statsAtOnce = 8

// Stats reads what the containers that run use: those that the targets name, or
// all.
func (s *Supervisor) Stats(ctx context.Context, targets []string) ([]api.Usage, error) {
	snap := s.snap.Load()
	var wanted []target
	for _, word := range targets {
		t, err := snap.target(word)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, t)
	}
	if len(targets) == 0 {
		for _, e := range snap.entries {
			wanted = append(wanted, target{entry: e})
		}
	}
	type job struct {
		at    place
		entry *entry
	}
	var jobs []job
	for _, t := range wanted {
		places, err := t.up()
		if err != nil && len(targets) > 0 {
			return nil, err
		}
		for _, at := range places {
			jobs = append(jobs, job{at, t.entry})
		}
	}
	found := make([]*api.Usage, len(jobs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, statsAtOnce)
	for i, j := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			found[i] = usageOf(ctx, j.entry, j.at)
		})
	}
	wg.Wait()
	list := []api.Usage{}
	for _, u := range found {
		if u != nil {
			list = append(list, *u)
		}
	}
	return list, ctx.Err()
}

// usageOf reads one container; nil if it has just ended.
func usageOf(ctx context.Context, e *entry, at place) *api.Usage {
	c := e.container(at)
	if ctx.Err() != nil || c == nil || c.Cgroup == "" {
		return nil
	}
	g := cgroup.Group{Path: c.Cgroup}
	u := &api.Usage{At: time.Now(), Unit: at.unit, Instance: at.instance, Container: at.container, Run: at.run, State: plan.StateRunning}
	if c.State == statePaused {
		u.State = statePaused
	}
	var err error
	if u.Stats, err = g.Stats(); err != nil {
		return nil
	}
	if p, err := g.Pressure(); err == nil && !p.Host {
		u.Pressure = &p
	}
	if e.unit.Network != "host" {
		if in, out, ok := procs.Traffic("/proc", c.Pid); ok {
			u.NetReceived, u.NetSent = &in, &out
		}
	}
	return u
}
