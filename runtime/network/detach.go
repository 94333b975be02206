package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/wherry-run/wherry/runtime/internal/nsthread"
	"golang.org/x/sys/unix"
)

// Detach removes the run's ports, device and lease. Detaching what is not
// attached is no error. If a step fails the lease stays, so that calling again
// finishes the work.
func (m *Manager) Detach(ctx context.Context, run string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l, device, err := m.withdraw(run)
	if err == nil && device != 0 {
		// Without the lock: the kernel waits here until no processor can still
		// see the device, some 30 ms in which others may attach.
		if err = removeDeviceApart(m.options.host, device); err != nil {
			err = fmt.Errorf("remove device %s: %w", l.Device, err)
		}
	}
	if err == nil && l != nil {
		err = m.forget(*l)
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", run, err)
	}
	return nil
}

// withdraw takes the run's ports out of the table first, so that no connection
// is sent to an address that goes. Its address stays taken until forget. The
// lease is nil if there is none. The device goes by its index, 0 if it is gone: once
// somebody else who detaches the run is through, its name may be another run's.
func (m *Manager) withdraw(run string) (_ *Lease, device int, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.store.leases[run]
	if !ok {
		return nil, 0, nil
	}
	if err := m.open(); err != nil {
		return nil, 0, err
	}
	link, err := m.host.byName(l.Device)
	if err != nil {
		return nil, 0, err
	}
	if link != nil {
		device = link.Attrs().Index
	}
	m.leaving[run] = true
	if len(l.Ports) == 0 {
		return &l, device, nil
	}
	return &l, device, m.unpublish()
}

func (m *Manager) forget(l Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host != nil {
		m.forgetFlows(l, flowsToContainer)
	}
	if err := m.store.remove(l.Run); err != nil {
		return err
	}
	delete(m.leaving, l.Run)
	if len(l.Ports) > 0 {
		m.reserved.keep(socketsOf(m.publishing()))
	}
	return nil
}

// attached are the leases without those that are on their way out.
func (m *Manager) attached() []Lease { return m.staying(m.store.leases) }

// publishing are those of them that have ports: the table is made of them.
func (m *Manager) publishing() []Lease { return m.staying(m.store.publishing) }

func (m *Manager) staying(leases map[string]Lease) []Lease {
	return slices.DeleteFunc(ordered(leases), func(l Lease) bool { return m.leaving[l.Run] })
}

// removeDeviceApart has a socket of its own, so that nobody waits behind it.
func removeDeviceApart(ns *os.File, index int) error {
	return nsthread.Net(ns, func() error {
		link, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer link.Close()
		return (&host{link: link}).removeByIndex(index)
	})
}

// Destroy removes table, bridge, devices and leases. The sysctls stay as they
// are: others may have come to rely on them.
func (m *Manager) Destroy(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return err
	}
	// Whose the bridge is decides whose table and devices these are.
	if _, err := m.findBridge(); err != nil {
		return err
	}
	err := errors.Join(m.removeStrays(nil), m.host.tables.remove(m.options.Bridge), m.removeBridge())
	if err != nil {
		return err
	}
	m.subnet = netip.Prefix{}
	m.leaving = map[string]bool{}
	m.release()
	return m.store.destroy()
}

func (m *Manager) removeBridge() error {
	l, err := m.findBridge()
	if l == nil || err != nil {
		return err
	}
	if err := m.host.link.LinkDel(l); err != nil {
		return fmt.Errorf("bridge %s: %w", m.options.Bridge, err)
	}
	return nil
}

// removeStrays deletes the devices that bear our prefix and belong to no
// lease of keep.
func (m *Manager) removeStrays(keep []Lease) error {
	wanted := map[string]bool{}
	for _, l := range keep {
		wanted[l.Device] = true
	}
	links, err := dump(m.host.link.LinkList)
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		if isOurs(m.options.Bridge, l) && !wanted[name] {
			err = errors.Join(err, m.host.removeDevice(name))
		}
	}
	return err
}

func isOurs(bridge string, l netlink.Link) bool {
	prefix := devicePrefix(bridge)
	name := l.Attrs().Name
	return l.Type() == "veth" && len(name) > len(prefix) && name[:len(prefix)] == prefix
}
