package supervisor

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Units returns the current snapshot, sorted by name. It never blocks on work.
func (s *Supervisor) Units() []api.Unit {
	snap := s.snap.Load()
	list := make([]api.Unit, len(snap.entries))
	for i, e := range snap.entries {
		list[i] = e.unit
	}
	return list
}

// Unit returns one unit by its exact name.
func (s *Supervisor) Unit(ctx context.Context, name string) (api.UnitDetail, error) {
	e := s.snap.Load().find(name)
	if e == nil {
		return api.UnitDetail{}, noSuchUnit(name)
	}
	d := api.UnitDetail{Unit: e.unit, Definition: e.rev.Definition, Source: e.rev.Source, Text: e.rev.Text, Digest: e.rev.ImageDigest(e.rev.Definition.Leading().Name), Digests: e.rev.Digests, Stale: e.rev.Stale}
	for _, r := range slices.Backward(e.revs) {
		d.Revisions = append(d.Revisions, api.Revision{Number: r.Number, AppliedAt: r.AppliedAt, By: r.By, Source: r.Source, Digest: r.ImageDigest(r.Definition.Leading().Name), Digests: r.Digests})
	}
	for _, i := range e.instances {
		if i.run == "" {
			continue
		}
		for _, c := range i.containers {
			if !c.up {
				continue
			}
			limited, cancel := context.WithTimeout(ctx, statsLimit)
			st, err := s.rt.Stats(limited, containerID(c.run, c.name))
			cancel()
			if err != nil {
				continue // it ended meanwhile, or hangs; a detail less
			}
			if d.Stats == nil {
				d.Stats = map[string]cgroup.Stats{}
			}
			name := i.name
			if len(i.containers) > 1 {
				name = api.JoinTarget(i.name, c.name)
			}
			d.Stats[name] = st
		}
	}
	return d, nil
}

const statsLimit = 2 * time.Second

// Match resolves names, unique prefixes and globs to unit names.
func (s *Supervisor) Match(patterns []string) ([]string, error) {
	return s.snap.Load().matches(patterns)
}

func (s *snapshot) matches(patterns []string) ([]string, error) {
	var found []string
	for _, p := range patterns {
		names, err := s.match(p)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if !slices.Contains(found, n) {
				found = append(found, n)
			}
		}
	}
	return found, nil
}

func (s *snapshot) match(pattern string) ([]string, error) {
	if s.find(pattern) != nil {
		return []string{pattern}, nil
	}
	glob := strings.ContainsAny(pattern, "*?[")
	var names []string
	for _, e := range s.entries {
		hit := strings.HasPrefix(e.unit.Name, pattern)
		if glob {
			var err error
			if hit, err = path.Match(pattern, e.unit.Name); err != nil {
				return nil, invalid("pattern %s: %w", pattern, err)
			}
		}
		if hit {
			names = append(names, e.unit.Name)
		}
	}
	switch {
	case len(names) == 0 || pattern == "":
		return nil, noSuchUnit(pattern)
	case len(names) > 1 && !glob:
		return nil, ambiguous(pattern, names)
	}
	return names, nil
}
