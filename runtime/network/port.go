package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// socket is what can be published once: a host address, a protocol, a port.
type socket struct {
	ip    netip.Addr // unspecified: all addresses
	proto string
	port  uint16
}

func (p Port) socket() socket {
	ip := p.HostIP
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return socket{ip, p.Protocol, p.HostPort}
}

// overlaps tells whether one packet could be meant for both.
func (s socket) overlaps(o socket) bool {
	return s.proto == o.proto && s.port == o.port &&
		(s.ip == o.ip || s.ip.IsUnspecified() || o.ip.IsUnspecified())
}

func (s socket) String() string {
	host := ""
	if !s.ip.IsUnspecified() {
		host = s.ip.String() + ":"
	}
	return "port " + host + strconv.Itoa(int(s.port)) + "/" + s.proto
}

func compareSockets(a, b socket) int {
	return cmp.Or(a.ip.Compare(b.ip), strings.Compare(a.proto, b.proto), cmp.Compare(a.port, b.port))
}

// cleanPorts checks an endpoint's ports and fills in the defaults.
func cleanPorts(ports []Port) ([]Port, error) {
	out := slices.Clone(ports)
	for i := range out {
		p := &out[i]
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		if p.HostIP.IsUnspecified() && p.HostIP.Is4() {
			p.HostIP = netip.Addr{}
		}
		switch {
		case p.Protocol != "tcp" && p.Protocol != "udp":
			return nil, fmt.Errorf("port %d: protocol %q: want tcp or udp", p.Port, p.Protocol)
		case p.Port == 0:
			return nil, fmt.Errorf("%s: the container port is missing", p.socket())
		case p.HostIP.IsValid() && !p.HostIP.Is4():
			return nil, fmt.Errorf("%s: IPv6 is not supported yet", p.socket())
		}
	}
	return out, nil
}

// The ports that are handed out when a unit asks for any: RFC 6335's dynamic
// range.
const (
	firstDynamic = 49152
	dynamicPorts = 65536 - firstDynamic
)

// claimPorts fills in the host ports of an endpoint and makes sure that nobody
// else has them: first against the leases, then against the host by claim,
// which must be free to call again for what is already held.
func claimPorts(e Endpoint, leases []Lease, claim func(socket) error) ([]Port, error) {
	ports, err := cleanPorts(e.Ports)
	if err != nil {
		return nil, err
	}
	// What was asked for by number goes first, so that a chosen one cannot take it.
	for i, p := range ports {
		if p.HostPort == 0 {
			continue
		}
		if err := conflict(p, e, ports[:i], leases); err != nil {
			return nil, err
		}
		if err := claim(p.socket()); err != nil {
			return nil, err
		}
	}
	for i := range ports {
		if ports[i].HostPort != 0 {
			continue
		}
		if err := choosePort(&ports[i], e, ports, leases, claim); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// conflict reports who publishes the same socket without sharing it.
func conflict(p Port, e Endpoint, own []Port, leases []Lease) error {
	s := p.socket()
	for _, o := range own {
		if o.HostPort != 0 && o.socket().overlaps(s) {
			return fmt.Errorf("%s: %w (published twice by unit %s)", s, ErrPortTaken, e.Unit)
		}
	}
	for _, l := range leases {
		for _, o := range l.Ports {
			shared := p.Share != "" && p.Share == o.Share && o.socket() == s
			if o.socket().overlaps(s) && !shared {
				return fmt.Errorf("%s: %w (by unit %s)", s, ErrPortTaken, l.Unit)
			}
		}
	}
	return nil
}

// choosePort finds a host port for one that asked for any: the one that a
// replica has already, else a hash of what it is for, so that it mostly stays
// the same over restarts, else the next free one.
func choosePort(p *Port, e Endpoint, own []Port, leases []Lease, claim func(socket) error) error {
	try := func(port uint16) bool {
		q := *p
		q.HostPort = port
		if conflict(q, e, own, leases) != nil || claim(q.socket()) != nil {
			return false
		}
		p.HostPort = port
		return true
	}
	for _, l := range leases {
		for _, o := range l.Ports {
			same := p.Share != "" && p.Share == o.Share && o.HostIP == p.HostIP && o.Protocol == p.Protocol && o.Port == p.Port
			if same && try(o.HostPort) {
				return nil
			}
		}
	}
	first := hashOf(fmt.Sprintf("%s %s %s %d", cmp.Or(p.Share, e.Run), p.HostIP, p.Protocol, p.Port)) % dynamicPorts
	// Each try may bind a socket: a host on which this many in a row are taken
	// has another problem.
	const tries = 1000
	for i := range uint64(tries) {
		if try(uint16(firstDynamic + (first+i)%dynamicPorts)) {
			return nil
		}
	}
	return fmt.Errorf("port for %d/%s: %w (no free one among %d)", p.Port, p.Protocol, ErrPortTaken, tries)
}

// socketsOf lists what the leases publish, each once.
func socketsOf(leases []Lease) []socket {
	var out []socket
	for _, l := range leases {
		for _, p := range l.Ports {
			out = append(out, p.socket())
		}
	}
	slices.SortFunc(out, compareSockets)
	return slices.Compact(out)
}
