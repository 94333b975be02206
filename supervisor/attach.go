package supervisor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Attach finds a running container of the target and opens its input: the master of its
// terminal, whose size may be set but which only the keeper reads, or the pipe that is its stdin. The file is
// nil if there is neither. The caller closes it.
func (s *Supervisor) Attach(ctx context.Context, r api.AttachRequest, by string) (api.Attached, *os.File, error) {
	t, at, err := s.findRunning(ctx, r)
	if err != nil {
		return api.Attached{}, nil, err
	}
	a := api.Attached{Unit: at.unit, Instance: at.instance, Container: at.container, Run: at.run}
	file, err := s.rt.Attach(ctx, at.id)
	switch {
	case err == nil:
		a.TTY = isTerminal(file)
		a.Stdin = !a.TTY || takesInput(t.entry, at.container)
		a.Once = a.Stdin && !a.TTY && t.entry.rev.Source == sourceRun // as with Docker's run -i
	case !errors.Is(err, runtime.ErrNoInput):
		return a, nil, s.attachError(a, err)
	}
	if !r.Ask {
		s.event(api.Event{Type: event.Attach, Unit: at.unit, Instance: at.instance, Run: at.run, Container: at.shown(), By: by,
			Message: "attached"})
	}
	return a, file, nil
}

// findRunning finds the container. What has only just been started may not be seen to run yet.
func (s *Supervisor) findRunning(ctx context.Context, r api.AttachRequest) (t target, at place, err error) {
	find := func(snap *snapshot) (bool, error) {
		if t, err = snap.target(r.Target); err != nil {
			return false, err
		}
		at, err = t.running()
		coming := r.Wait && errors.Is(err, ErrNotRunning) && !(t.entry.final && t.entry.live == 0)
		if coming {
			return false, nil
		}
		return err == nil, err
	}
	if werr := s.awaitSnapshot(ctx, find); werr != nil {
		return t, at, werr
	}
	return t, at, nil
}

// startSize is the size that the terminal of a unit has at its start: of whoever is starting it right now.
func (s *Supervisor) startSize(unit string) (rows, columns uint16) {
	if v, ok := s.sizes.Load(unit); ok {
		size := v.(api.Size)
		return size.Rows, size.Columns
	}
	return 0, 0
}

func takesInput(e *entry, container string) bool {
	return slices.ContainsFunc(e.rev.Definition.Containers, func(c unit.Container) bool { return c.Name == container && c.StdinOpen })
}

// isTerminal tells a terminal's master from a pipe.
func isTerminal(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	tty := false
	_ = raw.Control(func(fd uintptr) {
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		tty = err == nil
	})
	return tty
}

// attachError names what it was about.
func (s *Supervisor) attachError(a api.Attached, err error) error {
	if errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return fmt.Errorf("unit %s: container %s: %w", a.Unit, a.Instance, err)
}

func attachedID(a api.Attached) string { return a.Run + "." + a.Container }

// Output yields what a container writes until its end, beginning with its last
// tail lines, all of them if it is negative. It comes from the log: however slowly it is read, the container does not wait.
// What it writes after Output was called is not missed, whenever the reading begins: it may answer to input of the meantime.
func (s *Supervisor) Output(ctx context.Context, a api.Attached, tail int) iter.Seq2[api.LogLine, error] {
	path := s.paths.log(a.Unit, a.Instance, a.Container)
	var now runtime.LogPlace
	if tail == 0 {
		for l, err := range runtime.ReadLog(ctx, path, runtime.LogOptions{Run: a.Run, Tail: 1}) {
			if err != nil {
				return func(yield func(api.LogLine, error) bool) { yield(api.LogLine{}, err) }
			}
			now = l.At
		}
	}
	return func(yield func(api.LogLine, error) bool) {
		line := func(l runtime.LogLine) api.LogLine {
			return api.LogLine{Unit: a.Unit, Instance: a.Instance, Container: a.Container, Run: a.Run,
				Time: l.Time, Stream: l.Stream, Partial: l.Partial, Text: l.Text}
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = s.rt.Wait(ctx, attachedID(a)) // whatever it says, there is nothing more to wait for
		}()
		defer func() {
			cancel()
			<-done
		}()
		place := now
		if tail > 0 {
			for l, err := range runtime.ReadLog(ctx, path, runtime.LogOptions{Run: a.Run, Tail: tail}) {
				if err != nil {
					yield(api.LogLine{}, err)
					return
				}
				if place = l.At; !yield(line(l), nil) {
					return
				}
			}
		}
		for l, err := range runtime.ReadLog(ctx, path, runtime.LogOptions{Run: a.Run, Follow: true, After: place, Done: done, Whole: tail < 0}) {
			if !yield(line(l), err) {
				return
			}
		}
	}
}

// CloseInput ends a container's input for good.
func (s *Supervisor) CloseInput(ctx context.Context, a api.Attached) error {
	err := s.rt.CloseStdin(ctx, attachedID(a))
	if err == nil || errors.Is(err, runtime.ErrNoInput) || errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return s.attachError(a, err)
}

// SignalMain sends a signal to a container's main process.
func (s *Supervisor) SignalMain(ctx context.Context, a api.Attached, signal, by string) error {
	s.event(api.Event{Type: event.Signal, Unit: a.Unit, Instance: a.Instance, Run: a.Run, By: by, Message: "signal " + signal})
	if err := s.rt.Signal(ctx, attachedID(a), signal); err != nil {
		return s.attachError(a, err)
	}
	return nil
}

// WaitRun waits for the end of a container that somebody was attached to.
func (s *Supervisor) WaitRun(ctx context.Context, a api.Attached) (api.Exit, error) {
	x, err := s.rt.Wait(ctx, attachedID(a))
	if errors.Is(err, runtime.ErrNotFound) {
		return api.Exit{Unknown: true, Cause: "it was removed meanwhile"}, nil
	}
	if err != nil {
		return api.Exit{}, s.attachError(a, err)
	}
	return execExit(x), nil
}
