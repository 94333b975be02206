package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// allDevices is the rule of a privileged container; the keeper gives it the nodes.
func allDevices() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
}

// checkDevices looks at what can be known without the host: the keeper looks up their
// numbers and adds nodes and rules.
func checkDevices(list []Device) ([]Device, error) {
	var out []Device
	for _, d := range list {
		if !path.IsAbs(d.Source) || !path.IsAbs(d.Target) || path.Clean(d.Target) == "/" {
			return nil, fmt.Errorf("device %q: source and target must be absolute paths", d.Source)
		}
		if d.Permissions == "" || strings.Trim(d.Permissions, "rwm") != "" {
			return nil, fmt.Errorf("device %s: permissions %q: not some of r, w and m", d.Source, d.Permissions)
		}
		d.Source, d.Target = path.Clean(d.Source), path.Clean(d.Target)
		out = slices.DeleteFunc(out, func(o Device) bool { return o.Target == d.Target })
		out = append(out, d)
	}
	return out, nil
}

// deviceRules deny every device and then allow those that every program may
// expect. Making any node is allowed (with CAP_MKNOD), using it is not. The nodes
// in /dev are libcontainer's defaults.
func deviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, d := range []struct{ major, minor int64 }{
		{1, 3},   // null
		{1, 5},   // zero
		{1, 7},   // full
		{1, 8},   // random
		{1, 9},   // urandom
		{5, 0},   // tty
		{5, 1},   // console
		{5, 2},   // ptmx
		{136, 0}, // pts, all of them
	} {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d.major, Minor: &d.minor, Access: "rwm"}
		if d.major == 136 {
			rule.Minor = nil
		}
		rules = append(rules, rule)
	}
	return rules
}
