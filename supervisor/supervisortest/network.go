package supervisortest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/wherry-run/wherry/runtime/network"
)

// Network keeps books of leases and ports.
type Network struct {
	mu     sync.Mutex
	leases map[string]network.Lease
	taken  map[uint16]string // by somebody else than us
	next   byte
	random uint16
	lost   map[string]bool // runs whose device is gone
	wrong  error
}

// NewNetwork makes a network without endpoints.
func NewNetwork() *Network {
	return &Network{leases: map[string]network.Lease{}, taken: map[uint16]string{}, lost: map[string]bool{}, random: 32768}
}

// Take lets a foreign process have a port; Free gives it back.
func (n *Network) Take(port uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[port] = "foreign"
}

// Free frees a port that Take took.
func (n *Network) Free(port uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.taken, port)
}

// Sever takes a run's device away.
func (n *Network) Sever(run string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[run] = true
}

// Spoil makes Heal and Repair fail with err until it is called with nil.
func (n *Network) Spoil(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wrong = err
}

// Heal says what is wrong.
func (n *Network) Heal(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state()
}

func (n *Network) state() error {
	errs := []error{n.wrong}
	for run := range n.leases {
		if n.lost[run] {
			errs = append(errs, &network.RunError{Run: run, Device: "veth", Err: network.ErrDeviceGone})
		}
	}
	return errors.Join(errs...)
}

// Attach gives the run an address and its ports.
func (n *Network) Attach(_ context.Context, _ *os.File, e network.Endpoint) (network.Lease, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.leases[e.Run]; ok {
		return network.Lease{}, fmt.Errorf("%s: attached twice", e.Run)
	}
	l := network.Lease{Run: e.Run, Unit: e.Unit, Ports: slices.Clone(e.Ports)}
	for i, p := range l.Ports {
		if p.HostPort == 0 {
			n.random++
			l.Ports[i].HostPort = n.random
			continue
		}
		if err := n.available(p); err != nil {
			return network.Lease{}, err
		}
	}
	n.next++
	l.Address = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, 0, n.next}), 16)
	n.leases[e.Run] = l
	return l, nil
}

func (n *Network) available(p network.Port) error {
	err := fmt.Errorf("port %d: %w", p.HostPort, network.ErrPortTaken)
	if n.taken[p.HostPort] != "" {
		return err
	}
	for _, l := range n.leases {
		for _, q := range l.Ports {
			if q.HostPort == p.HostPort && q.Protocol == p.Protocol && (q.Share == "" || q.Share != p.Share) {
				return err
			}
		}
	}
	return nil
}

// Detach frees what the run had.
func (n *Network) Detach(_ context.Context, run string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leases, run)
	return nil
}

// Repair detaches runs that are not live.
func (n *Network) Repair(_ context.Context, live []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for run := range n.leases {
		if !slices.Contains(live, run) {
			delete(n.leases, run)
		}
	}
	return n.state()
}

// Subnet is where addresses come from; zero before there was one to give.
func (n *Network) Subnet() netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, 0, 0}), 16)
}

// Leases lists what is attached.
func (n *Network) Leases() []network.Lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []network.Lease
	for _, l := range n.leases {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b network.Lease) int { return strings.Compare(a.Run, b.Run) })
	return list
}
