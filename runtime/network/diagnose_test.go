package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

func TestProbeKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	links := func() (all []string) { // that it makes; others of the host come and go
		for _, name := range []string{DefaultBridge, "probe0", "probe1"} {
			if _, err := os.Stat("/sys/class/net/" + name); err == nil {
				all = append(all, name)
			}
		}
		return all
	}
	before := links()
	if err := ProbeKernel(); err != nil {
		t.Errorf("this kernel: %v", err)
	}
	if after := links(); !slices.Equal(after, before) {
		t.Errorf("devices of the host were %q, are %q", before, after)
	}
}

func TestDiagnose(t *testing.T) {
	w := newWorld(t)
	options := Options{Bridge: "wtest0", Dir: filepath.Join(w.dir, "network"), host: w.host}
	diagnose := func() Diagnosis {
		t.Helper()
		d, err := Diagnose(options)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := diagnose(); d.Bridge != nil || d.Exists || d.Subnet != DefaultSubnets[0] || d.SubnetErr != nil || len(d.Dropped) > 0 || d.Firewalld {
		t.Errorf("a clean host: %+v", d)
	}
	if _, err := os.Stat(options.Dir); err == nil {
		t.Error("a diagnosis makes folders")
	}

	tables, err := openTables(w.host)
	if err != nil {
		t.Fatal(err)
	}
	defer tables.close()
	drop := nftables.ChainPolicyDrop
	filter := tables.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	forward := tables.conn.AddChain(&nftables.Chain{Name: "FORWARD", Table: filter, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	_ = forward
	zones := tables.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "firewalld"})
	zone := tables.conn.AddChain(&nftables.Chain{Name: "filter_FORWARD_ZONES", Table: zones})
	if err := tables.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	d := diagnose()
	if len(d.Dropped) != 1 || d.Dropped[0].Chain != "table ip filter, chain FORWARD" || !strings.Contains(d.Dropped[0].Remedy, "iptables -I FORWARD -i wtest0 -j ACCEPT") {
		t.Errorf("a dropping chain: %+v", d.Dropped)
	}
	if !d.Firewalld || d.Zoned {
		t.Errorf("firewalld: %v, %v", d.Firewalld, d.Zoned)
	}
	tables.conn.AddRule(&nftables.Rule{Table: zones, Chain: zone, Exprs: append(device(expr.MetaKeyIIFNAME, "wtest0", true), verdict(expr.VerdictAccept, "")...)})
	if err := tables.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if d := diagnose(); !d.Zoned {
		t.Error("the bridge's zone is not seen")
	}

	inside(t, w.host, func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = options.Bridge
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	})
	if d := diagnose(); d.Bridge == nil || !strings.Contains(d.Bridge.Error(), "somebody else") {
		t.Errorf("the name is taken: %v", d.Bridge)
	}
	options.Subnet = netip.MustParsePrefix("198.51.100.0/24")
	if d := diagnose(); d.SubnetErr == nil {
		t.Error("the subnet is the host's")
	}
}
