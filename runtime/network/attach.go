package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/wherry-run/wherry/runtime/internal/nsthread"
	"golang.org/x/sys/unix"
)

// containerDevice is the name of the interface inside.
const containerDevice = "eth0"

// Attach puts an interface "eth0" with an address, a default route and
// loopback into the namespace and publishes the ports. On error nothing is
// left. A run that is attached already must be detached first.
func (m *Manager) Attach(ctx context.Context, ns *os.File, e Endpoint) (Lease, error) {
	if err := validRun(e.Run); err != nil {
		return Lease{}, err
	}
	if ns == nil {
		return Lease{}, fmt.Errorf("run %s: no network namespace", e.Run)
	}
	l, leased, err := m.attach(ctx, ns, e)
	if err != nil && leased {
		// From the lease, as after a crash: one code removes what either left.
		err = errors.Join(err, m.Detach(context.WithoutCancel(ctx), e.Run))
	}
	if err != nil {
		return Lease{}, err
	}
	return l, nil
}

// attach reports whether it got as far as a lease.
func (m *Manager) attach(ctx context.Context, ns *os.File, e Endpoint) (l Lease, leased bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return l, false, err
	}
	if _, ok := m.store.leases[e.Run]; ok {
		return l, false, fmt.Errorf("run %s: already attached", e.Run)
	}
	m.freeSubnetIfIdle()
	bridge, err := m.ready()
	if err != nil {
		return l, false, err
	}
	if err := m.checkForeign(); err != nil {
		return l, false, err
	}
	if l, err = m.lease(e); err != nil {
		m.reserved.keep(socketsOf(m.publishing()))
		return l, false, err
	}
	return l, true, m.connect(ctx, bridge, ns, l)
}

// lease takes an address and the ports and writes them down.
func (m *Manager) lease(e Endpoint) (Lease, error) {
	l, err := newLease(m.options.Bridge, m.subnet, e, m.store.used)
	if err != nil {
		return Lease{}, err
	}
	l.Ports, err = claimPorts(e, m.publishing(), func(s socket) error { return m.reserved.take(m.host, s) })
	if err != nil {
		return Lease{}, err
	}
	if err := m.store.put(l); err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", e.Run, err)
	}
	return l, nil
}

// connect makes the pair, configures both ends, and publishes last: no
// connection is sent to an address that cannot answer yet.
func (m *Manager) connect(ctx context.Context, bridge netlink.Link, ns *os.File, l Lease) error {
	if err := m.host.addPair(bridge, ns, l); err != nil {
		return fmt.Errorf("device %s: %w", l.Device, err)
	}
	if err := nsthread.Net(ns, func() error { return configureInside(l) }); err != nil {
		return fmt.Errorf("device %s: %w", containerDevice, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(l.Ports) == 0 {
		return nil // the table is without it what it was a moment ago
	}
	if err := m.syncTable(); err != nil {
		return err
	}
	m.forgetFlows(l, flowsToHost)
	return nil
}

// addPair makes the veth pair with its far end in the namespace at once, and
// the near end a port of the bridge.
func (h *host) addPair(bridge netlink.Link, ns *os.File, l Lease) error {
	pair := newPair(bridge, ns, l)
	err := h.link.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		// The lease is ours, so a device of its name is what a crash left.
		if err := h.removeDevice(l.Device); err != nil {
			return err
		}
		pair = newPair(bridge, ns, l)
		err = h.link.LinkAdd(pair)
	}
	if err != nil {
		return err
	}
	return h.addPort(bridge, pair)
}

func newPair(bridge netlink.Link, ns *os.File, l Lease) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.Device
	attrs.MTU = bridge.Attrs().MTU
	// Set, not random: udev and networkd leave a chosen hardware address alone.
	attrs.HardwareAddr = hostMAC(l.Address.Addr())
	return &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         containerDevice,
		PeerHardwareAddr: containerMAC(l.Address.Addr()),
		PeerNamespace:    netlink.NsFd(int(ns.Fd())),
	}
}

// addPort makes the device a port of the bridge. Hairpin mode lets a container
// reach its own published port where br_netfilter turns the packet round inside the bridge.
func (h *host) addPort(bridge, l netlink.Link) error {
	if err := h.do(func() error { return disableIPv6(l.Attrs().Name) }); err != nil {
		return err
	}
	if l.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := h.link.LinkSetMasterByIndex(l, bridge.Attrs().Index); err != nil {
			return err
		}
	}
	if err := h.link.LinkSetHairpin(l, true); err != nil {
		return err
	}
	return h.link.LinkSetUp(l)
}

// removeDevice is no error if the device is gone, as it is with its namespace.
func (h *host) removeDevice(name string) error {
	l, err := h.byName(name)
	if l == nil || err != nil {
		return err
	}
	if err := h.removeByIndex(l.Attrs().Index); err != nil {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

func (h *host) removeByIndex(index int) error {
	err := h.link.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err == nil || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil // EINVAL: the namespace's end took it between the two calls
	}
	return err
}

// configureInside runs on a thread in the container's namespace.
func configureInside(l Lease) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	// No IPv6 on this network yet: without this the container would announce
	// itself on the bridge and take router advertisements from its neighbours.
	if err := disableIPv6(containerDevice); err != nil {
		return err
	}
	loopback := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}
	if err := h.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	eth, err := namedDevice(containerDevice)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(l.Address)}); err != nil {
		return fmt.Errorf("address %s: %w", l.Address, err)
	}
	if err := h.LinkSetUp(eth); err != nil {
		return err
	}
	gateway := net.IP(l.Gateway.AsSlice())
	if err := h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// namedDevice asks by ioctl for the one thing that the calls after it need:
// netlink would answer with two kilobytes of counters.
func namedDevice(name string) (netlink.Link, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return nil, err
	}
	attrs := netlink.LinkAttrs{Name: name, Index: int(request.Uint32())}
	return &netlink.Device{LinkAttrs: attrs}, nil
}
