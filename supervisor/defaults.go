package supervisor

import (
	"slices"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// Defaults are for units that do not say; defaults in wherry.yaml.
type Defaults struct {
	UserNS  string        // auto, required or host; empty: auto
	Ulimits []unit.Ulimit // sorted by name; a unit's win one by one
	ShmSize int64         // bytes of /dev/shm; 0: 64 MiB
}

// unitDefaults are what the parser of unit files fills in.
func (o *Options) unitDefaults() unit.Defaults {
	return unit.Defaults{Logging: o.Logging, Ulimits: o.Defaults.Ulimits, ShmSize: o.Defaults.ShmSize}
}

// fillOpenings gives a unit made of flags what a file's would have by default.
func (d Defaults) fillOpenings(c *unit.Container) {
	orDefault(&c.ShmSize, d.ShmSize)
	for _, u := range d.Ulimits {
		if !slices.ContainsFunc(c.Ulimits, func(own unit.Ulimit) bool { return own.Name == u.Name }) {
			c.Ulimits = append(c.Ulimits, u)
		}
	}
}
