package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// stepPostStart is the last step of a container's start: its post_start hooks. Like
// the others it is a fault point.
const stepPostStart = "post_start"

// preStop is what the hooks before a stop are called in events, and a fault point.
const preStop = "pre_stop"

const (
	// signalTime is what is left for the stop signal if the hooks before it have
	// used up the grace period.
	signalTime = time.Second

	// hookOutput is how much of a hook's output an event keeps: its end.
	hookOutput = 4 << 10

	// hookLook is how often the output of a hook is looked at.
	hookLook = 50 * time.Millisecond
)

// hooked is a container that hooks are run in.
type hooked struct {
	s    *Supervisor
	unit string
	name string // as people know it: its instance, and the container if there are several
	run  string
	con  *unit.Container
}

// hookedIn is the container con of a run. A run is named after its instance, and this
// after its unit.
func (s *Supervisor) hookedIn(run string, con *unit.Container) hooked {
	instance := run[:max(strings.LastIndexByte(run, '-'), 0)]
	name := instance
	if con.Name != unit.OnlyContainer {
		name = api.JoinTarget(instance, con.Name)
	}
	return hooked{s: s, unit: instance[:max(strings.LastIndexByte(instance, '.'), 0)], name: name, run: run, con: con}
}

// postStart is a step: the container counts as up when its hooks have ended. From here on
// a stop aborts the start, which otherwise would have to wait for a hook.
func (st *start) postStart(ctx context.Context) error {
	h := st.s.hookedIn(st.rec.Run, st.con)
	h.forget(preStop)
	if len(st.con.PostStart) == 0 {
		return nil
	}
	st.s.post(hooking{st.rec.Run, st.con.Name})
	return h.afterStart(ctx)
}

func (h hooked) afterStart(ctx context.Context) error {
	h.forget(stepPostStart)
	for _, hook := range h.con.PostStart {
		if err := h.one(ctx, stepPostStart, hook, hook.PostStartLimit()); err != nil {
			return err
		}
	}
	return h.note(stepPostStart, time.Now())
}

// hooking says that a container runs and its hooks are next.
type hooking struct{ run, container string }

func (m hooking) handle(l *loop) {
	r := l.runs[m.run]
	if r == nil {
		return
	}
	for _, key := range []string{containerID(m.run, m.container), r.Instance} {
		w := l.work[key]
		if w == nil || w.kind != string(plan.Start) {
			continue
		}
		l.touch(r.Unit.Name)
		if w.kind = plan.Abortable; r.phase == plan.Stopping {
			w.cancel()
		}
		return
	}
}

// abortHooks ends the hooks of the run's containers that are being started.
func (l *loop) abortHooks(r *run) {
	for _, m := range r.members {
		if w := l.work[containerID(r.Run, m.def.Name)]; w != nil && w.kind == plan.Abortable {
			w.cancel()
		}
	}
}

// resumeHooks runs the hooks again that the death of the daemon has cut off. A
// container whose hooks fail now is ended: then its restart policy decides.
func (l *loop) resumeHooks(r *run) {
	for _, m := range r.members {
		h := l.hookedIn(r.Run, m.def)
		if m.phase != plan.ContainerUp || len(m.def.PostStart) == 0 || h.noted(stepPostStart) {
			continue
		}
		l.wg.Go(func() {
			err := h.afterStart(l.ctx)
			if err == nil || l.ctx.Err() != nil || errors.Is(err, runtime.ErrNotRunning) {
				return
			}
			if err := h.s.rt.Kill(l.ctx, h.id()); err != nil {
				h.s.log.Warn("container not ended whose hooks failed", "unit", h.unit, "container", h.name, "err", err)
			}
		})
	}
}

// beforeStop runs the hooks before a stop and returns how much of the grace period is
// left. They are run once for each stop: if the daemon dies meanwhile, the next one goes
// on with the signal.
func (h hooked) beforeStop(ctx context.Context, own time.Duration, haste *turn) time.Duration {
	grace, kill, _ := haste.grace(own)
	if len(h.con.PreStop) == 0 || kill || grace <= 0 || h.noted(preStop) || !h.running(ctx) {
		return own
	}
	until := time.Now().Add(grace - haste.reserve(grace))
	if err := h.note(preStop, until); err != nil {
		h.s.log.Warn("hook not noted", "unit", h.unit, "container", h.name, "err", err)
	}
	if h.s.fault(preStop) {
		return own
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	go shorten(ctx, cancel, haste, own, until)
	for _, hook := range h.con.PreStop {
		limit := time.Until(until)
		if limit <= 0 {
			break // ctx ends at the same moment, which need not have come to it yet
		}
		if hook.Timeout > 0 {
			limit = min(limit, time.Duration(hook.Timeout))
		}
		if h.one(ctx, preStop, hook, limit) != nil && ctx.Err() != nil {
			break // no time is left for the others
		}
	}
	return max(time.Until(until), signalTime)
}

// shorten ends the hooks when somebody is in more of a hurry than they are.
func shorten(ctx context.Context, cancel context.CancelFunc, haste *turn, own time.Duration, until time.Time) {
	for {
		grace, kill, changed := haste.grace(own)
		if left := time.Until(until); kill || grace < left && haste.hurried() {
			select {
			case <-time.After(grace):
			case <-ctx.Done():
			}
			cancel()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// running tells whether the container has a process to run hooks beside.
func (h hooked) running(ctx context.Context) bool {
	all, err := h.s.rt.List(ctx)
	if err != nil {
		return false
	}
	for _, st := range all {
		if st.ID == h.id() {
			return st.State == runtime.Running
		}
	}
	return false
}

func (h hooked) id() string { return containerID(h.run, h.con.Name) }

// one runs a hook and tells of it in an event, with the end of its output.
func (h hooked) one(ctx context.Context, kind string, hook unit.Hook, limit time.Duration) error {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	output, err := h.exec(limited, hook)
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("killed after %v", limit.Round(time.Millisecond))
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(hook.Command, " "), err)
		if output != "" {
			err = fmt.Errorf("%w: %s", err, lastLine(output))
		}
	}
	message := kind + " " + strings.Join(hook.Command, " ") + ": done"
	if err != nil {
		message = kind + " " + err.Error()
	}
	fields := map[string]any{"took": time.Since(began).Round(time.Millisecond).String()}
	if output != "" {
		fields["output"] = output
	}
	instance, container := api.SplitTarget(h.name)
	h.s.event(api.Event{Type: event.Hook, Unit: h.unit, Instance: instance, Run: h.run, Container: container, Message: message, Fields: fields})
	return err
}

func lastLine(output string) string {
	output = strings.TrimSpace(output)
	return output[strings.LastIndexByte(output, '\n')+1:]
}

func (h hooked) exec(ctx context.Context, hook unit.Hook) (output string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	out := keepTail(r)
	x, err := h.s.rt.Exec(ctx, h.id(), runtime.Process{Args: hook.Command, Env: environment(hook.Environment), Cwd: hook.WorkingDir,
		User: hook.User, Privileged: hook.Privileged, Stdout: w, Stderr: w})
	w.Close()
	output = out()
	switch {
	case err != nil:
		return output, err
	case x.Unknown || x.Signal != "" || x.Code != 0:
		return output, errors.New(exitWords(apiExit(&x, x.At)))
	}
	return output, nil
}

// keepTail reads a pipe until the result is called, which gives the end of what was
// written. It looks now and then instead of waiting for more: a process that a hook
// leaves behind may hold the pipe open for ever.
func keepTail(r *os.File) (end func() string) {
	stop, done := make(chan struct{}), make(chan struct{})
	var tail []byte
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				tail = drainTail(r, tail)
				return
			case <-time.After(hookLook):
				tail = drainTail(r, tail)
			}
		}
	}()
	return func() string {
		close(stop)
		<-done
		return strings.ToValidUTF8(string(tail), "�")
	}
}

// drainTail reads what is there, at most so much that a pipe which somebody fills
// without end does not keep us.
func drainTail(r *os.File, tail []byte) []byte {
	raw, err := r.SyscallConn()
	if err != nil {
		return tail
	}
	buf := make([]byte, hookOutput)
	raw.Read(func(fd uintptr) bool {
		for range 64 {
			n, err := unix.Read(int(fd), buf)
			if err != nil || n <= 0 {
				break
			}
			tail = append(tail, buf[:n]...)
			tail = tail[max(0, len(tail)-hookOutput):]
		}
		return true
	})
	return tail
}

// What hooks have been run stands beside the run's record, so that it goes with the run.

func (h hooked) mark(kind string) string {
	return filepath.Join(h.s.paths.run(h.run), kind+"."+h.con.Name)
}

// note keeps that hooks have been run, or may run until a time.
func (h hooked) note(kind string, until time.Time) error {
	raw, err := json.Marshal(until)
	if err != nil {
		return err
	}
	return os.WriteFile(h.mark(kind), raw, 0o600)
}

func (h hooked) noted(kind string) bool {
	_, err := os.Stat(h.mark(kind))
	return err == nil
}

func (h hooked) forget(kind string) { os.Remove(h.mark(kind)) }
