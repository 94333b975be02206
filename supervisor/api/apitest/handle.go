package apitest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Update changes the limits of units' first containers.
func (d *Daemon) Update(_ context.Context, r api.UpdateRequest, by string) (res api.UpdateResult, err error) {
	if err := d.called("Update", fmt.Sprintf("%v %s", r.Units, r.Container), by); err != nil {
		return res, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.match(r.Units)
	if err != nil {
		return res, err
	}
	for _, name := range names {
		u := d.units[name]
		was := u.Definition
		if len(was.Containers) == 0 {
			continue
		}
		next := was
		next.Containers = append([]unit.Container(nil), was.Containers...)
		if next.Containers[0].Limits, err = r.Change.Apply(was.Containers[0].Limits); err != nil {
			return res, fmt.Errorf("%w: unit %s: %w", api.ErrInvalid, name, err)
		}
		u.Definition = next
		u.Revision++
		res.Units = append(res.Units, api.UnitChange{Unit: name, Change: "update", Revision: u.Revision, Fields: unit.Diff(was, next)})
	}
	return res, nil
}

// Pause notes it and shows the instances as paused.
func (d *Daemon) Pause(_ context.Context, r api.TargetsRequest, by string) ([]string, error) {
	return d.targets("Pause", r, "", by, "paused")
}

// Resume notes it and shows the instances as running.
func (d *Daemon) Resume(_ context.Context, r api.TargetsRequest, by string) ([]string, error) {
	return d.targets("Resume", r, "", by, plan.StateRunning)
}

// Kill notes the signal. SIGINT and SIGTERM by their numbers end a unit, as its programs do nothing about them.
func (d *Daemon) Kill(_ context.Context, r api.KillRequest, by string) ([]string, error) {
	names, err := d.targets("Kill", r.TargetsRequest, " "+r.Signal, by, "")
	if name := map[string]string{"2": "SIGINT", "15": "SIGTERM"}[r.Signal]; err == nil && name != "" {
		for _, unit := range r.Targets {
			d.End(unit, api.Exit{Signal: name})
		}
	}
	return names, err
}

// targets does something to the instances that are meant, units or instances.
func (d *Daemon) targets(method string, r api.TargetsRequest, more, by, state string) ([]string, error) {
	if err := d.called(method, strings.Join(r.Targets, " ")+more, by); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	names := []string{}
	for _, target := range r.Targets {
		found := false
		for _, u := range d.units {
			for i := range u.Instances {
				if at := &u.Instances[i]; u.Name == target || at.Name == target {
					found = true
					names = append(names, at.Name)
					if state != "" {
						at.State = state
					}
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, target)
		}
	}
	return names, nil
}

// Top gives two made-up processes.
func (d *Daemon) Top(_ context.Context, target string) ([]api.Process, error) {
	if err := d.called("Top", target, ""); err != nil {
		return nil, err
	}
	return []api.Process{
		{Instance: target + ".1", Container: "app", Pid: 4711, Inside: 1, State: "S", CPU: 1.5, RSS: 1 << 20, Threads: 1, Command: "sleep 60"},
		{Instance: target + ".1", Container: "app", Pid: 4712, Inside: 2, Parent: 4711, UID: 33, State: "D", Wait: "io_schedule", RSS: 1 << 21, Threads: 2, Command: "cat /data"},
	}, nil
}

// Stats gives made-up usage of every instance, which has used another second of
// two processors' time each time it is asked for.
func (d *Daemon) Stats(_ context.Context, targets []string) ([]api.Usage, error) {
	if err := d.called("Stats", strings.Join(targets, " "), ""); err != nil {
		return nil, err
	}
	list := []api.Usage{}
	for _, u := range d.Units() {
		for _, i := range u.Instances {
			list = append(list, api.Usage{At: time.Now(), Unit: u.Name, Instance: i.Name, Container: "app", Run: i.Run, State: i.State,
				Stats: cgroup.Stats{MemoryCurrent: 64 << 20, MemoryLimit: 128 << 20, MemoryPeak: 96 << 20, Pids: 3, CPUUsec: 2_000_000}})
		}
	}
	return list, nil
}
