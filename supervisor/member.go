package supervisor

import (
	"fmt"
	"strings"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// member is one container of a run, as observed. Only the loop touches it.
type member struct {
	def       *unit.Container
	phase     plan.ContainerPhase
	began     bool // started at least once in this run
	status    runtime.Status
	startedAt time.Time
	endedAt   time.Time
	exit      *runtime.Exit
	early     *runtime.Status // its end, of which we heard before its start was confirmed
	failure   string          // of a start that failed
	spoilt    bool            // it failed as what the run shares is gone
	stuck     string          // why its stop does not end it
	attempts  plan.Attempts   // of its single restarts
	restarts  int
	reason    string // of its latest start, empty for the first
	again     bool   // its next start follows an earlier one, of which things may be left
}

// newMembers are the containers of a run before its start, in the order of it.
func newMembers(rec *record) []*member {
	var list []*member
	for _, c := range unit.StartOrder(rec.Revision.Definition.Containers) {
		list = append(list, &member{def: c, phase: plan.ContainerWaiting})
	}
	return list
}

// several tells whether the run has more than one container.
func (r *run) several() bool { return len(r.members) > 1 }

func (r *run) member(name string) *member {
	for _, m := range r.members {
		if m.def.Name == name {
			return m
		}
	}
	return nil
}

// leading is the container that stands for the run where there is room for one.
func (r *run) leading() *member {
	if m := r.member(r.Revision.Definition.Leading().Name); m != nil {
		return m
	}
	return r.members[0]
}

// any tells whether a container is in the phase.
func (r *run) any(p plan.ContainerPhase) bool {
	for _, m := range r.members {
		if m.phase == p {
			return true
		}
	}
	return false
}

// begun tells whether any container was ever started.
func (r *run) begun() bool {
	for _, m := range r.members {
		if m.began {
			return true
		}
	}
	return false
}

// shown is a container's name where it says something: if there are several.
func (r *run) shown(m *member) string {
	if r.several() {
		return m.def.Name
	}
	return ""
}

// containerID is the keeper's name of a container, and that of its image lease.
func containerID(run, container string) string { return run + "." + container }

// attemptsKey is where the attempts of a single container are kept.
func (r *run) attemptsKey(m *member) string { return api.JoinTarget(r.Instance, m.def.Name) }

// started takes over what the keeper says of a container that runs.
func (m *member) started(st runtime.Status) {
	m.status, m.startedAt, m.endedAt, m.exit, m.failure, m.began = st, st.StartedAt, time.Time{}, nil, "", true
	m.stuck = ""
	if m.startedAt.IsZero() {
		m.startedAt = time.Now()
	}
}

// ended takes over how it ended.
func (m *member) ended(x runtime.Exit) {
	m.exit, m.endedAt = &x, x.At
	if m.endedAt.IsZero() {
		m.endedAt = time.Now()
	}
}

// observed is the container as the plan sees it.
func (m *member) observed() plan.Container {
	c := plan.Container{Name: m.def.Name, Phase: m.phase, Began: m.began, StartedAt: m.startedAt, EndedAt: m.endedAt, Code: -1,
		Error: m.failure, Spoilt: m.spoilt, Attempts: m.attempts}
	switch {
	case m.exit == nil:
	case m.exit.Signal == "" && !m.exit.Unknown:
		c.Code, c.Clean = m.exit.Code, m.exit.Code == 0
	default:
		c.Error = exitWords(apiExit(m.exit, m.endedAt))
	}
	return c
}

// within is the run's containers as the plan sees them.
func (r *run) within(now time.Time) plan.Containers {
	in := plan.Containers{Unit: r.Revision.Definition, Now: now}
	for _, m := range r.members {
		in.List = append(in.List, m.observed())
	}
	return in
}

// apiExit is an end as the API says it.
func apiExit(x *runtime.Exit, at time.Time) *api.Exit {
	if x == nil {
		return nil
	}
	return &api.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM, Unknown: x.Unknown, Cause: x.Cause, At: at, Status: x.Status}
}

// move takes the container to the next phase; a move the table does not know is a
// bug and changes nothing.
func (m *member) move(next plan.ContainerPhase) error {
	p, err := m.phase.To(next)
	if err != nil {
		return fmt.Errorf("container %s: %w", m.def.Name, err)
	}
	m.phase = p
	return nil
}

// means tells whether a status is about the container's latest start: news of an
// earlier one may come late. Which is later the times do not say: the clock may have been set
// in between.
func (m *member) means(st runtime.Status) bool {
	same := st.StartedAt.Equal(m.status.StartedAt)
	if m.phase == plan.ContainerStarting || m.phase == plan.ContainerWaiting {
		return !m.began || !same
	}
	return same
}

// splitID is the inverse of containerID. A container's name has no dot.
func splitID(id string) (run, container string) {
	at := strings.LastIndexByte(id, '.')
	if at < 0 {
		return id, ""
	}
	return id[:at], id[at+1:]
}
