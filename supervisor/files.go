package supervisor

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/wherry-run/wherry/runtime/network"
)

// files writes what becomes /etc/hosts, /etc/hostname and /etc/resolv.conf. An
// image has none of its own that would be right.
func (st *start) files(context.Context) error {
	dir, name := st.dir(), hostname(st.rec.Instance)
	hosts, resolv, err := st.names(name)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{"hosts", hosts}, {"hostname", []byte(name + "\n")}, {"resolv.conf", resolv}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (st *start) names(name string) (hosts, resolv []byte, err error) {
	if st.rec.Revision.Definition.Network == "host" {
		// Who shares the host's network also shares its names.
		if hosts, err = os.ReadFile("/etc/hosts"); err != nil {
			hosts = network.Hosts(name, netip.Addr{})
		}
		resolv, err = network.HostResolvConf()
		return hosts, resolv, err
	}
	var address netip.Addr
	if st.lease != nil {
		address = st.lease.Address.Addr()
	}
	resolv, fallback, err := network.BridgeResolvConf(nil)
	if fallback && st.lease != nil {
		st.s.log.Debug("the host names no name server that a container can reach: public ones are used",
			"unit", st.rec.Unit.Name, "container", st.named())
	}
	return network.Hosts(name, address), resolv, err
}

// hostname is the instance's name as one label: a dot would make it a domain.
func hostname(instance string) string { return strings.ReplaceAll(instance, ".", "-") }
