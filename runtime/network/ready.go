package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ready brings the host into the state that an attachment needs and returns
// the bridge. Where all is well it only looks.
func (m *Manager) ready() (netlink.Link, error) {
	if err := m.open(); err != nil {
		return nil, err
	}
	if !m.subnet.IsValid() {
		// Until the bridge has an address nobody sees which subnet is ours.
		defer m.lockChoice()()
	}
	if err := m.chooseSubnet(); err != nil {
		return nil, err
	}
	bridge, err := m.ensureBridge()
	if err != nil {
		return nil, err
	}
	forwarding := false
	err = m.host.do(func() (err error) {
		forwarding, err = ensureSysctls(m.options.Bridge)
		return err
	})
	if err != nil {
		return nil, err
	}
	if forwarding {
		m.log.Info("switched on net.ipv4.ip_forward: this host now routes")
	}
	if m.unchanged() {
		return bridge, nil
	}
	return bridge, m.syncTable()
}

// unchanged tells whether the table is as the last call left it. Whatever
// changes what is published, or the subnet, writes the table or forgets what it saw.
func (m *Manager) unchanged() bool {
	gen, err := m.host.tables.generation()
	return err == nil && m.seen.table != nil && m.seen.tableAt == gen
}

// choiceLock is held by a daemon of the host while it chooses its subnet; choicePatience is how long
// another one waits for it.
const (
	choiceLock     = "/run/wherry-network.lock"
	choicePatience = 5 * time.Second
)

// lockChoice keeps other daemons of the host from choosing a subnet meanwhile: all would find the same
// one free. Where there can be no lock, it is done without.
func (m *Manager) lockChoice() (unlock func()) {
	f, err := os.OpenFile(choiceLock, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		m.log.Debug("subnet is chosen without a lock", "err", err)
		return func() {}
	}
	for end := time.Now().Add(choicePatience); unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	return func() { f.Close() }
}

// chooseSubnet settles the subnet once; from then on the folder remembers it.
func (m *Manager) chooseSubnet() error {
	if m.subnet.IsValid() {
		return nil
	}
	routes, err := m.host.routes(m.options.Bridge)
	if err != nil {
		return err
	}
	chosen := m.options.Subnet
	if chosen.IsValid() {
		err = checkSubnet(chosen, routes)
	} else {
		chosen, err = freeSubnet(DefaultSubnets, routes)
	}
	if err != nil {
		return err
	}
	if err := m.store.setSubnet(chosen); err != nil {
		return fmt.Errorf("subnet %s: %w", chosen, err)
	}
	m.subnet = chosen
	m.seen.table = nil // it was of another one
	return nil
}

// syncTable makes the kernel's table what the leases say. If the generation is
// the one we saw last, our memory of the table is the truth and only the
// difference is sent; else the table is read first.
func (m *Manager) syncTable() error { return m.sync(true) }

// unpublish is syncTable for leases that go: it makes no table where none is.
func (m *Manager) unpublish() error { return m.sync(false) }

func (m *Manager) sync(create bool) error {
	err := m.trySync(create)
	if err != nil {
		m.seen.table = nil
	}
	return err
}

func (m *Manager) trySync(create bool) error {
	want := buildRuleset(m.options.Bridge, m.subnet, m.publishing())
	gen, err := m.host.tables.generation()
	if err != nil {
		return err
	}
	have := m.seen.table
	if have == nil || m.seen.tableAt != gen {
		have, gen, err = readStable(m.host.tables, func() (*ruleset, error) { return m.host.tables.read(m.options.Bridge) })
		if err != nil {
			return err
		}
	}
	if have == nil && !create {
		return nil
	}
	if have != nil && have.equal(want) {
		m.seen.table, m.seen.tableAt = want, gen
		return nil
	}
	return m.writeTable(have, want, gen)
}

// writeTable sends the difference and notes the new generation. Had somebody
// else changed a table meanwhile, the number would have risen by more than one, and the next
// call reads everything again.
func (m *Manager) writeTable(have, want *ruleset, gen uint32) error {
	m.seen.table = nil
	write := func() error { return m.host.tables.rewrite(want) }
	if have != nil && have.onlyPublishedDiffers(want) {
		write = func() error { return m.host.tables.update(have, want) }
	}
	if err := write(); err != nil {
		return err
	}
	after, err := m.host.tables.generation()
	if err != nil {
		return err
	}
	m.seen.table, m.seen.tableAt = want, gen+1
	if after == gen+1 && m.seen.othersAt == gen {
		m.seen.othersAt = after
	}
	return nil
}

// readStable repeats a read of many messages until nobody changed a table
// meanwhile, and returns the generation it belongs to. If that never comes, the
// last answer is as good as any: the next call will see that it is old.
func readStable[T any](t *tables, read func() (T, error)) (v T, gen uint32, err error) {
	for range 5 {
		if gen, err = t.generation(); err != nil {
			return v, 0, err
		}
		v, err = read()
		after, genErr := t.generation()
		if genErr != nil || after == gen {
			return v, gen, errors.Join(err, genErr)
		}
	}
	return v, gen, err
}

// dump repeats a listing that the kernel reports as torn by a change, which on
// a busy host is an everyday thing.
func dump[T any](list func() (T, error)) (v T, err error) {
	for range 10 {
		if v, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return v, err
}

// freeSubnetIfIdle lets a changed option take effect once nothing is attached.
func (m *Manager) freeSubnetIfIdle() {
	if len(m.store.leases) == 0 && m.options.Subnet.IsValid() && m.subnet != m.options.Subnet {
		m.subnet = netip.Prefix{}
	}
}
