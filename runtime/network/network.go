package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
)

// DefaultBridge is the bridge of a daemon that was told no other.
const DefaultBridge = "wherry0"

// Options configure a Manager.
type Options struct {
	Bridge string       // name of the bridge device; empty: DefaultBridge
	Subnet netip.Prefix // zero: the first of DefaultSubnets that overlaps no address or route of the host
	Dir    string       // leases are kept here, on tmpfs; required
	Logger *slog.Logger // nil: no log

	// host is the namespace that plays the host in tests; nil is that of the
	// process.
	host *os.File
}

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
	HostIP   netip.Addr `json:"host_ip"`   // zero: all addresses, 127.0.0.1 included
	HostPort uint16     `json:"host_port"` // 0: a free one is chosen and kept for the unit
	Port     uint16     `json:"port"`      // in the container
	Protocol string     `json:"protocol"`  // "tcp" or "udp"; empty is "tcp"
	Share    string     `json:"share"`     // empty: shared with nobody
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
	// ErrDeviceGone is reported by Repair and Heal, in a RunError, for a live
	// run whose veth pair was removed by somebody else: only a new start of the
	// run heals that.
	ErrDeviceGone = errors.New("network device is gone")
)

// RunError says what is wrong with the network of one run.
type RunError struct {
	Run    string
	Device string
	Err    error
}

func (e *RunError) Error() string {
	return fmt.Sprintf("run %s: device %s: %v", e.Run, e.Device, e.Err)
}

func (e *RunError) Unwrap() error { return e.Err }
