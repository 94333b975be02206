package network

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// foreignChain is a base chain of somebody else that drops what is forwarded
// unless one of its rules says otherwise: no accept of ours overrides that.
type foreignChain struct {
	command  string // "iptables" or "iptables-legacy" if that is whose it may be
	family   string
	table    string
	name     string
	siblings []string  // names of all chains of the table
	base     []passing // its own rules
	all      []passing // the rules of the whole table
}

// passing is what a rule means for us.
type passing struct {
	any  bool // accepts everything
	in   bool // accepts everything that comes from the bridge
	into bool // accepts everything that goes to the bridge
}

// lets tells whether the chain is seen to accept what the bridge forwards, in
// both directions. It is a simple reading: a rule counts if it accepts on the
// device alone, wherever it stands in the table, or if it accepts anything at all
// in the base chain. A chain that passes us by other means (marks, sets, zones)
// is reported too; the remedy then does no harm, because our own table
// still decides what gets into the bridge.
func (c foreignChain) lets() bool {
	has := func(rules []passing, is func(passing) bool) bool { return slices.ContainsFunc(rules, is) }
	return has(c.base, func(p passing) bool { return p.any }) ||
		has(c.all, func(p passing) bool { return p.in }) && has(c.all, func(p passing) bool { return p.into })
}

// err names the chain and the commands that open it for the bridge.
func (c foreignChain) err(bridge string) error {
	return fmt.Errorf("table %s %s, chain %s: %w; to let containers through run: %s",
		c.family, c.table, c.name, ErrForeignDrop, c.remedy(bridge))
}

func (c foreignChain) remedy(bridge string) string {
	accept := func(chain string) string {
		return fmt.Sprintf("%[1]s -I %[2]s -i %[3]s -j ACCEPT && %[1]s -I %[2]s -o %[3]s -j ACCEPT", c.command, chain, bridge)
	}
	iptables := c.family == "ip" && c.table == "filter" && c.name == "FORWARD"
	switch {
	case iptables && slices.Contains(c.siblings, "DOCKER-USER"):
		return accept("DOCKER-USER") // the one chain that Docker keeps when it writes the others anew
	case iptables && slices.Contains(c.siblings, "ufw-user-forward"):
		return fmt.Sprintf("ufw route allow in on %[1]s && ufw route allow out on %[1]s", bridge)
	case iptables:
		return accept("FORWARD")
	}
	return fmt.Sprintf("nft insert rule %[1]s %[2]s %[3]s iifname %[4]s accept && nft insert rule %[1]s %[2]s %[3]s oifname %[4]s accept",
		c.family, c.table, c.name, bridge)
}

// checkForeign looks for a chain that would drop what the bridge forwards. As
// long as the generation of nftables stays the same, so does the answer.
func (m *Manager) checkForeign() error {
	legacy, err := m.host.legacyChain(m.options.Bridge)
	if err != nil {
		// The old interface is looked at as far as it goes.
		m.log.Warn("legacy iptables not readable", "err", err)
	} else if legacy != nil && !legacy.lets() {
		return legacy.err(m.options.Bridge)
	}
	gen, err := m.host.tables.generation()
	if err != nil {
		return err
	}
	if m.seen.foreign && m.seen.othersAt == gen {
		return nil
	}
	m.seen.foreign = false
	chains, gen, err := readStable(m.host.tables, func() ([]foreignChain, error) { return m.host.tables.foreignChains(m.options.Bridge) })
	if err != nil {
		return err
	}
	for _, c := range chains {
		if !c.lets() {
			return c.err(m.options.Bridge)
		}
	}
	m.seen.foreign, m.seen.othersAt = true, gen
	return nil
}

// foreignChains reads the tables that have a dropping base chain in the
// forward path, iptables' own among them where it is built on nftables.
func (t *tables) foreignChains(bridge string) ([]foreignChain, error) {
	return t.chainsThat(bridge, func(c *nftables.Chain) (bool, error) {
		return c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop, nil
	})
}

// refusingChains are those of the forward path that drop or reject everything by their last rule, as people and many tools write it.
// firewalld's, which decides by zones, is looked at on its own.
func (t *tables) refusingChains(bridge string) ([]foreignChain, error) {
	return t.chainsThat(bridge, func(c *nftables.Chain) (bool, error) {
		if c.Table.Name == "firewalld" || c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			return false, nil
		}
		rules, err := t.conn.GetRules(c.Table, c)
		return len(rules) > 0 && refusesAll(rules[len(rules)-1].Exprs), err
	})
}

// chainsThat reads the tables of others that have a base chain in the forward path which is of a kind.
func (t *tables) chainsThat(bridge string, is func(*nftables.Chain) (bool, error)) ([]foreignChain, error) {
	chains, err := t.conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []foreignChain
	for _, c := range chains {
		if !inForwardPath(c) || c.Table.Family == nftables.TableFamilyIPv4 && c.Table.Name == bridge {
			continue
		}
		if ok, err := is(c); err != nil {
			return nil, fmt.Errorf("read table %s: %w", c.Table.Name, err)
		} else if !ok {
			continue
		}
		f := foreignChain{command: "iptables", family: familyName(c.Table.Family), table: c.Table.Name, name: c.Name}
		for _, s := range chains {
			if s.Table == nil || s.Table.Name != c.Table.Name || s.Table.Family != c.Table.Family {
				continue
			}
			rules, err := t.conn.GetRules(c.Table, s)
			if err != nil {
				return nil, fmt.Errorf("read table %s: %w", c.Table.Name, err)
			}
			f.siblings = append(f.siblings, s.Name)
			for _, r := range rules {
				p := readPassing(r.Exprs, bridge)
				f.all = append(f.all, p)
				if s.Name == c.Name {
					f.base = append(f.base, p)
				}
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// refusesAll tells whether a rule drops or rejects whatever comes to it. It may count and log.
func refusesAll(exprs []expr.Any) bool {
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Match:
			if e.Name != "comment" {
				return false
			}
		case *expr.Reject:
			return true
		case *expr.Target:
			return e.Name == "REJECT"
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return false
}

func inForwardPath(c *nftables.Chain) bool {
	return c.Table != nil && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		(c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet)
}

func familyName(f nftables.TableFamily) string {
	if f == nftables.TableFamilyINet {
		return "inet"
	}
	return "ip"
}

// readPassing understands rules made of device comparisons, counters, comments
// and an accept; one with any other condition accepts too little to count.
func readPassing(exprs []expr.Any, bridge string) passing {
	var (
		devices  []expr.MetaKey
		loaded   expr.MetaKey
		accepted bool
	)
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			loaded = e.Key
		case *expr.Cmp:
			isDevice := loaded == expr.MetaKeyIIFNAME || loaded == expr.MetaKeyOIFNAME
			if !isDevice || e.Op != expr.CmpOpEq || !namesDevice(e.Data, bridge) {
				return passing{}
			}
			devices = append(devices, loaded)
		case *expr.Counter:
		case *expr.Match:
			if e.Name != "comment" {
				return passing{}
			}
		case *expr.Verdict:
			accepted = e.Kind == expr.VerdictAccept
		default:
			return passing{}
		}
	}
	if !accepted || len(devices) > 1 {
		return passing{}
	}
	return passing{
		any:  len(devices) == 0,
		in:   slices.Contains(devices, expr.MetaKeyIIFNAME),
		into: slices.Contains(devices, expr.MetaKeyOIFNAME),
	}
}

// namesDevice compares as the kernel does: a name without its closing zero is
// a prefix (iptables' "wherry+").
func namesDevice(data []byte, bridge string) bool {
	name, _, whole := bytes.Cut(data, []byte{0})
	if whole {
		return string(name) == bridge
	}
	return bytes.HasPrefix([]byte(bridge), name)
}
