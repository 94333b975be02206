package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// proposal is one parsed unit file.
type proposal struct {
	unit   unit.Unit
	source string
	text   string
	file   *state.File // if it is of the units folder
}

// Apply makes units what the files say, all or none. by names who asked.
//
// A unit that somebody stopped stays stopped, with a warning; everything else
// is started. A definition that is the same as the current one changes nothing.
func (s *Supervisor) Apply(ctx context.Context, r api.ApplyRequest, by string) (api.ApplyResult, error) {
	if len(r.Files) == 0 {
		return api.ApplyResult{}, invalid("apply: no unit file")
	}
	var proposals []proposal
	var warnings []string
	var errs []error
	for _, f := range r.Files {
		u, warns, err := s.parse(f)
		for _, w := range warns {
			warnings = append(warnings, w.String())
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if i := slices.IndexFunc(proposals, func(p proposal) bool { return p.unit.Name == u.Name }); i >= 0 {
			errs = append(errs, fmt.Errorf("%s: unit %s stands in %s too", f.Source, u.Name, proposals[i].source))
			continue
		}
		proposals = append(proposals, proposal{unit: u, source: f.Source, text: f.Text})
	}
	if len(errs) > 0 {
		return api.ApplyResult{Warnings: warnings}, invalidFiles(errs)
	}
	res, err := s.propose(ctx, proposals, r.DryRun, by)
	res.Warnings = append(warnings, res.Warnings...)
	return res, err
}

func (s *Supervisor) parse(f api.File) (unit.Unit, []unit.Warning, error) {
	return unit.Parse(f.Source, []byte(f.Text), unit.Options{
		ReadFile: func(name string) ([]byte, error) {
			if text, ok := f.Files[name]; ok {
				return []byte(text), nil
			}
			return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		},
		Dir:      baseDir(f),
		Defaults: s.opts.Load().unitDefaults(),
	})
}

// baseDir is where the file's relative paths start, empty if that is not known.
func baseDir(f api.File) string {
	dir := cmp.Or(f.Dir, filepath.Dir(f.Source))
	if !filepath.IsAbs(dir) {
		return ""
	}
	return dir
}

// invalidFiles is ErrInvalid with the mistakes of all files.
func invalidFiles(errs []error) error {
	return &fileErrors{errors.Join(errs...)}
}

// fileErrors reads as the mistakes alone, which name file, line and column.
type fileErrors struct{ err error }

func (e *fileErrors) Error() string   { return e.err.Error() }
func (e *fileErrors) Unwrap() []error { return []error{ErrInvalid, e.err} }

func (s *Supervisor) propose(ctx context.Context, list []proposal, dry bool, by string) (api.ApplyResult, error) {
	reply := make(chan error, 1)
	m := &applyFiles{list: list, dry: dry, by: by, reply: reply}
	err := s.send(ctx, m, reply)
	if err != nil {
		return api.ApplyResult{}, err
	}
	return m.result, nil
}

// applyFiles turns proposals into revisions. The loop owns it until it replies.
type applyFiles struct {
	list   []proposal
	dry    bool
	by     string
	reply  chan error
	result api.ApplyResult
}

func (m *applyFiles) handle(l *loop) {
	units := make([]*unit.Unit, len(m.list))
	for i := range m.list {
		units[i] = &m.list[i].unit
	}
	if l.descent != nil && !m.dry {
		m.reply <- errGoingDown
		return
	}
	if err := l.check(units); err != nil {
		m.reply <- err
		return
	}
	for i := range m.list {
		m.result.Units = append(m.result.Units, m.compare(l, &m.list[i]))
	}
	m.result.Actions = l.foresee(m.list, m.result.Units)
	if m.dry {
		m.reply <- nil
		return
	}
	for i, c := range m.result.Units {
		m.one(l, &m.list[i], c)
	}
	l.replies = append(l.replies, func(err error) { m.reply <- err })
}

// compare says what the proposal changes.
func (m *applyFiles) compare(l *loop, p *proposal) api.UnitChange {
	w := l.units[p.unit.Name]
	if w == nil {
		return api.UnitChange{Unit: p.unit.Name, Change: "create", Revision: 1}
	}
	if w.rec.Intent == plan.Stopped {
		m.result.Warnings = append(m.result.Warnings,
			fmt.Sprintf("unit %s is stopped and stays so: `wherry ctl start %s` starts it", p.unit.Name, p.unit.Name))
	}
	same := sameUnit(w.def(), &p.unit)
	if by := w.revision().Proposed; !same && by != "" && by == p.unit.Digest() {
		same = true
		m.result.Warnings = append(m.result.Warnings,
			fmt.Sprintf("unit %s: the file is the one that is applied, and its limits were changed with `wherry ctl update` since: they stay until the file changes", p.unit.Name))
	}
	if same && w.rec.Intent != plan.Removed {
		return api.UnitChange{Unit: p.unit.Name, Change: "unchanged", Revision: w.rec.Revision}
	}
	return api.UnitChange{Unit: p.unit.Name, Change: "update", Revision: w.revs[len(w.revs)-1].Number + 1,
		Fields: unit.Diff(*w.def(), p.unit)}
}

// sameUnit compares the canonical form: equal units have equal bytes.
func sameUnit(a, b *unit.Unit) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// one makes the revision.
func (m *applyFiles) one(l *loop, p *proposal, c api.UnitChange) {
	name := p.unit.Name
	delete(l.pending, name)
	if p.file != nil {
		p.file.Unit = name
		before, known := l.files[p.file.Path]
		l.files[p.file.Path] = *p.file
		l.durable.PutFile(*p.file)
		l.undo = append(l.undo, func() {
			if l.files[p.file.Path] = before; !known {
				delete(l.files, p.file.Path)
			}
		})
	}
	if c.Change == "unchanged" {
		l.touch(name)
		return
	}
	now := time.Now()
	rev := state.Revision{Unit: name, Number: c.Revision, Definition: p.unit, Text: p.text, Source: p.source, By: m.by, AppliedAt: now}
	old := l.units[name]
	var w *wanted
	if old != nil && unit.SameRun(*old.def(), p.unit) {
		was := old.revision()
		rev.Same, rev.Digest, rev.Digests, rev.Stale = cmp.Or(was.Same, was.Number), was.Digest, was.Digests, was.Stale
	}
	if old == nil {
		w = l.newWanted(state.Unit{Name: name, Intent: plan.Running, CreatedAt: now}, nil)
	} else {
		w = old.clone()
		if w.rec.Intent == plan.Removed {
			w.rec.Intent = plan.Running // asked for again before it was gone
		}
		// A unit that a file declares is not a `run --rm` any more.
		w.rec.AutoRemove = false
		delete(l.auto, name)
	}
	l.revise(old, w, rev)
	verb := map[bool]string{true: "created", false: "updated"}[old == nil]
	l.event(api.Event{Type: event.Apply, Unit: name, By: m.by, Message: fmt.Sprintf("%s: revision %d", verb, rev.Number),
		Fields: map[string]any{"revision": rev.Number, "source": p.source}})
}

// foresee computes the first actions after the changes.
func (l *loop) foresee(list []proposal, changes []api.UnitChange) []plan.Action {
	in := l.input(time.Now(), l.everything())
	in.Shutdown = nil
	for i, c := range changes {
		d := plan.Desired{Unit: list[i].unit, Revision: c.Revision, Intent: plan.Running}
		at := slices.IndexFunc(in.Desired, func(d plan.Desired) bool { return d.Unit.Name == c.Unit })
		if at < 0 {
			in.Desired = append(in.Desired, d)
			continue
		}
		in.Desired[at].Same = 0
		if was := l.units[c.Unit].revision(); c.Change == "unchanged" {
			in.Desired[at].Same = was.Same
		} else if unit.SameRun(was.Definition, d.Unit) {
			in.Desired[at].Same = cmp.Or(was.Same, was.Number)
		}
		in.Desired[at].Unit, in.Desired[at].Revision = d.Unit, d.Revision
	}
	var actions []plan.Action
	for _, a := range plan.Compute(in).Actions {
		if slices.ContainsFunc(changes, func(c api.UnitChange) bool { return c.Unit == a.Unit && c.Change != "unchanged" }) {
			actions = append(actions, a)
		}
	}
	return actions
}
