package spec

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// buildNamespaces gives a container one of each of its own. The path of a
// private network namespace is the keeper's to fill in.
func buildNamespaces(n Network) ([]specs.LinuxNamespace, error) {
	list := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.PIDNamespace},
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.CgroupNamespace},
	}
	switch n {
	case Host:
	case Private, None:
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	default:
		return nil, fmt.Errorf("network %q: not one of %q, %q, %q", n, Host, Private, None)
	}
	return list, nil
}

// buildSysctl lets programs that are not root bind any port and ping, as in
// Docker: the port belongs to a network namespace of their own.
func buildSysctl(n Network) map[string]string {
	if n == Host {
		return nil
	}
	return map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
}
