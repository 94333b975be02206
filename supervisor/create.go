package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// RunUnit creates the unit of a `ctl run` (name made up if empty; ErrExists if
// taken) and returns when its first run has started, or with the error of the
// failed start (then nothing of the unit is left). The image is pulled with
// progress reported.
func (s *Supervisor) RunUnit(ctx context.Context, r api.RunRequest, by string, progress func(image.Progress)) (name string, err error) {
	def := r.Unit
	if len(def.Containers) != 1 {
		return "", invalid("a unit has one container")
	}
	if def.Name == "" {
		snap := s.snap.Load()
		def.Name = newName("run", func(n string) bool { return snap.find(n) != nil })
	} else if s.snap.Load().find(def.Name) != nil {
		return "", fmt.Errorf("%w: %s", ErrExists, def.Name)
	}
	if err := checkRun(&def, s.opts.Load().Logging); err != nil {
		return "", err
	}
	app := &def.Containers[0]
	s.opts.Load().Defaults.fillOpenings(app)
	// Until its unit can be seen, nobody else would know that it is needed.
	beginning := fmt.Sprintf("run %s %p", def.Name, app)
	s.beginnings.keep(beginning, def.Name+" is being started", app.Image)
	defer s.beginnings.drop(beginning)
	img, err := s.pullFor(ctx, app, by, progress)
	if err != nil {
		return "", &StartError{Unit: def.Name, Instance: plan.Instance(def.Name, 1), Step: stepPull, Err: err}
	}
	if r.Size != nil {
		s.sizes.Store(def.Name, *r.Size)
		defer s.sizes.Delete(def.Name)
	}
	reply, started := make(chan error, 1), make(chan error, 1)
	m := create{def: def, digest: img.Digest, stale: img.Stale, request: r, by: by, reply: reply, started: started, serial: new(uint64)}
	// Whoever is gone by now still has to know whether there is something to remove.
	if err := s.send(context.WithoutCancel(ctx), m, reply); err != nil {
		return "", err
	}
	select {
	case err = <-started:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.over:
		return "", ErrUnavailable
	}
	if err == nil {
		return def.Name, nil
	}
	undo, cancel := detached(ctx)
	defer cancel()
	if rmErr := s.undoRun(undo, def.Name, *m.serial, by); rmErr != nil && !errors.Is(rmErr, ErrNoSuchUnit) {
		err = errors.Join(err, rmErr)
	}
	return "", err
}

// undoRun removes the unit that RunUnit has made, and none that has its name by now.
func (s *Supervisor) undoRun(ctx context.Context, name string, serial uint64, by string) error {
	reply := make(chan error, 1)
	m := intend{verb: verbRemove, units: []string{name}, request: api.ActRequest{Force: true}, by: by, made: serial, reply: reply}
	if err := s.send(ctx, m, reply); err != nil {
		return err
	}
	return s.awaitEffect(ctx, verbRemove, name, &entry{serial: serial})
}

func (s *Supervisor) pullFor(ctx context.Context, app *unit.Container, by string, progress func(image.Progress)) (image.Image, error) {
	policy := image.Policy(app.PullPolicy)
	if localFirst(policy) {
		if img, ok, err := s.here(ctx, app, app.Image); ok || err != nil {
			return img, err
		}
	}
	return s.pullImage(ctx, api.Operation{By: by}, app.Image,
		image.PullOptions{Policy: policy, Progress: progress, Credentials: credentials(app.RegistryAuth)})
}

// sourceRun is the source of revisions that `run` made.
const sourceRun = "run"

// create makes a unit that no file declares.
type create struct {
	def     unit.Unit
	digest  string
	stale   bool
	request api.RunRequest
	by      string
	reply   chan error
	started chan error
	serial  *uint64 // of the unit; set before the reply
}

func (m create) handle(l *loop) {
	name := m.def.Name
	if l.descent != nil {
		m.reply <- errGoingDown
		return
	}
	if l.units[name] != nil {
		m.reply <- fmt.Errorf("%w: %s", ErrExists, name)
		return
	}
	if err := l.conflicts([]*unit.Unit{&m.def}); err != nil {
		m.reply <- err
		return
	}
	now := time.Now()
	rec := state.Unit{Name: name, Revision: 1, Intent: plan.Running, CreatedAt: now, AutoRemove: m.request.Remove}
	rev := state.Revision{Unit: name, Number: 1, Definition: m.def, Source: sourceRun, By: m.by, AppliedAt: now, Digest: m.digest, Stale: m.stale}
	w := l.newWanted(rec, []state.Revision{rev})
	w.attached, w.started, w.readers = m.request.Attach, m.started, new(atomic.Int32)
	*m.serial = w.serial
	l.setUnit(name, w)
	l.saveUnit(w, rev)
	l.undo = append(l.undo, func() { l.setUnit(name, nil); delete(l.auto, name) })
	l.event(api.Event{Type: event.Apply, Unit: name, By: m.by, Message: "created by run", Fields: map[string]any{"revision": 1}})
	l.replies = append(l.replies, func(err error) { m.reply <- err })
}
