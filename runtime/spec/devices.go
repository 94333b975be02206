package spec

import specs "github.com/opencontainers/runtime-spec/specs-go"

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
