package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// leaseStore keeps one small file per run. The folder is on tmpfs: a reboot
// ends the runs and their leases together, so nothing is synced.
type leaseStore struct {
	dir        string
	leases     map[string]Lease
	publishing map[string]Lease   // those with ports
	used       map[netip.Addr]int // leases by address
}

const (
	leaseSuffix = ".json"
	subnetFile  = "subnet"
)

// openLeases reads what is on disk. A file that cannot be read is not worth a
// daemon that refuses to start: it is reported and removed, and Repair removes
// the device it stood for.
func openLeases(dir string, log *slog.Logger) (*leaseStore, error) {
	s := &leaseStore{dir: dir}
	s.empty()
	if err := os.MkdirAll(s.folder(), 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.folder())
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(s.folder(), e.Name())
		l, err := readLease(path)
		if err != nil {
			log.Warn("network lease unreadable, removed", "file", path, "err", err)
			os.Remove(path)
			continue
		}
		s.note(l)
	}
	return s, nil
}

func (s *leaseStore) empty() {
	s.leases, s.publishing, s.used = map[string]Lease{}, map[string]Lease{}, map[netip.Addr]int{}
}

func (s *leaseStore) note(l Lease) {
	s.forget(l.Run)
	s.leases[l.Run] = l
	s.used[l.Address.Addr()]++
	if len(l.Ports) > 0 {
		s.publishing[l.Run] = l
	}
}

func (s *leaseStore) forget(run string) {
	l, ok := s.leases[run]
	if !ok {
		return
	}
	delete(s.leases, run)
	delete(s.publishing, run)
	if s.used[l.Address.Addr()]--; s.used[l.Address.Addr()] == 0 {
		delete(s.used, l.Address.Addr())
	}
}

func (s *leaseStore) folder() string         { return filepath.Join(s.dir, "leases") }
func (s *leaseStore) path(run string) string { return filepath.Join(s.folder(), run+leaseSuffix) }

func readLease(path string) (Lease, error) {
	var l Lease
	name, ok := strings.CutSuffix(filepath.Base(path), leaseSuffix)
	if !ok {
		return l, errors.New("not a lease")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, err
	}
	if l.Run != name || !l.Address.IsValid() || !l.Address.Addr().Is4() || l.Device == "" {
		return l, errors.New("incomplete lease")
	}
	return l, nil
}

// put writes the lease before anything is made for it, so that whatever a
// crash leaves behind has a name on disk.
func (s *leaseStore) put(l Lease) error {
	data, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return err
	}
	if err := writeFile(s.path(l.Run), data); err != nil {
		return err
	}
	s.note(l)
	return nil
}

func (s *leaseStore) remove(run string) error {
	if err := os.Remove(s.path(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.forget(run)
	return nil
}

// list returns the leases ordered by run.
func (s *leaseStore) list() []Lease { return ordered(s.leases) }

func ordered(leases map[string]Lease) []Lease {
	return slices.SortedFunc(maps.Values(leases), func(a, b Lease) int { return strings.Compare(a.Run, b.Run) })
}

// subnet returns what was chosen before, or the zero prefix.
func (s *leaseStore) subnet() (netip.Prefix, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, subnetFile))
	if errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, nil
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(strings.TrimSpace(string(data)))
}

func (s *leaseStore) setSubnet(p netip.Prefix) error {
	return writeFile(filepath.Join(s.dir, subnetFile), []byte(p.String()+"\n"))
}

// destroy removes everything the store wrote.
func (s *leaseStore) destroy() error {
	s.empty()
	return errors.Join(os.RemoveAll(s.folder()), removeIfThere(filepath.Join(s.dir, subnetFile)))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// A hidden name beside the target: a half-written file is never read as a lease.
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// newLease finds an address for the run. The first try is a hash of the
// instance, so that a slot usually keeps its address over restarts; then the
// next free one.
func newLease(bridge string, subnet netip.Prefix, e Endpoint, used map[netip.Addr]int) (Lease, error) {
	size := uint32(1) << (32 - subnet.Bits())
	room := size - 3 // without the network, the gateway and the broadcast address
	first := uint32(hashOf(instanceOf(e.Run)) % uint64(room))
	for i := range room {
		n := 2 + (first+i)%room
		addr := nth(subnet, n)
		if used[addr] > 0 {
			continue
		}
		return Lease{
			Run:     e.Run,
			Unit:    e.Unit,
			Address: netip.PrefixFrom(addr, subnet.Bits()),
			Gateway: gatewayOf(subnet),
			Device:  deviceName(bridge, n),
		}, nil
	}
	return Lease{}, fmt.Errorf("subnet %s: %w (%d in use)", subnet, ErrNoAddress, len(used))
}

// instanceOf cuts the run's own part off: web.1-7f3k is a run of web.1.
func instanceOf(run string) string {
	if i := strings.LastIndexByte(run, '-'); i > 0 {
		return run[:i]
	}
	return run
}

// deviceName names the host side of a pair by its bridge and address, so that
// two daemons never collide and a crashed attempt leaves a name that can be
// found: "v", six digits for the bridge, a dash and the host part: 14 bytes of
// the 15 that the kernel has for /8, the widest subnet.
func deviceName(bridge string, index uint32) string {
	return fmt.Sprintf("%s%x", devicePrefix(bridge), index)
}

func devicePrefix(bridge string) string {
	return fmt.Sprintf("v%06x-", hashOf(bridge)&0xffffff)
}

func hashOf(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// Hardware addresses follow from IPv4 addresses: an address that moves to
// another run keeps its hardware address, so no neighbour's cache goes stale.
// The host side has the higher first byte.
func containerMAC(a netip.Addr) net.HardwareAddr { return macOf(0x02, a) }
func hostMAC(a netip.Addr) net.HardwareAddr      { return macOf(0xfe, a) }

func macOf(first byte, a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{first, 0x77, b[0], b[1], b[2], b[3]}
}

// validRun checks that a run's name can be a file's.
func validRun(run string) error {
	if run == "" || run[0] == '.' || strings.ContainsAny(run, "/\x00") || len(run) > 200 {
		return fmt.Errorf("run %q: not a valid name", run)
	}
	return nil
}
