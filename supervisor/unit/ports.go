package unit

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// String gives the short form, "127.0.0.1:8080:80/udp".
func (p Port) String() string {
	text := strconv.Itoa(p.Port)
	switch {
	case p.HostIP != "" && p.HostPort == 0:
		text = p.HostIP + "::" + text
	case p.HostIP != "":
		text = p.HostIP + ":" + strconv.Itoa(p.HostPort) + ":" + text
	case p.HostPort != 0:
		text = strconv.Itoa(p.HostPort) + ":" + text
	}
	if p.Protocol != "tcp" {
		text += "/" + p.Protocol
	}
	return text
}

// ParsePort reads the short form [[IP:]HOST:]PORT[/PROTOCOL], in which HOST
// and PORT may be ranges of equal length.
func ParsePort(text string) ([]Port, error) {
	rest, protocol, found := strings.Cut(text, "/")
	if !found {
		protocol = "tcp"
	}
	protocol = strings.ToLower(protocol)
	if err := checkProtocol(protocol); err != nil {
		return nil, err
	}
	if strings.ContainsAny(rest, "[]") || strings.Count(rest, ":") > 2 {
		return nil, notYet(fmt.Sprintf("%q: an IPv6 address", text))
	}
	parts := strings.Split(rest, ":")
	target, host, ip := parts[len(parts)-1], "", ""
	if len(parts) > 1 {
		host = parts[len(parts)-2]
	}
	if len(parts) > 2 {
		ip = parts[0]
	}
	ip, err := parseHostIP(ip, len(parts) > 2)
	if err != nil {
		return nil, err
	}
	first, last, err := parseRange(target)
	if err != nil {
		return nil, err
	}
	hostFirst, hostLast := 0, 0
	if host != "" && host != "0" {
		if hostFirst, hostLast, err = parseRange(host); err != nil {
			return nil, err
		}
		if hostLast-hostFirst != last-first {
			return nil, faultf("both ranges must be of one length", "%q has %d on the host for %d in the container", text, hostLast-hostFirst+1, last-first+1)
		}
	}
	var out []Port
	for i := range last - first + 1 {
		p := Port{HostIP: ip, Port: first + i, Protocol: protocol}
		if hostFirst != 0 {
			p.HostPort = hostFirst + i
		}
		out = append(out, p)
	}
	return out, nil
}

func checkProtocol(protocol string) error {
	switch protocol {
	case "tcp", "udp":
		return nil
	case "sctp":
		return notYet("protocol sctp")
	}
	return faultf("it is tcp or udp", "unknown protocol %q", protocol)
}

// parseHostIP reads the address a port is published on; every one is "".
func parseHostIP(text string, given bool) (string, error) {
	if !given {
		return "", nil
	}
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return "", faultf("write it like 127.0.0.1", "%q is not an address", text)
	case !ip.Is4():
		return "", notYet(fmt.Sprintf("%q: an IPv6 address", text))
	case ip.IsUnspecified():
		return "", nil
	}
	return ip.String(), nil
}

func parseRange(text string) (first, last int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if first, err = parsePortNumber(from); err != nil || !isRange {
		return first, first, err
	}
	if last, err = parsePortNumber(to); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, faultf("", "%q runs backwards", text)
	}
	return first, last, nil
}

func parsePortNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 || strings.HasPrefix(text, "+") {
		return 0, faultf("ports go from 1 to 65535", "%q is not a port", text)
	}
	return n, nil
}

// portTable is the long form of a port.
var portTable = table[Port]{
	fields: []field[Port]{
		known("target", "port", "", "The port in the container.", func(p *reader, n *node, to *Port) {
			to.Port, _ = parsed(p, n, parsePortNumber)
		}),
		known("published", "port", "a free one", "The port on the host.", func(p *reader, n *node, to *Port) {
			if text, ok := p.text(n); ok && text != "0" {
				to.HostPort, _ = parsed(p, n, parsePortNumber)
			}
		}),
		known("host_ip", "address", "every address", "The address on the host.", func(p *reader, n *node, to *Port) {
			to.HostIP, _ = parsed(p, n, func(text string) (string, error) { return parseHostIP(text, true) })
		}),
		known("protocol", "word", "tcp", "tcp or udp.", func(p *reader, n *node, to *Port) {
			to.Protocol, _ = parsed(p, n, func(text string) (string, error) { return text, checkProtocol(text) })
		}),
	},
	elsewhere: map[string]string{"mode": "leave it out"},
}

func (p *reader) setPorts(n *node, d *draft) {
	d.ports = n
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return
	}
	for _, item := range n.items {
		if item.shape != mapping {
			if got, ok := parsed(p, item, ParsePort); ok {
				d.unit.Ports = p.addPorts(item, d.unit.Ports, got)
			}
			continue
		}
		port, before := Port{Protocol: "tcp"}, len(p.errs)
		portTable.fill(p, item, &port)
		if len(p.errs) > before {
			continue
		}
		if port.Port == 0 {
			p.badf(item, "", "target is missing")
			continue
		}
		d.unit.Ports = p.addPorts(item, d.unit.Ports, []Port{port})
	}
}

// addPorts adds ports unless one would be published twice.
func (p *reader) addPorts(n *node, ports, more []Port) []Port {
	for _, m := range more {
		if err := clash(ports, m); err != nil {
			p.bad(n, err)
			return ports
		}
		ports = append(ports, m)
	}
	return ports
}

// clash tells whether a port of the host would be taken twice.
func clash(ports []Port, p Port) error {
	for _, other := range ports {
		sameIP := other.HostIP == p.HostIP || other.HostIP == "" || p.HostIP == ""
		switch {
		case other == p:
			return faultf("", "%s is given twice", p)
		case p.HostPort != 0 && other.HostPort == p.HostPort && other.Protocol == p.Protocol && sameIP:
			return faultf("", "host port %d/%s is published twice", p.HostPort, p.Protocol)
		}
	}
	return nil
}
