package unit

import (
	"slices"
	"strings"
)

// openings reads the flags of the keys in openings_keys.go.
func (r *runner) openings() {
	f, c := r.flags, r.app
	take(r, "--hostname", f.Hostname, &r.unit.Hostname, ParseHostname)
	take(r, "--userns", f.UserNS, &r.unit.UserNS, parseUserNS)
	take(r, "--pid", f.PID, &r.unit.PID, parsePID)
	take(r, "--ipc", f.IPC, &r.unit.IPC, parseIPC)
	take(r, "--oom-score-adj", f.OOMScoreAdj, &c.OOMScoreAdj, parseOOMScore)
	take(r, "--shm-size", f.ShmSize, &c.ShmSize, func(text string) (int64, error) {
		if strings.Trim(text, "0123456789") == "" {
			text += "B"
		}
		return parseShmSize(text)
	})
	for _, text := range f.Devices {
		r.check("--device", c.takeDevice(text))
	}
	for _, text := range f.Sysctls {
		name, value, _ := strings.Cut(text, "=")
		r.check("--sysctl", r.unit.setSysctl(name, value))
	}
	for _, text := range f.Ulimits {
		u, err := ParseUlimit(text)
		r.check("--ulimit", err)
		if err == nil {
			c.Ulimits = setUlimit(c.Ulimits, u)
		}
	}
	for _, text := range f.GroupAdd {
		group, err := parseGroup(text)
		r.check("--group-add", err)
		if err == nil && !slices.Contains(c.GroupAdd, group) {
			c.GroupAdd = append(c.GroupAdd, group)
		}
	}
	c.Privileged = f.Privileged
	c.NewPrivileges = f.Privileged
	for _, text := range f.SecurityOpt {
		r.check("--security-opt", c.setSecurityOpt(text, f.ReadFile))
	}
	for _, found := range contradictions(&r.unit, c) {
		r.check(flagOf[found.key], found.err)
	}
}

// flagOf names the flag of a key that contradictions finds.
var flagOf = map[string]string{
	"cap_drop": "--cap-drop", "privileged": "--privileged", "pid": "--pid", "ipc": "--ipc", "sysctls": "--sysctl",
}
