package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// A process in an uninterruptible sleep, mostly one that waits for a broken disk or
// network file system, does not heed SIGKILL. Nothing can be done about it here,
// but people must see what it is.

const (
	// stuckAfter is how long after its kill a container counts as stuck.
	stuckAfter = 10 * time.Second

	// stuckLook is how often it is looked at.
	stuckLook = 5 * time.Second
)

// stateStuck is the word for a unit, instance or container that its stop does not end.
const stateStuck = "stuck"

// stuckWords say why the run does not end; empty if nothing is wrong with it.
func (r *run) stuckWords() string {
	for _, m := range r.members {
		if m.stuck != "" && m.phase == plan.ContainerUp {
			return stateStuck + ": " + m.stuck
		}
	}
	return ""
}

// stuck says why a container does not end.
type stuck struct{ run, container, why string }

func (m stuck) handle(l *loop) {
	r := l.runs[m.run]
	if r == nil {
		return
	}
	c := r.member(m.container)
	if c == nil || c.stuck == m.why {
		return
	}
	c.stuck = m.why
	l.log.Warn("container does not end", "unit", r.Unit.Name, "container", containerID(m.run, m.container), "err", m.why)
	l.touch(r.Unit.Name)
}

// watchStop tells of a container that its stop does not end. The result ends the watch.
func (s *Supervisor) watchStop(ctx context.Context, run string, c *unit.Container, own time.Duration, h *turn) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		for sleep(ctx, stuckLook) {
			if time.Since(h.killAt(began.Add(own))) >= stuckAfter {
				s.post(stuck{run, c.Name, s.whyStuck(ctx, containerID(run, c.Name))})
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// whyStuck looks at the processes that a killed container still has.
func (s *Supervisor) whyStuck(ctx context.Context, id string) string {
	const unknown = "its processes do not end"
	all, err := s.rt.List(ctx)
	if err != nil {
		return unknown
	}
	for _, st := range all {
		if st.ID != id || st.Cgroup == "" {
			continue
		}
		pids, err := cgroup.Group{Path: st.Cgroup}.Procs()
		if err != nil {
			return unknown
		}
		if why := sleepers("/proc", pids); why != "" {
			return why
		}
	}
	return unknown
}

// sleepers names the first of the processes that is in an uninterruptible sleep, and where
// in the kernel that is.
func sleepers(proc string, pids []int) string {
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		raw, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		// The name stands in parentheses and may have any of them in it.
		open, last := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
		if open < 0 || last < open || !bytes.HasPrefix(raw[last:], []byte(") D")) {
			continue
		}
		why := fmt.Sprintf("process %d (%s) is in an uninterruptible sleep", pid, raw[open+1:last])
		if at := kernelPlace(dir); at != "" {
			why += " at " + at
		}
		return why
	}
	return ""
}

// kernelPlace is where in the kernel a process sleeps, with its callers if the host shows
// them.
func kernelPlace(dir string) string {
	if raw, err := os.ReadFile(filepath.Join(dir, "stack")); err == nil {
		var calls []string
		for line := range strings.Lines(string(raw)) { // "[<0>] io_schedule+0x46/0x80"
			_, call, _ := strings.Cut(line, "] ")
			call, _, _ = strings.Cut(strings.TrimSpace(call), "+")
			if call != "" && len(calls) < 4 {
				calls = append(calls, call)
			}
		}
		if len(calls) > 0 {
			return strings.Join(calls, " < ")
		}
	}
	raw, _ := os.ReadFile(filepath.Join(dir, "wchan"))
	if at := strings.TrimSpace(string(raw)); at != "0" {
		return at
	}
	return ""
}
