package cdi

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

// Apply edits spec for the devices with these names and returns the nodes that the
// container needs; their numbers are the keeper's to look up.
func (r Registry) Apply(spec *specs.Spec, names []string) ([]runtime.Device, error) {
	if len(names) == 0 {
		return nil, nil
	}
	list, err := r.find(names)
	if err != nil {
		return nil, err
	}
	var nodes []runtime.Device
	done := map[*Spec]bool{}
	for i, f := range list {
		all := []*Edits{&f.device.Edits}
		if !done[f.spec] {
			all = []*Edits{&f.spec.Edits, &f.device.Edits}
			done[f.spec] = true
		}
		for _, e := range all {
			more, err := e.apply(spec)
			if err != nil {
				return nil, fmt.Errorf("cdi %s: %w", names[i], err)
			}
			nodes = append(nodes, more...)
		}
	}
	return nodes, nil
}

func (e *Edits) apply(spec *specs.Spec) ([]runtime.Device, error) {
	switch {
	case given(e.IntelRdt):
		return nil, errors.New("it asks for intelRdt, which is not supported")
	case given(e.NetDevices):
		return nil, errors.New("it asks for netDevices, which are not supported")
	}
	for _, kv := range e.Env {
		setEnv(spec.Process, kv)
	}
	for _, m := range e.Mounts {
		addMount(spec, m)
	}
	for _, h := range e.Hooks {
		addHook(spec, h)
	}
	for _, gid := range e.AdditionalGIDs {
		if gid != 0 && !slices.Contains(spec.Process.User.AdditionalGids, gid) {
			spec.Process.User.AdditionalGids = append(spec.Process.User.AdditionalGids, gid)
		}
	}
	var nodes []runtime.Device
	for _, n := range e.DeviceNodes {
		nodes = append(nodes, runtime.Device{Source: path.Clean(cmp.Or(n.HostPath, n.Path)), Target: path.Clean(n.Path),
			Permissions: cmp.Or(n.Permissions, "rwm"), Mode: n.FileMode, UID: n.UID, GID: n.GID})
	}
	return nodes, nil
}

// given tells whether a field of JSON says something.
func given(raw []byte) bool {
	return len(raw) > 0 && string(raw) != "null" && string(raw) != "[]" && string(raw) != "{}"
}

func setEnv(p *specs.Process, kv string) {
	name, _, _ := strings.Cut(kv, "=")
	for i, old := range p.Env {
		if strings.HasPrefix(old, name+"=") {
			p.Env[i] = kv
			return
		}
	}
	p.Env = append(p.Env, kv)
}

// addMount takes the place of a mount with the same target; every mount comes after those above it.
func addMount(spec *specs.Spec, m Mount) {
	mount := specs.Mount{Destination: path.Clean(m.ContainerPath), Source: m.HostPath, Type: cmp.Or(m.Type, "bind"), Options: slices.Clone(m.Options)}
	if mount.Type == "bind" && !slices.Contains(mount.Options, "bind") && !slices.Contains(mount.Options, "rbind") {
		mount.Options = append(mount.Options, "rbind")
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(old specs.Mount) bool { return path.Clean(old.Destination) == mount.Destination })
	spec.Mounts = append(spec.Mounts, mount)
	slices.SortStableFunc(spec.Mounts, func(a, b specs.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
}

func addHook(spec *specs.Spec, h Hook) {
	if spec.Hooks == nil {
		spec.Hooks = &specs.Hooks{}
	}
	to := map[string]*[]specs.Hook{
		//lint:ignore SA1019 vendors still have it
		"prestart":      &spec.Hooks.Prestart,
		"createRuntime": &spec.Hooks.CreateRuntime, "createContainer": &spec.Hooks.CreateContainer,
		"startContainer": &spec.Hooks.StartContainer, "poststart": &spec.Hooks.Poststart, "poststop": &spec.Hooks.Poststop,
	}[h.Name]
	*to = append(*to, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
}
