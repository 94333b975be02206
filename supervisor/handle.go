package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// statePaused is the word for a unit, instance or container whose processes all stand still.
const statePaused = "paused"

// up are the containers meant that run.
func (t target) up() ([]place, error) {
	names := t.entry.containers()
	var list []place
	for _, i := range t.entry.instances {
		if t.instance != "" && i.name != t.instance {
			continue
		}
		for _, c := range i.containers {
			if c.up && (t.container == "" || c.name == t.container) {
				list = append(list, place{unit: t.entry.unit.Name, instance: i.name, run: c.run, container: c.name,
					id: containerID(c.run, c.name), several: len(names) > 1})
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("unit %s: %w", t.entry.unit.Name, ErrNotRunning)
	}
	return list, nil
}

// Pause freezes all processes of what the targets name: units, instances, or
// single containers of them. It stays so over a restart of the daemon, and until Resume, Stop or
// Kill. The result is the containers that are paused.
func (s *Supervisor) Pause(ctx context.Context, r api.TargetsRequest, by string) ([]string, error) {
	return s.each(ctx, r, func(at place) error {
		if err := s.rt.Pause(ctx, at.id); err != nil {
			return err
		}
		s.noted(at, by, event.Pause, "paused", true)
		return nil
	})
}

// Resume lets paused containers go on.
func (s *Supervisor) Resume(ctx context.Context, r api.TargetsRequest, by string) ([]string, error) {
	return s.each(ctx, r, func(at place) error {
		if err := s.rt.Resume(ctx, at.id); err != nil {
			return err
		}
		s.noted(at, by, event.Pause, "resumed", false)
		return nil
	})
}

// Kill sends a signal, SIGKILL if none is named, to the main process of the
// containers. What the unit should be does not change: one that ends by it is
// healed as after a crash. A paused container is resumed.
func (s *Supervisor) Kill(ctx context.Context, r api.KillRequest, by string) ([]string, error) {
	signal := cmp.Or(r.Signal, "SIGKILL")
	word := strings.ToUpper(signal)
	if _, err := strconv.Atoi(word); err != nil && !strings.HasPrefix(word, "SIG") {
		word = "SIG" + word
	}
	return s.each(ctx, r.TargetsRequest, func(at place) error {
		if err := s.rt.Signal(ctx, at.id, signal); err != nil {
			return err
		}
		s.noted(at, by, event.Signal, "got "+word, false)
		return nil
	})
}

// each does something to every running container that is meant. It goes on after an
// error, so that one container does not keep the others from it.
func (s *Supervisor) each(_ context.Context, r api.TargetsRequest, do func(place) error) ([]string, error) {
	if len(r.Targets) == 0 {
		return nil, invalid("no unit named")
	}
	snap := s.snap.Load()
	var places []place
	seen := map[string]bool{}
	for _, word := range r.Targets {
		t, err := snap.target(word)
		if err != nil {
			return nil, err
		}
		list, err := t.up()
		if err != nil {
			return nil, err
		}
		for _, at := range list {
			if !seen[at.id] {
				seen[at.id] = true
				places = append(places, at)
			}
		}
	}
	names := []string{}
	var errs []error
	for _, at := range places {
		err := do(at)
		if errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
			err = fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("unit %s: container %s: %w", at.unit, at, err))
			continue
		}
		names = append(names, at.String())
	}
	return names, errors.Join(errs...)
}

// noted tells the loop and the events what was done to a container.
func (s *Supervisor) noted(at place, by, kind, what string, paused bool) {
	s.event(api.Event{Type: kind, Unit: at.unit, Instance: at.instance, Run: at.run, Container: at.shown(), By: by, Message: what})
	s.post(frozen{run: at.run, container: at.container, paused: paused})
}

// frozen says whether a container's processes stand still.
type frozen struct {
	run, container string
	paused         bool
}

func (m frozen) handle(l *loop) {
	r := l.runs[m.run]
	if r == nil {
		return
	}
	if c := r.member(m.container); c != nil && c.phase == plan.ContainerUp {
		c.status.Paused = m.paused
		l.touch(r.Unit.Name)
	}
}

// paused tells whether all containers of a run that run stand still.
func (r *run) paused() bool {
	any := false
	for _, c := range r.members {
		if c.phase == plan.ContainerUp {
			if any = true; !c.status.Paused {
				return false
			}
		}
	}
	return any
}
