package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// Where a host says which name servers it uses. systemd-resolved writes its
// own address, a loopback one, into the first, and the real ones into the second.
const (
	hostResolv   = "/etc/resolv.conf"
	uplinkResolv = "/run/systemd/resolve/resolv.conf"
)

// FallbackServers are used when a host names no server that a container could
// reach. They are public, as in Docker and Podman: ResolvConf says when it comes
// to that, and `network.dns` is the way to name others.
var FallbackServers = []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4")}

// HostResolvConf is what a container on the host's network gets: the host's
// file unchanged, and nothing if there is none.
func HostResolvConf() ([]byte, error) {
	data, err := os.ReadFile(hostResolv)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// BridgeResolvConf is what a container with a network of its own gets. Servers, if any, replace the host's. It
// reports whether FallbackServers had to be used.
func BridgeResolvConf(servers []netip.Addr) (conf []byte, fallback bool, err error) {
	host, err := HostResolvConf()
	if err != nil {
		return nil, false, err
	}
	uplink, err := os.ReadFile(uplinkResolv)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	conf, fallback = ResolvConf(host, uplink, servers)
	return conf, fallback, nil
}

// ResolvConf makes a container's resolv.conf from the contents of the host's
// two files. Search list and options stay. The name servers are, in this order: those given; the host's that
// a container can reach; those of the uplink file; FallbackServers. It
// reports whether it came to the last.
func ResolvConf(host, uplink []byte, servers []netip.Addr) (conf []byte, fallback bool) {
	from := host
	if len(servers) == 0 {
		servers = reachable(host)
	}
	if len(servers) == 0 {
		if servers = reachable(uplink); len(servers) > 0 {
			from = uplink
		}
	}
	if len(servers) == 0 {
		servers, fallback = FallbackServers, true
	}
	var b strings.Builder
	for line := range strings.Lines(string(from)) {
		f := strings.Fields(line)
		if len(f) > 1 && (f[0] == "search" || f[0] == "domain" || f[0] == "options" || f[0] == "sortlist") {
			fmt.Fprintln(&b, strings.Join(f, " "))
		}
	}
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	return []byte(b.String()), fallback
}

// reachable lists the name servers that answer from another namespace and over
// IPv4: no loopback, no link-local address of an interface that is not there.
func reachable(conf []byte) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(string(conf)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil {
			continue
		}
		if a = a.Unmap(); a.Is4() && !a.IsLoopback() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}
