package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Repair makes table, bridge and ports what the leases say, and detaches
// leases whose run is not in live. It is called at daemon start and when the
// table was changed by somebody else. It does all it can and joins what it
// could not: ErrDeviceGone and ErrPortTaken name runs and ports to see to.
func (m *Manager) Repair(ctx context.Context, live []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.open(); err != nil {
		return err
	}
	if _, err := m.findBridge(); err != nil {
		return err
	}
	var errs []error
	for _, l := range m.store.list() {
		if !slices.Contains(live, l.Run) {
			errs = append(errs, m.remove(l.Run))
		}
	}
	leases := m.store.list()
	errs = append(errs, m.removeStrays(leases))
	if len(leases) > 0 {
		errs = append(errs, m.heal(leases))
	}
	return errors.Join(errs...)
}

// Heal is the part of Repair that needs no knowledge of what runs: it puts
// bridge, table and ports right if somebody else changed them. While nobody did it
// costs a few messages to the kernel, so it may be called every few seconds.
func (m *Manager) Heal(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	leases := m.store.list()
	if len(leases) == 0 {
		return nil
	}
	return m.heal(leases)
}

func (m *Manager) heal(leases []Lease) error {
	bridge, err := m.ready()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range leases {
		d, err := m.host.byName(l.Device)
		switch {
		case err != nil:
		case d == nil:
			err = ErrDeviceGone
		case d.Attrs().MasterIndex != bridge.Attrs().Index:
			err = m.host.addPort(bridge, l.Device)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("run %s: device %s: %w", l.Run, l.Device, err))
		}
	}
	// Only now may a port be in the hands of a process that came while no
	// daemon held it. The connections still go to the container.
	for _, s := range socketsOf(leases) {
		errs = append(errs, m.reserved.take(m.host, s))
	}
	return errors.Join(errs...)
}
