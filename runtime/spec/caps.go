package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCaps are the fourteen that Docker gives to every container.
var defaultCaps = []string{
	"CAP_AUDIT_WRITE",
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_MKNOD",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW",
	"CAP_SETFCAP",
	"CAP_SETGID",
	"CAP_SETPCAP",
	"CAP_SETUID",
	"CAP_SYS_CHROOT",
}

// allCaps is the word for every capability there is.
const allCaps = "ALL"

// buildCaps gives root its capabilities and any other user none in effect: a
// program of that user gets them only by a set-user-id root file, which no_new_privs
// forbids. Nothing is inheritable (CVE-2022-24769) or ambient.
func buildCaps(add, drop []string, user string) (*specs.LinuxCapabilities, error) {
	bounding, err := chooseCaps(add, drop)
	if err != nil {
		return nil, err
	}
	caps := &specs.LinuxCapabilities{Bounding: bounding}
	if isRoot(user) {
		caps.Effective = slices.Clone(bounding)
		caps.Permitted = slices.Clone(bounding)
	}
	return caps, nil
}

// isRoot tells it of the name; the keeper, which knows /etc/passwd, has the
// last word on a user that has root's id under another name.
func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "0" || name == "root"
}

// chooseCaps follows Docker: adding ALL gives all but those dropped by name,
// dropping ALL leaves those added by name, and a drop wins over an add.
func chooseCaps(add, drop []string) ([]string, error) {
	known := knownCaps()
	add, addAll, err := capNames("cap_add", add, known)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := capNames("cap_drop", drop, known)
	if err != nil {
		return nil, err
	}
	base := defaultCaps
	switch {
	case addAll:
		base = known
	case dropAll:
		base = nil
	}
	chosen := slices.Concat(base, add)
	chosen = slices.DeleteFunc(chosen, func(c string) bool { return slices.Contains(drop, c) })
	slices.Sort(chosen)
	return slices.Compact(chosen), nil
}

// capNames turns "net_admin" and "CAP_NET_ADMIN" into the kernel's names.
func capNames(key string, list, known []string) (names []string, all bool, err error) {
	for _, s := range list {
		name := strings.ToUpper(strings.TrimSpace(s))
		if name == allCaps || name == "CAP_"+allCaps {
			all = true
			continue
		}
		name = "CAP_" + strings.TrimPrefix(name, "CAP_")
		if !slices.Contains(known, name) {
			return nil, false, fmt.Errorf("%s %q: no such capability%s", key, s, strings.ReplaceAll(nearMiss(name, known), "CAP_", ""))
		}
		names = append(names, name)
	}
	return names, all, nil
}

func knownCaps() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	slices.Sort(names)
	return names
}
