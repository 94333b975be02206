package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
)

// Options configure a Manager.
type Options struct {
	Bridge string       // name of the bridge device; empty: "wherry0"
	Subnet netip.Prefix // zero: 10.88.0.0/16 ... the first free of a few private ranges
	Dir    string       // leases are kept here, on tmpfs; required
	Logger *slog.Logger
}

// Manager owns one bridge, its leases and one nftables table (named after the
// bridge). It is safe for concurrent use.
type Manager struct{}

// Open makes or finds the bridge, writes the table if it differs, and reads
// the leases. It is cheap to call again and idempotent. Nothing is made on the
// host before the first Attach.
func Open(o Options) (*Manager, error) { return nil, errors.ErrUnsupported }

// Endpoint is what one run wants of the network.
type Endpoint struct {
	Run   string // lease name
	Unit  string
	Ports []Port
}

// Port publishes a container port. Several runs may publish the same host
// address, protocol and port only if Share (the unit's name) is equal: then
// connections are spread over them.
type Port struct {
	HostIP   netip.Addr // zero: all addresses, 127.0.0.1 included
	HostPort uint16     // 0: a free one is chosen and kept for the unit
	Port     uint16     // in the container
	Protocol string     // "tcp" or "udp"
	Share    string
}

// Lease is what an endpoint got.
type Lease struct {
	Run     string       `json:"run"`
	Unit    string       `json:"unit"`
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway"`
	Device  string       `json:"device"` // host side of the veth pair
	Ports   []Port       `json:"ports"`  // with HostPort filled in
}

// Errors that callers tell apart with errors.Is.
var (
	ErrPortTaken   = errors.New("address already in use")
	ErrNoAddress   = errors.New("no free address in the subnet")
	ErrForeignDrop = errors.New("another firewall table drops forwarded packets")
)

// Attach puts an interface "eth0" with an address, routes and loopback into
// the namespace and publishes the ports once Publish is called. On error
// nothing is left.
func (m *Manager) Attach(ctx context.Context, ns *os.File, e Endpoint) (Lease, error) {
	return Lease{}, errors.ErrUnsupported
}

// Detach removes the run's ports, device and lease. Detaching what is not
// attached is no error.
func (m *Manager) Detach(ctx context.Context, run string) error { return errors.ErrUnsupported }

// Leases lists what is attached, from disk.
func (m *Manager) Leases() []Lease { return nil }

// Repair makes table, bridge and ports what the leases say, and detaches
// leases whose run is not in live. It is called at daemon start and when the
// table was changed by somebody else.
func (m *Manager) Repair(ctx context.Context, live []string) error { return errors.ErrUnsupported }

// Destroy removes table, bridge and leases.
func (m *Manager) Destroy(ctx context.Context) error { return errors.ErrUnsupported }
