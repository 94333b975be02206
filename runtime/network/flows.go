package network

import (
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flowKind says which remembered UDP flows are in the way.
type flowKind int

const (
	// flowsToHost went to a port before it was published. Conntrack decides
	// once per flow, so a client that kept sending would never reach the container.
	flowsToHost flowKind = iota
	// flowsToContainer go to a container that leaves. A client that kept
	// sending would be sent to its address for ever.
	flowsToContainer
)

// forgetFlows removes UDP flows from conntrack. TCP needs none of it: there
// the far end's reset ends a flow. It reads the whole conntrack table, so it
// is done for leases with UDP ports only, and a failure costs no more than a
// stale flow.
func (m *Manager) forgetFlows(l Lease, kind flowKind) {
	if !slices.ContainsFunc(l.Ports, func(p Port) bool { return p.Protocol == "udp" }) {
		return
	}
	_, err := m.host.link.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, staleFlow{l, kind})
	if err != nil {
		m.log.Warn("stale UDP flows not removed", "unit", l.Unit, "err", err)
	}
}

// staleFlow picks the flows of a lease.
type staleFlow struct {
	lease Lease
	kind  flowKind
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlow) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	if s.kind == flowsToContainer {
		return f.Reverse.SrcIP.Equal(s.lease.Address.Addr().AsSlice())
	}
	translated := !f.Forward.DstIP.Equal(f.Reverse.SrcIP)
	return !translated && slices.ContainsFunc(s.lease.Ports, func(p Port) bool {
		return p.Protocol == "udp" && p.HostPort == f.Forward.DstPort &&
			(!p.HostIP.IsValid() || f.Forward.DstIP.Equal(p.HostIP.AsSlice()))
	})
}
