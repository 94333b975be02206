package network

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/internal/nsthread"
)

// Diagnosis is what stands between containers and the network of this host.
type Diagnosis struct {
	// Bridge says what has the bridge's name without being ours; nil: nothing.
	Bridge error
	Exists bool // the bridge is there

	// Subnet is the chosen one, or what would be chosen; SubnetErr is why none can be.
	Subnet    netip.Prefix
	SubnetErr error

	// Dropped are chains of others that drop what containers send or receive.
	Dropped []Obstacle

	// Refused are chains of others that let everything pass by their policy, but whose last rule drops or rejects all that no rule
	// before is seen to accept. What a jump leads to is not followed, so this is a suspicion.
	Refused []Obstacle

	// Firewalld: its table is there. Zoned: it knows the bridge.
	Firewalld, Zoned bool
}

// Obstacle is a chain that drops what the bridge forwards, and the commands that
// open it for the bridge.
type Obstacle struct{ Chain, Remedy string }

// Diagnose looks at the host as Attach would, and changes nothing. Dir may be
// missing; it tells which subnet is in use.
func Diagnose(o Options) (Diagnosis, error) {
	if o.Bridge == "" {
		o.Bridge = DefaultBridge
	}
	h, err := openHost(o.host)
	if err != nil {
		return Diagnosis{}, err
	}
	defer h.close()
	var d Diagnosis
	l, err := (&Manager{options: o, host: h}).findBridge()
	d.Exists, d.Bridge = l != nil, err
	routes, err := h.routes(o.Bridge)
	if err != nil {
		return d, err
	}
	if d.Subnet = rememberedSubnet(o); d.Subnet.IsValid() {
		d.SubnetErr = checkSubnet(d.Subnet, routes)
	} else {
		d.Subnet, d.SubnetErr = freeSubnet(DefaultSubnets, routes)
	}
	legacy, err := h.legacyChain(o.Bridge)
	if err != nil {
		return d, fmt.Errorf("legacy iptables: %w", err)
	}
	if legacy != nil && !legacy.lets() {
		d.Dropped = append(d.Dropped, legacy.obstacle(o.Bridge))
	}
	chains, _, err := readStable(h.tables, func() ([]foreignChain, error) { return h.tables.foreignChains(o.Bridge) })
	if err != nil {
		return d, err
	}
	for _, c := range chains {
		if !c.lets() {
			d.Dropped = append(d.Dropped, c.obstacle(o.Bridge))
		}
	}
	if chains, _, err = readStable(h.tables, func() ([]foreignChain, error) { return h.tables.refusingChains(o.Bridge) }); err != nil {
		return d, err
	}
	for _, c := range chains {
		if !c.lets() {
			d.Refused = append(d.Refused, c.obstacle(o.Bridge))
		}
	}
	d.Firewalld, d.Zoned, err = h.tables.firewalld(o.Bridge)
	return d, err
}

func (c foreignChain) obstacle(bridge string) Obstacle {
	name := fmt.Sprintf("table %s %s, chain %s", c.family, c.table, c.name)
	if c.command == "iptables-legacy" {
		name += " (iptables-legacy)"
	}
	return Obstacle{name, c.remedy(bridge)}
}

// rememberedSubnet is the subnet in use, or the one that is wanted; zero if neither is.
func rememberedSubnet(o Options) netip.Prefix {
	if _, err := os.Stat(o.Dir); o.Dir != "" && err == nil {
		if m, err := Open(Options{Bridge: o.Bridge, Dir: o.Dir, Subnet: o.Subnet}); err == nil && m.subnet.IsValid() {
			return m.subnet
		}
	}
	return o.Subnet
}

// firewalld tells whether its table is there, and whether any rule of it names the
// bridge, as they do for a device that was put into a zone. It ends with a reject,
// which is no policy: foreignChains does not see it.
func (t *tables) firewalld(bridge string) (there, zoned bool, err error) {
	list, err := t.conn.ListTables()
	if err != nil {
		return false, false, fmt.Errorf("list tables: %w", err)
	}
	for _, table := range list {
		if table.Name != "firewalld" {
			continue
		}
		there = true
		zoned, err = t.names(table, bridge)
		if zoned || err != nil {
			return there, zoned, err
		}
	}
	return there, false, nil
}

func (t *tables) names(table *nftables.Table, bridge string) (bool, error) {
	chains, err := t.conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table == nil || c.Table.Name != table.Name || !strings.Contains(c.Name, "FORWARD") && !strings.Contains(c.Name, "FWD") {
			continue
		}
		rules, err := t.conn.GetRules(table, c)
		if err != nil {
			return false, fmt.Errorf("read table %s: %w", table.Name, err)
		}
		for _, r := range rules {
			if comparesDevice(r.Exprs, bridge) {
				return true, nil
			}
		}
	}
	return false, nil
}

// probeSubnet serves in namespaces that end at once.
var probeSubnet = netip.MustParsePrefix("10.88.0.0/16")

// ProbeKernel tells what this kernel lacks for the network of containers, by
// making all of it in a network namespace that ends with the call: bridge, sysctls, the
// table with a published port, a pair of devices.
func ProbeKernel() error {
	ns, err := freshNamespace()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	dir, err := os.MkdirTemp("", "wherry-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := Open(Options{Bridge: DefaultBridge, Subnet: probeSubnet, Dir: dir, host: ns})
	if err != nil {
		return err
	}
	defer m.Close()
	if _, err := m.ready(); err != nil {
		return err
	}
	lease := Lease{Run: "probe", Address: netip.PrefixFrom(gatewayOf(probeSubnet).Next(), 16), Ports: []Port{{HostPort: 80, Port: 80, Protocol: "tcp"}}}
	if err := m.host.tables.rewrite(buildRuleset(DefaultBridge, probeSubnet, []Lease{lease})); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	if err := m.host.link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "probe1"}); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	return nil
}

// freshNamespace makes a network namespace, on a thread that ends with that.
func freshNamespace() (ns *os.File, err error) {
	err = nsthread.Spend(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	return ns, err
}

// comparesDevice tells whether a rule asks for a device of this name.
func comparesDevice(exprs []expr.Any, name string) bool {
	isDevice := false
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			isDevice = e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME
		case *expr.Cmp:
			if isDevice && e.Op == expr.CmpOpEq && namesDevice(e.Data, name) {
				return true
			}
		}
	}
	return false
}
