package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"sync"
)

// Manager owns one bridge, its leases and one nftables table (named after the
// bridge). It is safe for concurrent use: one lock is held for almost the
// length of a call, because the kernel takes one for the same work anyway.
type Manager struct {
	options Options
	log     *slog.Logger

	mu       sync.Mutex
	closed   bool
	store    *leaseStore
	leaving  map[string]bool // runs being detached: not published any more
	subnet   netip.Prefix    // zero until the first Attach chooses it
	host     *host           // nil until something is done on the host
	reserved reservations
	seen     seen
}

// seen is what was last known of nftables, and at which generation.
type seen struct {
	table    *ruleset // our table, nil if unknown
	tableAt  uint32
	foreign  bool // the others were looked at and let us pass
	othersAt uint32
}

// bridgeName is compiled when it is needed: the command line, which links this
// package without using it, starts faster.
var bridgeName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`) })

// Open reads the leases. It is cheap to call again and idempotent. Nothing is
// made on the host before the first Attach, or a Repair with live runs.
func Open(o Options) (*Manager, error) {
	if o.Bridge == "" {
		o.Bridge = DefaultBridge
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if !bridgeName().MatchString(o.Bridge) {
		return nil, fmt.Errorf("bridge %q: want a letter and up to 14 letters, digits, dots, dashes or underscores", o.Bridge)
	}
	if o.Dir == "" {
		return nil, errors.New("network: Options.Dir is required")
	}
	if o.Subnet.IsValid() {
		if err := validSubnet(o.Subnet); err != nil {
			return nil, err
		}
	}
	store, err := openLeases(o.Dir, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	m := &Manager{options: o, log: o.Logger, store: store, leaving: map[string]bool{}, reserved: reservations{}}
	if m.subnet, err = store.subnet(); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	for _, l := range store.list() {
		if !m.subnet.IsValid() {
			m.subnet = l.Address.Masked()
		}
	}
	m.adoptSubnet()
	return m, nil
}

// adoptSubnet settles which subnet holds when the option and the folder
// disagree: while runs are attached, theirs; else the option.
func (m *Manager) adoptSubnet() {
	if !m.options.Subnet.IsValid() || m.options.Subnet == m.subnet {
		return
	}
	if len(m.store.leases) == 0 {
		m.subnet = netip.Prefix{}
		return
	}
	m.log.Warn("subnet changes when no container is attached any more", "wanted", m.options.Subnet, "in_use", m.subnet)
}

// Leases lists what is attached, ordered by run.
func (m *Manager) Leases() []Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store.list()
}

// Subnet is the one in use, or the zero prefix as long as none was chosen.
func (m *Manager) Subnet() netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.subnet
}

// Close lets go of sockets and nothing else: what is attached stays attached
// and published, and the next Open takes it over.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.release()
	return nil
}

// release closes everything that the process holds.
func (m *Manager) release() {
	m.reserved.keep(nil)
	m.seen = seen{}
	if m.host != nil {
		m.host.close()
		m.host = nil
	}
}

var errClosed = errors.New("network manager is closed")

// open connects to the host's kernel on first use.
func (m *Manager) open() error {
	if m.closed {
		return errClosed
	}
	if m.host != nil {
		return nil
	}
	h, err := openHost(m.options.host)
	if err != nil {
		return err
	}
	m.host = h
	return nil
}
