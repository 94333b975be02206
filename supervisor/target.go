package supervisor

import (
	"fmt"
	"strings"

	"github.com/wherry-run/wherry/supervisor/api"
)

// target is what a verb is aimed at, see api.SplitTarget.
type target struct {
	entry     *entry
	instance  string // empty: every one
	container string // empty: every one
}

// target resolves a word: a unit by its name or a unique prefix, an instance by
// its exact name, both with /CONTAINER behind them if one container is meant.
func (s *snapshot) target(word string) (target, error) {
	name, container := api.SplitTarget(word)
	t, err := s.slot(name)
	if err != nil {
		return target{}, err
	}
	if strings.HasSuffix(word, "/") || container != "" && !t.entry.has(container) {
		return target{}, &noContainer{fmt.Sprintf("unit %s has no container %q, but %s", t.entry.unit.Name, container,
			strings.Join(t.entry.containers(), ", "))}
	}
	t.container = container
	return t, nil
}

// noContainer is ErrNoSuchUnit where the unit is there: what is missing is one of its containers.
type noContainer struct{ text string }

func (e *noContainer) Error() string { return e.text }
func (e *noContainer) Unwrap() error { return ErrNoSuchUnit }

// slot finds a unit, or an instance and its unit.
func (s *snapshot) slot(name string) (target, error) {
	if e := s.find(name); e != nil {
		return target{entry: e}, nil
	}
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		if e := s.find(name[:dot]); e != nil {
			for _, i := range e.instances {
				if i.name == name {
					return target{entry: e, instance: name}, nil
				}
			}
		}
	}
	names, err := s.match(name)
	if err != nil {
		return target{}, err
	}
	if len(names) > 1 {
		return target{}, ambiguous(name, names)
	}
	return target{entry: s.find(names[0])}, nil
}

// place is a running container.
type place struct {
	unit, instance, run, container string
	id                             string // for the keeper
	several                        bool   // the run has others
}

// String names it for people: the instance, and the container if there are several.
func (p place) String() string {
	if p.several {
		return api.JoinTarget(p.instance, p.container)
	}
	return p.instance
}

// shown is the container's name where it says something: if there are several.
func (p place) shown() string {
	if p.several {
		return p.container
	}
	return ""
}

// running is the one container that a process is run in, a terminal attached to, or
// a file copied from: of the first instance that has it running. Where a run has several
// containers and none is named, which is meant would be a guess.
func (t target) running() (place, error) {
	names := t.entry.containers()
	name := t.container
	if name == "" {
		if len(names) > 1 {
			return place{}, fmt.Errorf("%w: unit %s has several containers: name one of them, as in %s", ErrAmbiguous, t.entry.unit.Name,
				strings.Join(t.each(names), " or "))
		}
		name = names[0]
	}
	for _, i := range t.entry.instances {
		if t.instance != "" && i.name != t.instance {
			continue
		}
		for _, c := range i.containers {
			if c.name == name && c.up {
				return place{unit: t.entry.unit.Name, instance: i.name, run: c.run, container: name, id: c.run + "." + name,
					several: len(names) > 1}, nil
			}
		}
	}
	return place{}, fmt.Errorf("unit %s: %w", t.entry.unit.Name, ErrNotRunning)
}

// each are the targets that name one of the containers.
func (t target) each(names []string) []string {
	base := t.instance
	if base == "" {
		base = t.entry.unit.Name
	}
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = api.JoinTarget(base, n)
	}
	return list
}

// logs are the containers whose output is meant, by instance.
func (t target) logs() []place {
	var list []place
	for _, i := range t.entry.instances {
		if t.instance == "" || i.name == t.instance {
			list = append(list, t.logsOf(i.name)...)
		}
	}
	return list
}

// logsOf is logs for one instance, which may be new.
func (t target) logsOf(instance string) []place {
	names := t.entry.containers()
	var list []place
	for _, name := range names {
		if t.container == "" || name == t.container {
			list = append(list, place{unit: t.entry.unit.Name, instance: instance, container: name, several: len(names) > 1})
		}
	}
	return list
}

// containers are the names of the unit's containers.
func (e *entry) containers() []string {
	list := make([]string, len(e.rev.Definition.Containers))
	for i, c := range e.rev.Definition.Containers {
		list[i] = c.Name
	}
	return list
}

func (e *entry) has(container string) bool {
	for _, name := range e.containers() {
		if name == container {
			return true
		}
	}
	return false
}
