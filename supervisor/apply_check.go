package supervisor

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

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
		if l.forgetting(u.Name) {
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
