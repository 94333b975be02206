package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/wherry-run/wherry/runtime/internal/nsthread"
)

var background = context.Background()

func tcp(host, inside uint16, share string) Port {
	return Port{HostPort: host, Port: inside, Protocol: "tcp", Share: share}
}

func TestOpenIsLazy(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	if err := m.Repair(background, []string{"gone.1-abcd"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Detach(background, "web.1-abcd"); err != nil {
		t.Fatal(err)
	}
	if left := w.left(); left != "" {
		t.Errorf("made without an attachment: %s", left)
	}
}

func TestOutward(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a, b := w.attach(m, "web.1-aaaa"), w.attach(m, "db.1-bbbb")
	serve(t, w.wire, wireAddr+":80", "wire")
	serve(t, w.host, ":81", "host")
	serve(t, b.ns, ":5432", "db")
	serve(t, a.ns, "127.0.0.1:80", "loopback")

	wantCall(t, a.ns, wireAddr+":80", "wire "+hostAddr) // masqueraded
	wantCall(t, a.ns, hostAddr+":81", "host "+a.lease.Address.Addr().String())
	wantCall(t, a.ns, m.Subnet().Addr().Next().String()+":81", "host "+a.lease.Address.Addr().String())
	wantCall(t, a.ns, b.lease.Address.Addr().String()+":5432", "db "+a.lease.Address.Addr().String())
	wantCall(t, a.ns, "127.0.0.1:80", "loopback 127.0.0.1")
	wantCall(t, w.host, b.lease.Address.Addr().String()+":5432", "db "+m.Subnet().Addr().Next().String())
	w.wantNothingLeft(m)
}

func TestPublished(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"),
		Port{HostIP: netip.MustParseAddr(hostOther), HostPort: 8081, Port: 80},
		Port{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8082, Port: 80})
	other := w.attach(m, "cli.1-bbbb")
	serve(t, a.ns, ":80", "web")
	serve(t, a.ns, ":81", "private")
	gateway := m.Subnet().Addr().Next().String()

	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
	wantCall(t, w.wire, hostOther+":8080", "web "+wireAddr)
	wantCall(t, w.wire, hostOther+":8081", "web "+wireAddr)
	wantCall(t, w.host, "127.0.0.1:8080", "web "+gateway)
	wantCall(t, w.host, "127.0.0.1:8082", "web "+gateway)
	wantCall(t, w.host, hostAddr+":8080", "web "+hostAddr)
	wantCall(t, other.ns, hostAddr+":8080", "web "+gateway) // hairpin
	wantCall(t, other.ns, gateway+":8080", "web "+gateway)
	wantCall(t, a.ns, hostAddr+":8080", "web "+gateway) // itself
	for _, addr := range []string{hostAddr + ":8081", hostAddr + ":8082"} {
		if got, err := call(w.wire, addr, briefly); err == nil {
			t.Errorf("call %s: %q: answered on an address it was not published on", addr, got)
		}
	}
	if err := m.Detach(background, "web.1-aaaa"); err != nil {
		t.Fatal(err)
	}
	if got, err := call(w.wire, hostAddr+":8080", briefly); err == nil {
		t.Errorf("answered after detach: %q", got)
	}
	serve(t, w.host, ":8080", "host") // the port is the host's again
	wantCall(t, w.wire, hostAddr+":8080", "host "+wireAddr)
	w.wantNothingLeft(m)
}

// A neighbour on the wire can send to any address by way of the host.
func TestWireCannotReach(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a := w.attach(m, "web.1-aaaa", Port{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8082, Port: 80})
	serve(t, a.ns, ":80", "web")
	serve(t, w.host, "127.0.0.1:9090", "secret")
	inside(t, w.wire, func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		up, err := h.LinkByName("up0")
		if err != nil {
			return err
		}
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		// 127.0.0.1 leaves this namespace by the wire, as in the exploit of CVE-2020-8558.
		if err := h.AddrDel(lo, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("127.0.0.1/8"))}); err != nil {
			return err
		}
		for _, to := range []string{"127.0.0.1/32", m.Subnet().String()} {
			route := &netlink.Route{LinkIndex: up.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(to)), Gw: net.ParseIP(hostAddr)}
			if err := h.RouteReplace(route); err != nil {
				return fmt.Errorf("route %s: %w", to, err)
			}
		}
		_, err = setSysctl("net/ipv4/conf/up0/route_localnet", "1")
		return err
	})
	// The host is as careless as it can be.
	inside(t, w.host, func() error { _, err := setSysctl("net/ipv4/conf/all/route_localnet", "1"); return err })

	wantSilence(t, w.wire, "127.0.0.1:8082")
	wantSilence(t, w.wire, "127.0.0.1:9090")
	wantSilence(t, w.wire, a.lease.Address.Addr().String()+":80")
	// Without the table the same calls get through: the test can fail.
	h, err := openHost(w.host)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if err := h.tables.remove(DefaultBridge); err != nil {
		t.Fatal(err)
	}
	wantCall(t, w.wire, "127.0.0.1:9090", "secret "+wireAddr)
	wantCall(t, w.wire, a.lease.Address.Addr().String()+":80", "web "+wireAddr)
	// And a look at the table brings it back.
	if err := m.Heal(background); err != nil {
		t.Fatal(err)
	}
	wantSilence(t, w.wire, "127.0.0.1:9090")
	wantSilence(t, w.wire, a.lease.Address.Addr().String()+":80")
	w.wantNothingLeft(m)
}

func TestReplicasSpread(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	count := func() map[string]int {
		got := map[string]int{}
		for range 60 {
			who, err := call(w.wire, hostAddr+":8080", patience)
			if err != nil {
				t.Fatal(err)
			}
			got[strings.Fields(who)[0]]++
		}
		return got
	}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("web.%d", i)
		c := w.attach(m, name+"-aaaa", tcp(8080, 80, "web"))
		serve(t, c.ns, ":80", name)
		// Each of i gets 60/i; below a fifth of that is less likely than one in ten million.
		if got := count(); len(got) != i || got[name] < 60/i/5 {
			t.Errorf("with %d replicas: %v", i, got)
		}
	}
	if err := m.Detach(background, "web.2-aaaa"); err != nil {
		t.Fatal(err)
	}
	if got := count(); len(got) != 2 || got["web.2"] > 0 {
		t.Errorf("after one left: %v", got)
	}
	w.wantNothingLeft(m)
}

// A connection stays with its container while replicas come and go.
func TestEstablishedStay(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
	var l net.Listener
	var c net.Conn
	inside(t, a.ns, func() (err error) { l, err = net.Listen("tcp4", ":80"); return err })
	defer l.Close()
	inside(t, w.wire, func() (err error) { c, err = net.Dial("tcp4", hostAddr+":8080"); return err })
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ping := func() {
		t.Helper()
		buf := make([]byte, 1)
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	ping()
	w.attach(m, "web.2-aaaa", tcp(8080, 80, "web"))
	w.attach(m, "web.3-aaaa", tcp(8080, 80, "web"))
	ping()
	if err := m.Detach(background, "web.2-aaaa"); err != nil {
		t.Fatal(err)
	}
	ping()
	if err := m.host.tables.rewrite(m.seen.table); err != nil {
		t.Fatal(err)
	}
	ping()
	w.wantNothingLeft(m)
}

func TestTableReadsBackEqual(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"), Port{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 53, Port: 5353, Protocol: "udp"})
	w.attach(m, "web.2-aaaa", tcp(8080, 80, "web"))
	read := func() *ruleset {
		t.Helper()
		r, err := m.host.tables.read(DefaultBridge)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := buildRuleset(DefaultBridge, m.Subnet(), m.Leases())
	if got := read(); !got.equal(want) {
		t.Fatalf("kernel has:\n%s\nwant:\n%s", got, want)
	}
	before, _ := m.host.tables.generation()
	if err := m.Repair(background, []string{"web.1-aaaa", "web.2-aaaa"}); err != nil {
		t.Fatal(err)
	}
	m.seen = seen{} // as after a restart
	if err := m.Heal(background); err != nil {
		t.Fatal(err)
	}
	if after, _ := m.host.tables.generation(); after != before {
		t.Errorf("an equal table was written again: generation %d, then %d", before, after)
	}
	w.wantNothingLeft(m)
}

func TestRepairHeals(t *testing.T) {
	live := []string{"web.1-aaaa", "web.2-aaaa"}
	for name, harm := range map[string]func(m *Manager) error{
		"table deleted": func(m *Manager) error { return m.host.tables.remove(DefaultBridge) },
		"ruleset flushed": func(m *Manager) error {
			m.host.tables.conn.FlushRuleset()
			return m.host.tables.conn.Flush()
		},
		"rule deleted": func(m *Manager) error {
			table := m.host.tables.table(DefaultBridge)
			rules, err := m.host.tables.conn.GetRules(table, &nftables.Chain{Name: chainForward})
			if err != nil {
				return err
			}
			for _, r := range rules {
				r.Table, r.Chain = table, &nftables.Chain{Name: chainForward}
				if err := m.host.tables.conn.DelRule(r); err != nil {
					return err
				}
			}
			return m.host.tables.conn.Flush()
		},
		"element deleted": func(m *Manager) error {
			first := buildRuleset(DefaultBridge, m.subnet, m.store.list()).maps[0]
			if err := m.host.tables.conn.SetDeleteElements(m.host.tables.set(DefaultBridge, first.name), elements(first.backends[:1])); err != nil {
				return err
			}
			return m.host.tables.conn.Flush()
		},
		"bridge deleted": func(m *Manager) error { return m.removeBridge() },
		"bridge down and address gone": func(m *Manager) error {
			l, err := m.findBridge()
			if err != nil {
				return err
			}
			if err := m.host.link.LinkSetDown(l); err != nil {
				return err
			}
			return m.host.link.AddrDel(l, &netlink.Addr{IPNet: ipNet(m.bridgeAddress())})
		},
		"forwarding off": func(m *Manager) error {
			return m.host.do(func() error { _, err := setSysctl("net/ipv4/ip_forward", "0"); return err })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.open(Options{})
			for _, run := range live {
				c := w.attach(m, run, tcp(8080, 80, "web"))
				serve(t, c.ns, ":80", "web")
			}
			wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
			if err := harm(m); err != nil {
				t.Fatal(err)
			}
			if err := m.Repair(background, live); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
			}
			w.wantNothingLeft(m)
		})
	}
}

// Another daemon takes over where the first left off, and cleans up what died meanwhile.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
	w.attach(m, "old.1-aaaa", tcp(9090, 80, "old"))
	serve(t, a.ns, ":80", "web")
	before := m.Leases()
	m.Close()
	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)

	m = w.open(Options{})
	if got := m.Leases(); len(got) != 2 || got[1].Address != before[1].Address {
		t.Fatalf("leases after restart: %+v", got)
	}
	if err := m.Repair(background, []string{"web.1-aaaa"}); err != nil {
		t.Fatal(err)
	}
	if got := m.Leases(); len(got) != 1 || got[0].Run != "web.1-aaaa" {
		t.Errorf("leases after repair: %+v", got)
	}
	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
	if err := nsthread.Net(w.host, func() error { _, err := net.Listen("tcp4", ":8080"); return err }); err == nil {
		t.Error("the published port was free for another process")
	}
	w.wantNothingLeft(m)
}

// The daemon died between the lease and the device, or before it removed either.
func TestCrashInTheMiddle(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	w.attach(m, "web.1-aaaa")
	lease, err := newLease(DefaultBridge, m.Subnet(), Endpoint{Run: "web.2-bbbb"}, usedBy(m.Leases()...))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.store.put(lease); err != nil { // a lease without a device
		t.Fatal(err)
	}
	stray := lease
	stray.Device = deviceName(DefaultBridge, 4711) // a device without a lease
	bridge, err := m.findBridge()
	if err != nil {
		t.Fatal(err)
	}
	ns := newNamespace(t)
	if err := m.host.addPair(bridge, ns, stray); err != nil {
		t.Fatal(err)
	}
	m.Close()

	m = w.open(Options{})
	err = m.Repair(background, []string{"web.1-aaaa", "web.2-bbbb"})
	if !errors.Is(err, ErrDeviceGone) || !strings.Contains(err.Error(), "web.2-bbbb") {
		t.Errorf("repair: %v; want ErrDeviceGone for web.2-bbbb", err)
	}
	if l, err := m.host.byName(stray.Device); l != nil || err != nil {
		t.Errorf("stray device is still there (%v)", err)
	}
	if err := m.Repair(background, []string{"web.1-aaaa"}); err != nil {
		t.Error(err)
	}
	// A left device of the address that is handed out next is in nobody's way.
	if err := m.host.addPair(bridge, newNamespace(t), lease); err != nil {
		t.Fatal(err)
	}
	if got := w.attach(m, "web.2-bbbb"); got.lease.Device != lease.Device {
		t.Errorf("device %s, want %s", got.lease.Device, lease.Device)
	}
	w.wantNothingLeft(m)
}

func TestAttachFailureLeavesNothing(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	ns := newNamespace(t)
	inside(t, ns, func() error { // eth0 is taken
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: containerDevice}})
	})
	_, err := m.Attach(background, ns, Endpoint{Run: "web.1-aaaa", Unit: "web", Ports: []Port{tcp(8080, 80, "web")}})
	if err == nil {
		t.Fatal("attached over an existing eth0")
	}
	if l := m.Leases(); len(l) != 0 {
		t.Errorf("leases left: %v", l)
	}
	if links, _ := m.host.link.LinkList(); len(links) != 0 {
		for _, l := range links {
			if isOurs(DefaultBridge, l) {
				t.Errorf("device left: %s", l.Attrs().Name)
			}
		}
	}
	cancelled, cancel := context.WithCancel(background)
	cancel()
	if _, err := m.Attach(cancelled, ns, Endpoint{Run: "web.1-aaaa"}); !errors.Is(err, context.Canceled) {
		t.Errorf("attach after cancel: %v", err)
	}
	if _, err := m.Attach(background, nil, Endpoint{Run: "web.1-aaaa"}); err == nil {
		t.Error("attached to no namespace")
	}
	w.attach(m, "web.1-bbbb", tcp(8080, 80, "web")) // the port is free again
	w.wantNothingLeft(m)
}

// The container's namespace ends by itself before Detach.
func TestDetachAfterNamespaceEnded(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	c := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
	c.ns.Close()
	for range 2 {
		if err := m.Detach(background, "web.1-aaaa"); err != nil {
			t.Fatal(err)
		}
	}
	w.wantNothingLeft(m)
}

// An attachment that finds the bridge gone brings the others back as well.
func TestAttachAfterBridgeWasDeleted(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
	serve(t, a.ns, ":80", "web")
	if err := m.removeBridge(); err != nil {
		t.Fatal(err)
	}
	w.attach(m, "web.2-aaaa")
	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
	w.wantNothingLeft(m)
}

func TestConcurrentAttach(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{Subnet: netip.MustParsePrefix("10.88.7.0/26")})
	const n = 20
	spaces := make([]*os.File, n)
	for i := range spaces {
		spaces[i] = newNamespace(t)
	}
	var wg sync.WaitGroup
	for i, ns := range spaces {
		wg.Go(func() {
			run := fmt.Sprintf("web.%d-aaaa", i)
			if _, err := m.Attach(background, ns, Endpoint{Run: run, Unit: "web", Ports: []Port{tcp(8080, 80, "web")}}); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := m.Detach(background, run); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[netip.Prefix]bool{}
	for _, l := range m.Leases() {
		if seen[l.Address] {
			t.Errorf("address %s was given twice", l.Address)
		}
		seen[l.Address] = true
	}
	if len(seen) != n/2 {
		t.Errorf("%d leases, want %d", len(seen), n/2)
	}
	got, err := m.host.tables.read(DefaultBridge)
	if err != nil || !got.equal(buildRuleset(DefaultBridge, m.Subnet(), m.Leases())) {
		t.Errorf("table differs from leases (%v):\n%s", err, got)
	}
	w.wantNothingLeft(m)
}

func TestTwoDaemons(t *testing.T) {
	w := newWorld(t)
	a := w.open(Options{Dir: t.TempDir()})
	b := w.open(Options{Dir: t.TempDir(), Bridge: "wherry1"})
	ca := w.attach(a, "web.1-aaaa", tcp(8080, 80, "web"))
	cb := w.attach(b, "web.1-aaaa", tcp(8081, 80, "web"))
	serve(t, ca.ns, ":80", "a")
	serve(t, cb.ns, ":80", "b")
	if a.Subnet() == b.Subnet() {
		t.Errorf("both have %s", a.Subnet())
	}
	wantCall(t, w.wire, hostAddr+":8080", "a "+wireAddr)
	wantCall(t, w.wire, hostAddr+":8081", "b "+wireAddr)
	wantCall(t, ca.ns, hostAddr+":8081", "b "+b.Subnet().Addr().Next().String())
	wantSilence(t, ca.ns, cb.lease.Address.Addr().String()+":80") // not published to the other network
	if _, err := b.Attach(background, newNamespace(t), Endpoint{Run: "x.1-a", Unit: "x", Ports: []Port{tcp(8080, 80, "x")}}); !errors.Is(err, ErrPortTaken) {
		t.Errorf("the other daemon's port: %v", err)
	}
	// A third one that was told the first one's bridge keeps its hands off.
	c := w.open(Options{Dir: t.TempDir()})
	if _, err := c.Attach(background, newNamespace(t), Endpoint{Run: "y.1-a"}); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Errorf("a foreign bridge: %v", err)
	}
	if err := c.Destroy(background); err == nil {
		t.Error("destroyed a foreign bridge")
	}
	wantCall(t, w.wire, hostAddr+":8080", "a "+wireAddr)
	if err := a.Destroy(background); err != nil {
		t.Error(err)
	}
	wantCall(t, w.wire, hostAddr+":8081", "b "+wireAddr)
	w.wantNothingLeft(b)
}

func TestPortTakenByProcess(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	serve(t, w.host, "127.0.0.1:8080", "other")
	attach := func(p Port) error {
		_, err := m.Attach(background, newNamespace(t), Endpoint{Run: "web.1-aaaa", Unit: "web", Ports: []Port{p}})
		return err
	}
	err := attach(tcp(8080, 80, "web"))
	if !errors.Is(err, ErrPortTaken) {
		t.Fatalf("got %v, want ErrPortTaken", err)
	}
	comm, _ := os.ReadFile("/proc/self/comm")
	want := fmt.Sprintf("port 8080/tcp: address already in use (by %s, pid %d)", strings.TrimSpace(string(comm)), os.Getpid())
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if err := attach(Port{HostIP: netip.MustParseAddr("203.0.113.9"), HostPort: 8080, Port: 80}); err == nil || errors.Is(err, ErrPortTaken) {
		t.Errorf("an address that the host does not have: %v", err)
	}
	if err := attach(Port{HostIP: netip.MustParseAddr(hostAddr), HostPort: 8080, Port: 80}); err != nil {
		t.Errorf("the other address: %v", err)
	}
	if err := m.Detach(background, "web.1-aaaa"); err != nil {
		t.Fatal(err)
	}
	if err := m.Destroy(background); err != nil {
		t.Fatal(err)
	}
}

// A server that has just ended leaves connections in TIME_WAIT: its port can be published at once.
func TestPortInTimeWait(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	t.Run("served", func(t *testing.T) {
		serve(t, w.host, ":8080", "other")
		wantCall(t, w.wire, hostAddr+":8080", "other "+wireAddr)
	})
	w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
	w.wantNothingLeft(m)
}

func TestUDP(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	port := Port{HostPort: 5353, Port: 53, Protocol: "udp", Share: "dns"}
	var client net.Conn
	inside(t, w.wire, func() (err error) { client, err = net.Dial("udp4", hostAddr+":5353"); return err })
	defer client.Close()
	listen := func(c *container) net.PacketConn {
		var l net.PacketConn
		inside(t, c.ns, func() (err error) { l, err = net.ListenPacket("udp4", ":53"); return err })
		t.Cleanup(func() { l.Close() })
		return l
	}
	receive := func(l net.PacketConn) {
		t.Helper()
		// Again and again: one may only report that an earlier one was refused, and what comes before a new link's queues are up is lost.
		for end := time.Now().Add(patience); ; {
			client.Write([]byte("x"))
			l.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, _, err := l.ReadFrom(make([]byte, 1))
			if err == nil {
				return
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
				t.Errorf("datagram did not arrive: %v", err)
				return
			}
		}
	}
	w.attach(m, "first.1-aaaa")
	client.Write([]byte("too early")) // conntrack now knows a flow to the host itself
	receive(listen(w.attach(m, "dns.1-aaaa", port)))
	if err := m.Detach(background, "dns.1-aaaa"); err != nil {
		t.Fatal(err)
	}
	// The same client, the same source port, another container.
	receive(listen(w.attach(m, "dns.2-bbbb", port)))
	w.wantNothingLeft(m)
}

func TestChosenPortsAreStable(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	a := w.attach(m, "web.1-aaaa", tcp(0, 80, "web"))
	b := w.attach(m, "web.2-aaaa", tcp(0, 80, "web"))
	c := w.attach(m, "api.1-aaaa", tcp(0, 80, "api"))
	pa, pb, pc := a.lease.Ports[0].HostPort, b.lease.Ports[0].HostPort, c.lease.Ports[0].HostPort
	if pa == 0 || pa != pb || pa == pc {
		t.Errorf("chosen ports %d, %d, %d; want the first two equal", pa, pb, pc)
	}
	if err := errors.Join(m.Detach(background, "web.1-aaaa"), m.Detach(background, "web.2-aaaa")); err != nil {
		t.Fatal(err)
	}
	if d := w.attach(m, "web.1-bbbb", tcp(0, 80, "web")); d.lease.Ports[0].HostPort != pa {
		t.Errorf("after a restart %d, before %d", d.lease.Ports[0].HostPort, pa)
	}
	w.wantNothingLeft(m)
}

func TestSubnetAvoidsHost(t *testing.T) {
	w := newWorld(t)
	inside(t, w.host, func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		up, err := h.LinkByName("up0")
		if err != nil {
			return err
		}
		if err := h.AddrAdd(up, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.88.5.1/24"))}); err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("10.89.0.0/20")), Table: 100})
	})
	m := w.open(Options{})
	w.attach(m, "web.1-aaaa")
	if want := netip.MustParsePrefix("10.90.0.0/16"); m.Subnet() != want {
		t.Errorf("subnet %s, want %s", m.Subnet(), want)
	}
	m.Close()
	if m = w.open(Options{}); m.Subnet() != netip.MustParsePrefix("10.90.0.0/16") {
		t.Errorf("subnet forgotten: %s", m.Subnet())
	}
	w.wantNothingLeft(m)
	m = w.open(Options{Subnet: netip.MustParsePrefix("10.88.0.0/16")})
	if _, err := m.Attach(background, newNamespace(t), Endpoint{Run: "x.1-a"}); err == nil || !strings.Contains(err.Error(), "overlaps") {
		t.Errorf("a chosen subnet over the host's: %v", err)
	}
}

// A changed option waits until nothing is attached.
// Daemons that come up at the same moment, as those of tests do, see each other.
func TestSubnetsChosenAtOnce(t *testing.T) {
	w := newWorld(t)
	var all []*Manager
	for i := range 8 {
		all = append(all, w.open(Options{Dir: t.TempDir(), Bridge: fmt.Sprintf("wh%d", i)}))
	}
	var chosen sync.WaitGroup
	for _, m := range all {
		ns := newNamespace(t)
		chosen.Go(func() {
			if _, err := m.Attach(background, ns, Endpoint{Run: "web.1-aaaa", Unit: "web"}); err != nil {
				t.Error(err)
			}
		})
	}
	chosen.Wait()
	seen := map[netip.Prefix]bool{}
	for _, m := range all {
		if seen[m.Subnet()] {
			t.Errorf("subnet %s twice", m.Subnet())
		}
		seen[m.Subnet()] = true
	}
}

func TestSubnetChange(t *testing.T) {
	w := newWorld(t)
	old, wanted := netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("10.88.1.0/24")
	m := w.open(Options{Subnet: old})
	w.attach(m, "web.1-aaaa")
	m.Close()
	m = w.open(Options{Subnet: wanted})
	if b := w.attach(m, "web.2-aaaa"); !old.Contains(b.lease.Address.Addr()) {
		t.Errorf("address %s while %s is in use", b.lease.Address, old)
	}
	if err := m.Repair(background, nil); err != nil {
		t.Fatal(err)
	}
	serve(t, w.wire, wireAddr+":80", "wire")
	c := w.attach(m, "web.1-bbbb")
	if !wanted.Contains(c.lease.Address.Addr()) {
		t.Errorf("address %s, want one of %s", c.lease.Address, wanted)
	}
	wantCall(t, c.ns, wireAddr+":80", "wire "+hostAddr)
	w.wantNothingLeft(m)
}

func TestMTUOfUplink(t *testing.T) {
	w := newWorld(t)
	inside(t, w.host, func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		up, err := h.LinkByName("up0")
		if err != nil {
			return err
		}
		if err := h.LinkSetMTU(up, 1400); err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(wireAddr)})
	})
	m := w.open(Options{})
	c := w.attach(m, "web.1-aaaa")
	inside(t, c.ns, func() error {
		eth, err := net.InterfaceByName(containerDevice)
		if err == nil && eth.MTU != 1400 {
			t.Errorf("MTU %d, want 1400", eth.MTU)
		}
		return err
	})
	w.wantNothingLeft(m)
}

// As the keeper makes it: the network namespace belongs to a user namespace of the run.
func TestNamespaceOfUserNamespace(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	sleeper := exec.Command("sleep", "1000")
	sleeper.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: 200000, Size: 1000}},
		GidMappings: []syscall.SysProcIDMap{{HostID: 200000, Size: 1000}},
	}
	if err := sleeper.Start(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", sleeper.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, err := m.Attach(background, ns, Endpoint{Run: "web.1-aaaa", Unit: "web", Ports: []Port{tcp(8080, 80, "web")}}); err != nil {
		t.Fatal(err)
	}
	serve(t, ns, ":80", "web")
	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
	w.wantNothingLeft(m)
}

// The figure of interest is attach-ms, with a published port; ns/op has the
// detachment too, which is the kernel's wait for its processors.
func BenchmarkAttachDetach(b *testing.B) {
	w := newWorld(b)
	dir, err := os.MkdirTemp("/dev/shm", "whN-") // tmpfs, as in real life
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(dir)
	m := w.open(Options{Dir: dir})
	w.attach(m, "first.1-aaaa", tcp(8080, 80, "web"))
	var spent time.Duration
	for b.Loop() {
		ns := newNamespace(b)
		start := time.Now()
		if _, err := m.Attach(background, ns, Endpoint{Run: "web.1-aaaa", Unit: "web", Ports: []Port{tcp(8081, 80, "web")}}); err != nil {
			b.Fatal(err)
		}
		spent += time.Since(start)
		if err := m.Detach(background, "web.1-aaaa"); err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
	b.ReportMetric(spent.Seconds()*1e3/float64(b.N), "attach-ms")
	w.wantNothingLeft(m)
}
