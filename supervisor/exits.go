package supervisor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/exits"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// outputPatience is how long the last output of a container is looked for.
const outputPatience = 5 * time.Second

// Exits are the last ends of a unit's or an instance's containers, the newest
// first. They outlive the runs, and go with the unit.
func (s *Supervisor) Exits(_ context.Context, name string) ([]api.ExitRecord, error) {
	t, err := s.snap.Load().target(name)
	if err != nil {
		return nil, err
	}
	list, err := s.exits.List(t.entry.unit.Name, t.instance)
	if err != nil {
		return nil, err
	}
	if t.container != "" {
		list = slices.DeleteFunc(list, func(r api.ExitRecord) bool { return r.Container != t.container })
	}
	return list, nil
}

// keepExit keeps how a container has ended. The loop does not wait for the disk.
func (l *loop) keepExit(r *run, m *member) {
	x := m.exit
	rec := l.exitRecord(r, m.endedAt)
	rec.Container, rec.StartedAt, rec.Exit = m.def.Name, m.startedAt, apiExit(x, m.endedAt)
	rec.Pressure, rec.Memory, rec.LastOOM = x.Pressure, memoryUse(x.Memory), apiOOM(x.LastOOM)
	log := m.status.LogPath
	if log == "" {
		log = l.paths.log(r.Unit.Name, r.Instance, m.def.Name)
	}
	l.putExit(rec, log)
}

// keepFailure keeps why a start has failed.
func (l *loop) keepFailure(r *run, container, step, detail string) {
	rec := l.exitRecord(r, time.Now())
	rec.Container, rec.Step, rec.Error = container, step, detail
	l.putExit(rec, "")
}

func (l *loop) exitRecord(r *run, at time.Time) *api.ExitRecord {
	return &api.ExitRecord{Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Revision: r.Revision.Number, At: at, Stopped: r.stopped || r.phase == plan.Stopping}
}

// putExit writes a record, with the end of what stands in log. What `run --rm` has
// made is forgotten with its end.
func (l *loop) putExit(rec *api.ExitRecord, log string) {
	if w := l.units[rec.Unit]; w == nil || w.lazy() {
		return
	}
	l.wg.Go(func() {
		if log != "" {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), outputPatience)
			defer cancel()
			rec.Output, rec.OutputCut = lastOutput(ctx, log, rec.Run, rec.StartedAt)
		}
		if err := l.exits.Put(rec); err != nil {
			l.log.Warn("an exit is not kept", "unit", rec.Unit, "container", rec.Instance, "err", err)
		}
		l.post(exitKept{rec.Unit})
	})
}

// exitKept says that a record was written. Only the loop knows whether its unit is still there: the snapshot of a daemon that has
// just begun has none.
type exitKept struct{ unit string }

func (m exitKept) handle(l *loop) {
	// A unit's own work is that it is being forgotten: that may have been there before the record.
	if l.units[m.unit] == nil || l.work[m.unit] != nil {
		l.wg.Go(func() { _ = l.exits.Forget(m.unit) })
	}
}

// lastOutput is the end of what a container has written since it was started.
func lastOutput(ctx context.Context, log, run string, since time.Time) (lines []api.OutputLine, cut bool) {
	o := runtime.LogOptions{Tail: exits.MaxLines, Since: since}
	if runs, err := runtime.LogRuns(log); err == nil && slices.Contains(runs, run) {
		o.Run = run // two runs of an instance may write side by side during an update
	}
	size := 0
	for line, err := range runtime.ReadLog(ctx, log, o) {
		if err != nil {
			break
		}
		text := strings.ToValidUTF8(string(line.Text), "�")
		if len(text) > exits.MaxOutput {
			text, cut = strings.ToValidUTF8(text[len(text)-exits.MaxOutput:], ""), true
		}
		lines = append(lines, api.OutputLine{Time: line.Time, Stream: line.Stream, Text: text})
		for size += len(text); size > exits.MaxOutput; cut = true {
			size -= len(lines[0].Text)
			lines = lines[1:]
		}
	}
	return lines, cut
}

func memoryUse(m *runtime.Memory) *api.MemoryUse {
	if m == nil {
		return nil
	}
	return &api.MemoryUse{Peak: m.Peak, Limit: m.Limit}
}

func apiOOM(o *runtime.OOM) *api.OOM {
	if o == nil {
		return nil
	}
	out := &api.OOM{At: o.At, Kills: o.Kills, Memory: memoryUse(o.Memory), Pressure: o.Pressure}
	if o.Victim != nil {
		v := api.Task(*o.Victim)
		out.Victim = &v
	}
	for _, t := range o.Tasks {
		out.Tasks = append(out.Tasks, api.Task(t))
	}
	return out
}

// oomKilled tells that the kernel has killed a process of a container.
func (l *loop) oomKilled(r *run, m *member, o *runtime.OOM) {
	e := api.Event{Type: event.OOM, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Container: r.shown(m), Message: oomWords(o)}
	if o != nil {
		e.Fields = map[string]any{"oom": apiOOM(o)}
	}
	l.event(e)
}

// oomWords says whom it has hit, for people.
func oomWords(o *runtime.OOM) string {
	if o == nil {
		return "out of memory: the kernel killed a process"
	}
	s := "a process of it was killed for lack of memory"
	if v := o.Victim; v != nil {
		s = fmt.Sprintf("a process of it, %s (pid %d, %s), was killed for lack of memory", v.Comm, v.Pid, mebibytes(v.RSS))
	}
	if o.Memory != nil && o.Memory.Limit > 0 {
		s += ", limit " + mebibytes(o.Memory.Limit)
	}
	return s
}

// mebibytes is an amount of memory in the unit of limits.
func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func (p paths) exits() string { return filepath.Join(p.root, "exits") }
