package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// pingGroups is who may ping without privileges: every group there is.
const pingGroups = "net.ipv4.ping_group_range"

// buildSysctl lets programs that are not root bind any port and ping, as in
// Docker: the port belongs to a network namespace of their own. What the unit
// asks for must belong to one of the container's namespaces.
func buildSysctl(c Container) (map[string]string, error) {
	values := map[string]string{}
	if c.Network != Host {
		values["net.ipv4.ip_unprivileged_port_start"] = "0"
		values[pingGroups] = "0 2147483647"
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sysctls)) {
		if err := checkSysctl(name, c); err != nil {
			return nil, err
		}
		values[name] = c.Sysctls[name]
	}
	if len(values) == 0 {
		return nil, nil
	}
	return values, nil
}

// checkSysctl refuses what would change the host (namespaces(7), ipc_namespaces(7)).
func checkSysctl(name string, c Container) error {
	switch {
	case strings.Contains(name, ".."), strings.Contains("/"+strings.ReplaceAll(name, ".", "/")+"/", "//"), strings.ContainsAny(name, "\x00 "):
		return fmt.Errorf("sysctl %q: not a kernel parameter", name)
	case strings.HasPrefix(name, "net."):
		if c.Network == Host {
			return fmt.Errorf("sysctl %s: it would change the host's network", name)
		}
	case ipcSysctls[name] || strings.HasPrefix(name, "fs.mqueue."):
		if c.IPC == hostNamespace {
			return fmt.Errorf("sysctl %s: it would change the host's IPC", name)
		}
	case name != "kernel.domainname":
		return fmt.Errorf("sysctl %s: it belongs to the whole host", name)
	}
	return nil
}

var ipcSysctls = map[string]bool{
	"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true, "kernel.shmall": true, "kernel.shmmax": true,
	"kernel.shmmni": true, "kernel.shm_rmid_forced": true,
}
