package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// buildResources are the limits, with devices by the numbers that they have on
// this host.
func buildResources(c Container) (*specs.LinuxResources, error) {
	l := c.Limits
	if err := l.Validate(); err != nil {
		return nil, err
	}
	l, err := l.Resolve()
	if err != nil {
		return nil, err
	}
	r := l.Resources()
	r.Devices = deviceRules()
	if c.Privileged {
		r.Devices = allDevices()
	}
	return r, nil
}
