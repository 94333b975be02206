package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/cgroup"
)

func buildResources(l cgroup.Limits) (*specs.LinuxResources, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	r := l.Resources()
	r.Devices = deviceRules()
	return r, nil
}
