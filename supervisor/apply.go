package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
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

// check refuses what cannot work, before anything changes.
func (l *loop) check(units []*unit.Unit) error {
	seen := map[string]bool{}
	for _, u := range units {
		if seen[u.Name] {
			return invalid("unit %s: declared twice in one apply", u.Name)
		}
		seen[u.Name] = true
		if err := l.checkLimits(u); err != nil {
			return err
		}
		if l.work[u.Name] != nil {
			return fmt.Errorf("%w: unit %s is being removed: try again", ErrExists, u.Name)
		}
	}
	if err := l.dependencies(units); err != nil {
		return err
	}
	return l.conflicts(units)
}

// dependencies checks that what the units depend on exists, and that nothing
// depends on itself in the end.
func (l *loop) dependencies(units []*unit.Unit) error {
	uses := map[string][]unit.Dependency{}
	for name, w := range l.units {
		if w.rec.Intent != plan.Removed {
			uses[name] = w.def().DependsOn
		}
	}
	for _, u := range units {
		uses[u.Name] = u.DependsOn
	}
	for _, u := range units {
		for _, d := range u.DependsOn {
			if _, ok := uses[d.Unit]; !ok && d.Required {
				return invalid("unit %s: depends_on: there is no unit %s", u.Name, d.Unit)
			}
		}
		if way := circle(uses, u.Name, nil); way != nil {
			return invalid("unit %s: depends_on goes in a circle: %s", u.Name, strings.Join(way, " -> "))
		}
	}
	return nil
}

// circle finds a way from the last of way back to its first unit.
func circle(uses map[string][]unit.Dependency, name string, way []string) []string {
	if len(way) > 0 && way[0] == name {
		return append(way, name)
	}
	if slices.Contains(way, name) {
		return nil // a circle, but of others
	}
	way = append(slices.Clip(way), name)
	for _, d := range uses[name] {
		if found := circle(uses, d.Unit, way); found != nil {
			return found
		}
	}
	return nil
}

// conflicts finds host ports that two units publish. A unit that is stopped
// holds none.
func (l *loop) conflicts(units []*unit.Unit) error {
	if !slices.ContainsFunc(units, func(u *unit.Unit) bool { return len(u.Ports) > 0 }) {
		return nil
	}
	var others []*unit.Unit
	for name, w := range l.units {
		if len(w.def().Ports) == 0 {
			continue
		}
		fresh := slices.ContainsFunc(units, func(u *unit.Unit) bool { return u.Name == name })
		if !fresh && w.rec.Intent == plan.Running {
			others = append(others, w.def())
		}
	}
	slices.SortFunc(others, func(a, b *unit.Unit) int { return strings.Compare(a.Name, b.Name) })
	for i, u := range units {
		for _, other := range slices.Concat(units[:i], others) {
			for _, p := range u.Ports {
				for _, q := range other.Ports {
					if overlap(p, q) {
						return &portTaken{unit: u.Name, other: other.Name, port: p}
					}
				}
			}
		}
	}
	return nil
}

// portTaken is ErrExists, but what exists is no unit.
type portTaken struct {
	unit, other string
	port        unit.Port
}

func (e *portTaken) Error() string {
	return fmt.Sprintf("unit %s: port %d/%s is published by unit %s", e.unit, e.port.HostPort, e.port.Protocol, e.other)
}

func (e *portTaken) Unwrap() error { return ErrExists }

func overlap(p, q unit.Port) bool {
	if p.HostPort == 0 || p.HostPort != q.HostPort || p.Protocol != q.Protocol {
		return false
	}
	a, _ := netip.ParseAddr(p.HostIP)
	b, _ := netip.ParseAddr(q.HostIP)
	all := func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
	return all(a) || all(b) || a == b
}

// checkRun fills in what a unit made of flags left out and checks it.
func checkRun(u *unit.Unit, logging unit.Logging) error {
	c := &u.Containers[0]
	if err := unit.CheckName(u.Name); err != nil {
		return invalid("name: %w", err)
	}
	if c.Image == "" {
		return invalid("unit %s: no image", u.Name)
	}
	if err := c.RegistryAuth.Check(); err != nil {
		return invalid("unit %s: registry_auth: %w", u.Name, err)
	}
	if c.StorageOpt.Size < 0 {
		return invalid("unit %s: storage_opt.size: %d is less than nothing", u.Name, c.StorageOpt.Size)
	}
	orDefault(&u.Kind, unit.Service)
	orDefault(&u.Replicas, 1)
	orDefault(&u.Network, "bridge")
	if u.Restart.Condition == "" {
		u.Restart = unit.DefaultRestart()
		u.Restart.Condition = unit.Never
	}
	orDefault(&c.Name, unit.OnlyContainer)
	orDefault(&c.PullPolicy, "missing")
	orDefault(&c.Logging.MaxSize, logging.MaxSize)
	orDefault(&c.Logging.MaxFile, logging.MaxFile)
	if !slices.Contains([]string{"bridge", "host", "none"}, u.Network) {
		return invalid("unit %s: network %s: one of bridge, host, none", u.Name, u.Network)
	}
	if c.Name != unit.OnlyContainer {
		return invalid("unit %s: container %s: it must be named %s", u.Name, c.Name, unit.OnlyContainer)
	}
	for i := range u.Ports {
		orDefault(&u.Ports[i].Protocol, "tcp")
	}
	for _, v := range c.Volumes {
		if !filepath.IsAbs(v.Target) {
			return invalid("unit %s: volume %s: the target must be an absolute path", u.Name, v.Target)
		}
		if v.Type == "bind" && !filepath.IsAbs(v.Source) {
			return invalid("unit %s: volume %s: the source must be an absolute path", u.Name, v.Source)
		}
		if v.Type == "volume" && strings.ContainsAny(v.Source, "/\x00") || v.Source == "." || v.Source == ".." {
			return invalid("unit %s: volume %s: not a name", u.Name, v.Source)
		}
	}
	return nil
}

func orDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
