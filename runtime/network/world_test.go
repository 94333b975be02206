package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/wherry-run/wherry/runtime/internal/nsthread"
	"golang.org/x/sys/unix"
)

// The tests with a real kernel play in namespaces of their own: "host", in
// which the Manager acts, "wire", a neighbour on the host's outer network, and one for each container.
const (
	hostAddr  = "198.51.100.1"
	hostOther = "198.51.100.2"
	wireAddr  = "198.51.100.10"
)

type world struct {
	t    testing.TB
	host *os.File
	wire *os.File
	dir  string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	w := &world{t: t, host: newNamespace(t), wire: newNamespace(t), dir: t.TempDir()}
	inside(t, w.host, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "up0"
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "up0", PeerNamespace: netlink.NsFd(int(w.wire.Fd()))}
		if err := h.LinkAdd(pair); err != nil {
			return err
		}
		return bringUp(h, hostAddr+"/24", hostOther+"/24")
	})
	inside(t, w.wire, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return bringUp(h, wireAddr+"/24")
	})
	return w
}

func bringUp(h *netlink.Handle, addresses ...string) error {
	if err := h.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		return err
	}
	l, err := h.LinkByName("up0")
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a))}); err != nil {
			return err
		}
	}
	return h.LinkSetUp(l)
}

// newNamespace makes one and closes it with the test; nothing else keeps it.
func newNamespace(t testing.TB) *os.File {
	t.Helper()
	self, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	var ns *os.File
	inside(t, self, func() (err error) { // on a thread of its own, which dies
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	t.Cleanup(func() { ns.Close() })
	return ns
}

func inside(t testing.TB, ns *os.File, fn func() error) {
	t.Helper()
	if err := nsthread.Net(ns, fn); err != nil {
		t.Fatal(err)
	}
}

func (w *world) open(o Options) *Manager {
	w.t.Helper()
	o.host = w.host
	if o.Dir == "" {
		o.Dir = w.dir
	}
	m, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { m.Close() })
	return m
}

// container is a namespace with a server on every port it was given.
type container struct {
	ns    *os.File
	lease Lease
}

func (w *world) attach(m *Manager, run string, ports ...Port) *container {
	w.t.Helper()
	c := &container{ns: newNamespace(w.t)}
	var err error
	c.lease, err = m.Attach(context.Background(), c.ns, Endpoint{Run: run, Unit: instanceOf(run), Ports: ports})
	if err != nil {
		w.t.Fatalf("attach %s: %v", run, err)
	}
	return c
}

// serve answers every connection with name and the caller's address.
func serve(t testing.TB, ns *os.File, addr, name string) {
	t.Helper()
	var l net.Listener
	inside(t, ns, func() (err error) { l, err = net.Listen("tcp4", addr); return err })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s %s", name, host)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// patience is a time that no healthy test needs, on a slow and loaded machine either. It is longer than TCP's first retransmissions:
// the kernel brings a new link's queues up a little after it says that the link is up.
const (
	patience = 2 * time.Minute
	briefly  = time.Second
)

// call connects from ns and returns the answer.
func call(ns *os.File, addr string, wait time.Duration) (string, error) {
	var out []byte
	err := nsthread.Net(ns, func() error {
		c, err := net.DialTimeout("tcp4", addr, wait)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		out, err = io.ReadAll(c)
		return err
	})
	return string(out), err
}

func wantCall(t testing.TB, ns *os.File, addr, want string) {
	t.Helper()
	got, err := call(ns, addr, patience)
	if err != nil || got != want {
		t.Errorf("call %s: got %q, %v; want %q", addr, got, err, want)
	}
}

// wantSilence asserts that packets are dropped, not refused.
func wantSilence(t testing.TB, ns *os.File, addr string) {
	t.Helper()
	got, err := call(ns, addr, briefly)
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("call %s: got %q, %v; want a timeout", addr, got, err)
	}
}

// left lists what stands in the host's namespace besides the outer network.
func (w *world) left() string {
	w.t.Helper()
	h, err := openHost(w.host)
	if err != nil {
		w.t.Fatal(err)
	}
	defer h.close()
	var out []string
	links, err := h.link.LinkList()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range links {
		if n := l.Attrs().Name; n == DefaultBridge || l.Type() == "bridge" || strings.HasPrefix(n, "v") {
			out = append(out, "device "+n)
		}
	}
	tables, err := h.tables.conn.ListTables()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range tables {
		out = append(out, "table "+t.Name)
	}
	routes, err := h.routes("")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range routes {
		if r.device != "up0" && r.device != "lo" {
			out = append(out, "route "+r.String())
		}
	}
	return strings.Join(out, ", ")
}

func (w *world) wantNothingLeft(m *Manager) {
	w.t.Helper()
	if err := m.Destroy(context.Background()); err != nil {
		w.t.Errorf("destroy: %v", err)
	}
	if left := w.left(); left != "" {
		w.t.Errorf("left after destroy: %s", left)
	}
	if len(m.reserved) > 0 || m.host != nil {
		w.t.Errorf("sockets open after destroy: %v, %v", m.reserved, m.host)
	}
	if err := m.Destroy(context.Background()); err != nil {
		w.t.Errorf("destroy again: %v", err)
	}
}
