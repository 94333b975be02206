package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// DefaultSubnets are tried in this order when Options name none. They keep
// clear of what clouds (172.31.0.0/16), Docker (172.17.0.0/16 and up) and home
// routers (192.168.0.0/16) hand out first.
var DefaultSubnets = []netip.Prefix{
	netip.MustParsePrefix("10.88.0.0/16"),
	netip.MustParsePrefix("10.89.0.0/16"),
	netip.MustParsePrefix("10.90.0.0/16"),
	netip.MustParsePrefix("10.188.0.0/16"),
	netip.MustParsePrefix("10.189.0.0/16"),
	netip.MustParsePrefix("172.29.0.0/16"),
	netip.MustParsePrefix("172.30.0.0/16"),
	netip.MustParsePrefix("192.168.240.0/20"),
}

// route is what the choice of a subnet needs to know of the host.
type route struct {
	to     netip.Prefix
	device string
}

// freeSubnet returns the first candidate that no route of the host touches. A
// default route touches everything and does not count.
func freeSubnet(candidates []netip.Prefix, routes []route) (netip.Prefix, error) {
	var why []string
	for _, c := range candidates {
		i := slices.IndexFunc(routes, func(r route) bool { return r.to.Bits() > 0 && r.to.Overlaps(c) })
		if i < 0 {
			return c, nil
		}
		why = append(why, fmt.Sprintf("%s is used by %s", c, routes[i]))
	}
	return netip.Prefix{}, fmt.Errorf("no free subnet (%s): choose one with network.subnet", strings.Join(why, "; "))
}

// checkSubnet refuses a chosen subnet that something else on the host already
// reaches by an equal or longer prefix. A shorter one (a VPN's 10.0.0.0/8) is the operator's
// business: the bridge's own route is the more specific one.
func checkSubnet(s netip.Prefix, routes []route) error {
	for _, r := range routes {
		if r.to.Bits() >= s.Bits() && s.Contains(r.to.Addr()) {
			return fmt.Errorf("subnet %s: overlaps %s", s, r)
		}
	}
	return nil
}

func (r route) String() string {
	if r.device == "" {
		return r.to.String()
	}
	return fmt.Sprintf("%s on %s", r.to, r.device)
}

// validSubnet checks the shape: IPv4, no host bits, room for a few containers,
// and not so wide that device names could not hold the host part.
func validSubnet(s netip.Prefix) error {
	switch {
	case !s.Addr().Is4():
		return fmt.Errorf("subnet %s: not IPv4", s)
	case s.Masked() != s:
		return fmt.Errorf("subnet %s: host bits are set, did you mean %s", s, s.Masked())
	case s.Bits() < 8 || s.Bits() > 29:
		return fmt.Errorf("subnet %s: the prefix length must be from 8 to 29", s)
	}
	return nil
}

// gatewayOf is the bridge's address: the first of the subnet.
func gatewayOf(s netip.Prefix) netip.Addr { return s.Addr().Next() }

// nth returns the n-th address of the subnet.
func nth(s netip.Prefix, n uint32) netip.Addr {
	a := s.Addr().As4()
	v := be32(a[:]) + n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
