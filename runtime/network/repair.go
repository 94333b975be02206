package network

import (
	"context"
	"errors"
	"slices"
)

// Repair makes table, bridge and ports what the leases say, and detaches
// leases whose run is not in live. It is called at daemon start and when the
// table was changed by somebody else. It does all it can and joins what it
// could not: ErrDeviceGone, ErrPortTaken and ErrForeignDrop say what is left to be seen to.
func (m *Manager) Repair(ctx context.Context, live []string) error {
	if err := m.checkOwner(ctx); err != nil {
		return err
	}
	var errs []error
	for _, l := range m.Leases() {
		if !slices.Contains(live, l.Run) {
			errs = append(errs, m.Detach(ctx, l.Run))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, m.removeStrays(m.store.list()))
	if leases := m.attached(); len(leases) > 0 {
		errs = append(errs, m.heal(leases))
	}
	return errors.Join(errs...)
}

// checkOwner refuses to touch what stands under our names but is another's.
func (m *Manager) checkOwner(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.open(); err != nil {
		return err
	}
	_, err := m.findBridge()
	return err
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
	leases := m.attached()
	if len(leases) == 0 {
		return nil
	}
	return m.heal(leases)
}

func (m *Manager) heal(leases []Lease) error {
	bridge, err := m.ready()
	if err == nil {
		err = m.syncTable()
	}
	if err != nil {
		return err
	}
	devices, err := m.devices()
	if err != nil {
		return err
	}
	errs := []error{m.plugIn(bridge, devices)}
	for _, l := range leases {
		if devices[l.Device] == nil {
			errs = append(errs, &RunError{l.Run, l.Device, ErrDeviceGone})
		}
	}
	errs = append(errs, m.checkForeign())
	// Only now may a port be in the hands of a process that came while no
	// daemon held it. The connections still go to the container.
	for _, s := range socketsOf(leases) {
		errs = append(errs, m.reserved.take(m.host, s))
	}
	return errors.Join(errs...)
}
