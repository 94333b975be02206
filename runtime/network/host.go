package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/wherry-run/wherry/runtime/internal/nsthread"
	"golang.org/x/sys/unix"
)

// host is the namespace in which the bridge stands, by its open sockets.
type host struct {
	ns     *os.File // nil: that of the process
	link   *netlink.Handle
	tables *tables
}

func openHost(ns *os.File) (*host, error) {
	h := &host{ns: ns}
	err := h.do(func() error {
		var err error
		h.link, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if h.tables, err = openTables(ns); err != nil {
		h.link.Close()
		return nil, err
	}
	return h, nil
}

func (h *host) close() {
	h.link.Close()
	h.tables.close()
}

// do runs fn in the host's namespace; what has no netlink form (sysctls, plain
// sockets) is done there.
func (h *host) do(fn func() error) error { return nsthread.Net(h.ns, fn) }

// routes lists what the host reaches other than through the bridge, its own
// addresses included: they stand in the local table.
func (h *host) routes(bridge string) ([]route, error) {
	links, err := dump(h.link.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	found, err := h.routesOf(unix.RT_TABLE_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []route
	for _, r := range found {
		if name := names[r.LinkIndex]; r.Dst != nil && (name != bridge || name == "") {
			out = append(out, route{prefixOf(r.Dst), name})
		}
	}
	return out, nil
}

func (h *host) routesOf(table int) ([]netlink.Route, error) {
	return dump(func() ([]netlink.Route, error) {
		return h.link.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
}

func (h *host) addresses(l netlink.Link) ([]netlink.Addr, error) {
	return dump(func() ([]netlink.Addr, error) { return h.link.AddrList(l, netlink.FAMILY_V4) })
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// uplinkMTU is that of the device with the default route. Containers get the
// same: a larger one would depend on path MTU discovery, which many firewalls break.
func (h *host) uplinkMTU() int {
	const ethernet, smallest = 1500, 1280
	found, err := h.routesOf(unix.RT_TABLE_MAIN)
	if err != nil {
		return ethernet
	}
	for _, r := range found {
		if r.Dst != nil && prefixOf(r.Dst).Bits() > 0 {
			continue
		}
		if l, err := h.link.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= smallest {
			return min(l.Attrs().MTU, 65535)
		}
	}
	return ethernet
}

// alias is how the bridge says whose it is.
func (m *Manager) alias() string { return "wherry " + m.options.Dir }

// ensureBridge makes the bridge, or finds and mends it. A device of that name
// that is not ours is left alone.
func (m *Manager) ensureBridge() (netlink.Link, error) {
	name := m.options.Bridge
	l, err := m.findBridge()
	if err != nil {
		return nil, err
	}
	if l == nil {
		if l, err = m.addBridge(); err != nil {
			return nil, fmt.Errorf("bridge %s: %w", name, err)
		}
		devices, err := m.devices()
		if err == nil {
			err = m.plugIn(l, devices)
		}
		if err != nil {
			return nil, fmt.Errorf("bridge %s: %w", name, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp != 0 && l.Attrs().Alias != "" {
		has, err := m.host.hasAddress(l, m.bridgeAddress())
		if err != nil {
			return nil, fmt.Errorf("bridge %s: %w", name, err)
		}
		if has {
			return l, nil
		}
	}
	if err := m.setUpBridge(l); err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	return l, nil
}

func (m *Manager) bridgeAddress() netip.Prefix {
	return netip.PrefixFrom(gatewayOf(m.subnet), m.subnet.Bits())
}

// findBridge returns our bridge or nil. A crash right after its creation
// leaves it without the alias; then its hardware address tells.
func (m *Manager) findBridge() (netlink.Link, error) {
	name := m.options.Bridge
	l, err := m.host.byName(name)
	if l == nil || err != nil {
		return nil, err
	}
	if l.Type() != "bridge" {
		return nil, fmt.Errorf("bridge %s: a device of this name exists and is a %s", name, l.Type())
	}
	a := l.Attrs()
	if a.Alias == m.alias() || a.Alias == "" && a.HardwareAddr.String() == m.bridgeMAC().String() {
		return l, nil
	}
	owner := a.Alias
	if owner == "" {
		owner = "somebody else"
	}
	return nil, fmt.Errorf("bridge %s: belongs to %q: choose another with network.bridge, or remove it with `ip link del %s`", name, owner, name)
}

// bridgeMAC is fixed, and derived from the name: a bridge without one of its own takes the
// lowest of its ports, and so changes it under the containers' feet.
func (m *Manager) bridgeMAC() net.HardwareAddr {
	h := hashOf(m.options.Bridge)
	return net.HardwareAddr{0x02, 0x78, byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}
}

func (m *Manager) addBridge() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = m.options.Bridge
	attrs.HardwareAddr = m.bridgeMAC()
	attrs.MTU = m.host.uplinkMTU()
	if err := m.host.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, err
	}
	return m.host.link.LinkByName(attrs.Name)
}

// devices are the host's by name, in one answer of the kernel's however many there are.
func (m *Manager) devices() (map[string]netlink.Link, error) {
	links, err := dump(m.host.link.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	byName := make(map[string]netlink.Link, len(links))
	for _, l := range links {
		byName[l.Attrs().Name] = l
	}
	return byName, nil
}

// plugIn makes the devices of all leases ports of the bridge: if somebody
// deleted the old one they are still there, and their containers without a network.
func (m *Manager) plugIn(bridge netlink.Link, devices map[string]netlink.Link) error {
	for _, l := range m.store.list() {
		d := devices[l.Device]
		if d == nil || d.Attrs().MasterIndex == bridge.Attrs().Index {
			continue
		}
		// It may have gone meanwhile, with its namespace.
		if err := m.host.addPort(bridge, d); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

func (m *Manager) setUpBridge(l netlink.Link) error {
	if err := m.host.setAddress(l, m.bridgeAddress()); err != nil {
		return err
	}
	// IPv6 is off on the bridge: its link-local address would be a way around a
	// table that knows IPv4 only.
	if err := m.host.do(func() error { return disableIPv6(m.options.Bridge) }); err != nil {
		return err
	}
	if err := m.host.link.LinkSetUp(l); err != nil {
		return err
	}
	// Last, as the mark that all of it was done.
	return m.host.link.LinkSetAlias(l, m.alias())
}

// byName returns nil if there is no such device.
func (h *host) byName(name string) (netlink.Link, error) {
	l, err := h.link.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return l, nil
}

func (h *host) hasAddress(l netlink.Link, want netip.Prefix) (bool, error) {
	found, err := h.addresses(l)
	if err != nil {
		return false, err
	}
	return len(found) == 1 && prefixOf(found[0].IPNet) == want, nil
}

// setAddress makes want the only IPv4 address.
func (h *host) setAddress(l netlink.Link, want netip.Prefix) error {
	found, err := h.addresses(l)
	if err != nil {
		return err
	}
	there := false
	for _, a := range found {
		if prefixOf(a.IPNet) == want {
			there = true
		} else if err := h.link.AddrDel(l, &a); err != nil {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	if there {
		return nil
	}
	return h.link.AddrAdd(l, &netlink.Addr{IPNet: ipNet(want)})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// ensureSysctls sets what routing needs; doc.go says what and why. It reports
// whether it had to switch forwarding on for the whole host.
func ensureSysctls(bridge string) (forwarding bool, err error) {
	if forwarding, err = setSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return false, err
	}
	for _, key := range []string{"forwarding", "route_localnet"} {
		if _, err := setSysctl("net/ipv4/conf/"+bridge+"/"+key, "1"); err != nil {
			return false, err
		}
	}
	return forwarding, nil
}

// disableIPv6 is no error where the kernel has no IPv6.
func disableIPv6(device string) error {
	_, err := setSysctl("net/ipv6/conf/"+device+"/disable_ipv6", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// setSysctl writes only what differs, and tells whether it did.
func setSysctl(key, value string) (bool, error) {
	path := filepath.Join("/proc/sys", key)
	have, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("sysctl %s: %w", key, err)
	}
	if strings.TrimSpace(string(have)) == value {
		return false, nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return false, fmt.Errorf("sysctl %s: %w", key, err)
	}
	return true, nil
}
