package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Detach removes the run's ports, device and lease. Detaching what is not
// attached is no error. If a step fails the lease stays, so that calling again
// finishes the work.
func (m *Manager) Detach(ctx context.Context, run string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := m.store.leases[run]; !ok {
		return nil
	}
	if err := m.open(); err != nil {
		return err
	}
	return m.remove(run)
}

// remove undoes an attachment from what the lease says. Ports go first: no
// connection is sent to an address that has gone.
func (m *Manager) remove(run string) error {
	l, ok := m.store.leases[run]
	if ok {
		delete(m.store.leases, run)
		if err := errors.Join(m.unpublish(), m.host.removeDevice(l.Device)); err != nil {
			m.store.leases[run] = l
			return fmt.Errorf("detach %s: %w", run, err)
		}
		m.forgetFlows(l, flowsToContainer)
		if err := m.store.remove(run); err != nil {
			m.store.leases[run] = l
			return fmt.Errorf("detach %s: %w", run, err)
		}
	}
	m.reserved.keep(socketsOf(m.store.list()))
	return nil
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
	links, err := retryRead(m.host.link.LinkList)
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
