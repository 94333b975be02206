package spec

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostNamespace is the word for sharing one of the host's namespaces, sharedNamespace for
// sharing it among the containers of a run.
const (
	hostNamespace   = "host"
	sharedNamespace = "shared"
)

// buildNamespaces gives a container one of each of its own. The paths of those that it
// shares, and the mapping of a user namespace, are the keeper's to fill in.
func buildNamespaces(c Container) ([]specs.LinuxNamespace, error) {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	switch c.PID {
	case hostNamespace:
	case "", sharedNamespace:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	default:
		return nil, fmt.Errorf("pid %q: not one of %q, %q", c.PID, hostNamespace, sharedNamespace)
	}
	switch c.IPC {
	case hostNamespace:
	case "":
		list = append(list, specs.LinuxNamespace{Type: specs.IPCNamespace})
	default:
		return nil, fmt.Errorf("ipc %q: not %q", c.IPC, hostNamespace)
	}
	list = append(list, specs.LinuxNamespace{Type: specs.UTSNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	switch c.Network {
	case Host:
	case Private, None:
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	default:
		return nil, fmt.Errorf("network %q: not one of %q, %q, %q", c.Network, Host, Private, None)
	}
	switch { // the user namespace itself is the run's, which the keeper makes first
	case !c.UserNS:
	case c.Privileged:
		return nil, errors.New("privileged: with a user namespace nobody is")
	case c.PID == hostNamespace:
		return nil, errors.New("pid: the host's processes are out of reach of a user namespace")
	case c.IPC == hostNamespace:
		return nil, errors.New("ipc: the host's IPC is out of reach of a user namespace")
	}
	return list, nil
}
