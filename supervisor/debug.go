package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/spec"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// debugPrefix begins the names of debug containers.
const debugPrefix = "debug-"

// Debug starts a container from an image of tools in the namespaces of the target's container, with that
// one's files at /target. It belongs to whoever asked for it: EndDebug ends and removes it. It also ends with
// the container, whose processes it sees.
func (s *Supervisor) Debug(ctx context.Context, r api.DebugRequest, by string, progress func(image.Progress)) (api.Attached, error) {
	t, err := s.snap.Load().target(r.Target)
	if err != nil {
		return api.Attached{}, err
	}
	at, err := t.running()
	if err != nil {
		return api.Attached{}, err
	}
	to, err := s.lastOf(ctx, t)
	if err != nil {
		return api.Attached{}, err
	}
	app := &unit.Container{Image: r.Image, PullPolicy: string(image.Missing)}
	img, err := s.pullFor(ctx, app, by, progress)
	if err != nil {
		return api.Attached{}, err
	}
	a := api.Attached{Unit: at.unit, Instance: at.instance, Run: at.run, TTY: r.TTY, Stdin: r.Stdin, Once: true,
		Container: newName(strings.TrimSuffix(debugPrefix, "-"), func(string) bool { return false })}
	s.event(api.Event{Type: event.Debug, Unit: at.unit, Instance: at.instance, Run: at.run, Container: at.shown(), By: by,
		Message: "debugged with " + r.Image, Fields: map[string]any{"args": r.Args}})
	if err := s.startDebug(ctx, a, to, img, r); err != nil {
		limited, cancel := detached(ctx)
		defer cancel()
		return a, errors.Join(s.attachError(a, err), s.EndDebug(limited, a))
	}
	return a, nil
}

func (s *Supervisor) startDebug(ctx context.Context, a api.Attached, to runtime.Status, img image.Image, r api.DebugRequest) error {
	dir := s.paths.container(a.Run, a.Container)
	// Not the run's folder, which a removal may have taken away while the image was pulled.
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it was removed meanwhile", runtime.ErrNotFound)
	} else if err != nil {
		return err
	}
	rootfs, err := s.img.Prepare(ctx, img.Digest, attachedID(a), dir, image.PrepareOptions{})
	if err != nil {
		return err
	}
	c, files := img.Config, s.paths.container(to.Run, to.Container)
	res, err := spec.Build(spec.Image{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir}, spec.Container{
		Hostname: a.Container, Command: r.Args, Env: r.Env, Terminal: r.TTY, User: "0:0", CapAdd: []string{"SYS_PTRACE"},
		Network: spec.Private, UserNS: to.IDMap != nil, Machine: s.machine,
		HostsPath: files + "/hosts", HostnamePath: files + "/hostname", ResolvConfPath: files + "/resolv.conf",
	})
	if err != nil {
		return err
	}
	config := runtime.Config{
		Unit: a.Unit, Instance: a.Instance, Run: a.Run, Container: a.Container,
		Spec: res.Spec, User: res.User, Rootfs: rootfs, Init: true, JoinContainer: to.ID, Stdin: r.Stdin,
		Log: runtime.LogConfig{Path: s.paths.log(a.Unit, a.Instance, a.Container)},
	}
	if r.Size != nil {
		config.Rows, config.Columns = r.Size.Rows, r.Size.Columns
	}
	_, err = s.rt.Start(ctx, config)
	return err
}

// EndDebug ends a debug container, if it still runs, and removes all of it. It may be repeated.
func (s *Supervisor) EndDebug(ctx context.Context, a api.Attached) error {
	id := attachedID(a)
	err := s.rt.Kill(ctx, id)
	if err == nil || errors.Is(err, runtime.ErrNotRunning) {
		_, err = s.rt.Wait(ctx, id)
	}
	if errors.Is(err, runtime.ErrNotFound) {
		err = nil
	}
	if err == nil {
		err = s.rt.Remove(ctx, id)
	}
	if err != nil {
		return s.attachError(a, err)
	}
	segments, _ := filepath.Glob(s.paths.log(a.Unit, a.Instance, a.Container) + "*")
	for _, path := range segments {
		_ = os.Remove(path)
	}
	return errors.Join(s.img.Release(id), os.RemoveAll(s.paths.container(a.Run, a.Container)))
}

// DebugInput opens the input of a debug container, see Attach.
func (s *Supervisor) DebugInput(ctx context.Context, a api.Attached) (*os.File, error) {
	f, err := s.rt.Attach(ctx, attachedID(a))
	if errors.Is(err, runtime.ErrNoInput) || errors.Is(err, runtime.ErrNotRunning) {
		return nil, nil // it takes none, or has ended already
	}
	if err != nil {
		return nil, s.attachError(a, err)
	}
	return f, nil
}

// debugPatience is how long the next daemon waits for the end of debug containers before it goes on.
const debugPatience = 5 * time.Second

// endDebugs removes what debugging has left when the daemon died, and returns the rest. It goes on without those that do
// not end: who debugs what hangs in the kernel may hang there too.
func (s *Supervisor) endDebugs(ctx context.Context, found []runtime.Status) []runtime.Status {
	left := map[string]api.Attached{}
	rest := found[:0:0]
	for _, st := range found {
		if _, ok := s.ofDebug(st.ID); !ok {
			rest = append(rest, st)
			continue
		}
		left[st.ID] = api.Attached{Unit: st.Unit, Instance: st.Instance, Run: st.Run, Container: st.Container}
	}
	// Of one that was not started yet the keeper knows nothing.
	leases, _ := s.img.Leases() // strayLeases tells the error
	for _, id := range leases {
		if a, ok := s.ofDebug(id); ok && left[id].Run == "" {
			left[id] = a
		}
	}
	var ends sync.WaitGroup
	for id, a := range left {
		ends.Add(1)
		s.background.Go(func() {
			defer ends.Done()
			if err := s.EndDebug(ctx, a); err != nil {
				s.log.Warn("a debug container stays", "unit", a.Unit, "container", id, "err", err)
			}
		})
	}
	over := make(chan struct{})
	s.background.Go(func() { ends.Wait(); close(over) })
	select {
	case <-over:
	case <-time.After(debugPatience):
	}
	return rest
}

// ofDebug tells whether a container is there for debugging. A unit may have one with such a name.
func (s *Supervisor) ofDebug(id string) (api.Attached, bool) {
	run, container := splitID(id)
	if run == "" || !strings.HasPrefix(container, debugPrefix) {
		return api.Attached{}, false
	}
	rec, err := readRecord(s.paths, run)
	if err == nil && rec.Revision.Definition.Container(container) != nil {
		return api.Attached{}, false
	}
	return api.Attached{Unit: rec.Unit.Name, Instance: rec.Instance, Run: run, Container: container}, true
}
