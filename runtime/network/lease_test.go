package network

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func usedBy(leases ...Lease) map[netip.Addr]int {
	used := map[netip.Addr]int{}
	for _, l := range leases {
		used[l.Address.Addr()]++
	}
	return used
}

func TestNewLease(t *testing.T) {
	subnet := netip.MustParsePrefix("10.88.7.0/29")
	var leases []Lease
	devices := map[string]bool{}
	for i := range 5 { // 8 addresses without network, gateway and broadcast
		l, err := newLease("wherry0", subnet, Endpoint{Run: fmt.Sprintf("web.%d-aaaa", i)}, usedBy(leases...))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range leases {
			if o.Address == l.Address {
				t.Fatalf("%s given twice", l.Address)
			}
		}
		if !subnet.Contains(l.Address.Addr()) || l.Address.Bits() != 29 || l.Gateway.String() != "10.88.7.1" {
			t.Errorf("lease %+v", l)
		}
		if n := indexIn(subnet, l.Address.Addr()); n < 2 || n > 6 {
			t.Errorf("%s is no host's address", l.Address)
		}
		leases, devices[l.Device] = append(leases, l), true
	}
	if len(devices) != 5 {
		t.Errorf("device names collide: %v", devices)
	}
	if _, err := newLease("wherry0", subnet, Endpoint{Run: "one.too-many"}, usedBy(leases...)); !errors.Is(err, ErrNoAddress) {
		t.Errorf("full subnet: %v", err)
	}
}

// The slot decides, not the run: web.1 comes back where it was.
func TestAddressIsStable(t *testing.T) {
	subnet := netip.MustParsePrefix("10.88.0.0/16")
	a, _ := newLease("wherry0", subnet, Endpoint{Run: "web.1-aaaa"}, nil)
	b, _ := newLease("wherry0", subnet, Endpoint{Run: "web.1-bbbb"}, nil)
	c, _ := newLease("wherry0", subnet, Endpoint{Run: "web.2-aaaa"}, nil)
	if a.Address != b.Address || a.Address == c.Address {
		t.Errorf("addresses %s, %s, %s", a.Address, b.Address, c.Address)
	}
	// Both runs of a slot exist during an update.
	if d, _ := newLease("wherry0", subnet, Endpoint{Run: "web.1-bbbb"}, usedBy(a)); d.Address == a.Address {
		t.Errorf("%s given twice", d.Address)
	}
}

func TestDeviceName(t *testing.T) {
	widest := deviceName("a-long-bridge-0", 1<<24-1)
	if len(widest) > 15 {
		t.Errorf("%q is longer than the kernel allows", widest)
	}
	if deviceName("wherry0", 2) == deviceName("wherry1", 2) {
		t.Error("two bridges share a device name")
	}
}

func TestStoreReadsBack(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := openLeases(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	want := leaseOf("web.1-aaaa", "10.88.0.2", tcp(80, 8080, "web"), at("127.0.0.1", tcp(81, 8080, "")))
	want.Gateway = netip.MustParseAddr("10.88.0.1")
	if err := errors.Join(s.put(want), s.setSubnet(netip.MustParsePrefix("10.88.0.0/16"))); err != nil {
		t.Fatal(err)
	}
	// What a crash or a stranger may have left is no reason to fail.
	for name, content := range map[string]string{
		".web.2-bbbb.json.tmp": `{"run"`, "web.3-cccc.json": `{"run"`, "web.4-dddd.json": `{"run":"other"}`, "note.txt": "",
	} {
		if err := os.WriteFile(filepath.Join(s.folder(), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = openLeases(dir, log); err != nil {
		t.Fatal(err)
	}
	if got := s.list(); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if left, _ := os.ReadDir(s.folder()); len(left) != 1 {
		t.Errorf("unreadable files stayed: %v", left)
	}
	if p, err := s.subnet(); err != nil || p.String() != "10.88.0.0/16" {
		t.Errorf("subnet %s, %v", p, err)
	}
	if err := errors.Join(s.remove("web.1-aaaa"), s.remove("web.1-aaaa"), s.destroy(), s.destroy()); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left after destroy: %v", left)
	}
}

// TestStoreKnowsWhatIsTaken: also after a change of a lease, a removal, and by the next daemon.
func TestStoreKnowsWhatIsTaken(t *testing.T) {
	dir := t.TempDir()
	s, err := openLeases(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, addresses, publishing int) {
		t.Helper()
		next, err := openLeases(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for who, s := range map[string]*leaseStore{"we": s, "the next": next} {
			if !maps.Equal(s.used, usedBy(s.list()...)) || len(s.used) != addresses || len(s.publishing) != publishing {
				t.Errorf("%s: %s: %v taken, %d publish", when, who, s.used, len(s.publishing))
			}
		}
	}
	web, db := leaseOf("web.1-aaaa", "10.88.0.2", tcp(80, 8080, "web")), leaseOf("db.1-aaaa", "10.88.0.3")
	if err := errors.Join(s.put(web), s.put(db), s.put(db)); err != nil {
		t.Fatal(err)
	}
	check("two", 2, 1)
	if err := s.put(leaseOf("web.1-aaaa", "10.88.0.4")); err != nil {
		t.Fatal(err)
	}
	check("another address, and no ports", 2, 0)
	if err := errors.Join(s.remove("web.1-aaaa"), s.remove("web.1-aaaa"), s.remove("db.1-aaaa")); err != nil {
		t.Fatal(err)
	}
	check("none", 0, 0)
}

func TestFreeSubnet(t *testing.T) {
	routes := func(all ...string) (out []route) {
		for _, r := range all {
			out = append(out, route{netip.MustParsePrefix(r), "eth0"})
		}
		return out
	}
	for _, tc := range []struct {
		routes []route
		want   string
	}{
		{nil, "10.88.0.0/16"},
		{routes("0.0.0.0/0", "192.168.1.0/24"), "10.88.0.0/16"},
		{routes("10.88.3.4/32"), "10.89.0.0/16"},
		{routes("10.0.0.0/8"), "172.29.0.0/16"},
		{routes("10.0.0.0/8", "172.16.0.0/12"), "192.168.240.0/20"},
		{routes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), ""},
	} {
		got, err := freeSubnet(DefaultSubnets, tc.routes)
		if (err != nil) != (tc.want == "") || err == nil && got.String() != tc.want {
			t.Errorf("%v: got %s, %v; want %s", tc.routes, got, err, tc.want)
		}
	}
	chosen := netip.MustParsePrefix("10.5.0.0/16")
	for r, ok := range map[string]bool{"10.0.0.0/8": true, "10.5.0.0/16": false, "10.5.1.0/24": false, "10.6.0.0/16": true, "0.0.0.0/0": true} {
		if err := checkSubnet(chosen, routes(r)); (err == nil) != ok {
			t.Errorf("%s beside %s: %v", chosen, r, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"no folder":         {},
		"bridge with slash": {Dir: dir, Bridge: "a/b"},
		"long bridge":       {Dir: dir, Bridge: "abcdefghijklmnop"},
		"IPv6 subnet":       {Dir: dir, Subnet: netip.MustParsePrefix("fd00::/64")},
		"host bits":         {Dir: dir, Subnet: netip.MustParsePrefix("10.1.2.3/16")},
		"small subnet":      {Dir: dir, Subnet: netip.MustParsePrefix("10.1.2.0/30")},
	} {
		if _, err := Open(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, run := range []string{"", ".", "..", "a/b", ".hidden"} {
		if validRun(run) == nil {
			t.Errorf("run %q: accepted", run)
		}
	}
}

// indexIn is the inverse of nth.
func indexIn(s netip.Prefix, a netip.Addr) uint32 {
	base, addr := s.Addr().As4(), a.As4()
	return be32(addr[:]) - be32(base[:])
}

// BenchmarkLeaseBeside is what an attachment without ports costs us beside others, without
// the kernel's part: it is to be the same beside any number.
func BenchmarkLeaseBeside(b *testing.B) {
	for _, n := range []int{0, 50, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store, err := openLeases(b.TempDir(), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			m := &Manager{store: store, subnet: netip.MustParsePrefix("10.88.0.0/16"), leaving: map[string]bool{}, reserved: reservations{}}
			for i := range n {
				if _, err := m.lease(Endpoint{Run: fmt.Sprintf("idle%d.1-aaaa", i)}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				l, err := m.lease(Endpoint{Run: "once.1-aaaa"})
				if err == nil {
					err = m.forget(l)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
