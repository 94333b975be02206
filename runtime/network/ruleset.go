package network

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ruleset is the whole table as data. It is built from the leases alone, read
// back from the kernel into the same shape, and compared as text.
type ruleset struct {
	table  string
	chains []chain      // by name
	maps   []backendMap // by name
	text   chainText
}

// chain is a base chain if it has a hook.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []rule
}

// rule is one rule in the kernel's terms, and why it is there; the reason
// stands in the kernel as the rule's comment.
type rule struct {
	why   string
	exprs []expr.Any
}

// backendMap is one map from what is published to a container. There is one
// for each number of choices left: choosing among n replicas is asking whether
// it shall be the first of n, else the first of the n-1 others, and so on, each time
// with the right odds. So a socket with three replicas stands in the maps for 3,
// 2 and 1, and any number of sockets share the maps and the rules.
type backendMap struct {
	name     string
	backends []backend
}

// backend is one element: connections to a published socket go to a container.
type backend struct {
	socket
	left uint32 // replicas to choose from, this one included
	to   netip.AddrPort
}

// mapName says which map an element belongs to. Sockets on all addresses have
// maps of their own: their key is without the address.
func (b backend) mapName() string {
	if b.ip.IsUnspecified() {
		return fmt.Sprintf("%s_%d", mapAnyAddress, b.left)
	}
	return fmt.Sprintf("%s_%d", mapOneAddress, b.left)
}

// Names within the table.
const (
	chainGuard     = "guard"
	chainIncoming  = "incoming"
	chainLocal     = "local"
	chainPublished = "published"
	chainForward   = "forward"
	chainOutgoing  = "outgoing"
	mapOneAddress  = "by_address"
	mapAnyAddress  = "by_port"
)

// buildRuleset says what the kernel should hold. doc.go has the picture.
func buildRuleset(bridge string, subnet netip.Prefix, leases []Lease) *ruleset {
	backends := backendsOf(leases)
	return newRuleset(bridge,
		[]chain{
			{chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, guardRules()},
			{chainIncoming, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, dispatchRules()},
			{chainLocal, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, dispatchRules()},
			{name: chainPublished, rules: publishRules(backends)},
			{chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, forwardRules(bridge)},
			{chainOutgoing, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, masqueradeRules(bridge, subnet)},
		},
		mapsOf(backends))
}

// newRuleset brings both parts into the order in which they are compared.
func newRuleset(table string, chains []chain, maps []backendMap) *ruleset {
	slices.SortFunc(chains, func(a, b chain) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(maps, func(a, b backendMap) int { return strings.Compare(a.name, b.name) })
	for _, m := range maps {
		slices.SortFunc(m.backends, compareBackends)
	}
	return &ruleset{table: table, chains: chains, maps: maps, text: printChains(chains)}
}

// guardRules stand before connection tracking, so that the answers to
// 127.0.0.1, which only conntrack turns into such, are not hit.
func guardRules() []rule {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	return []rule{
		newRule("nothing from outside reaches 127/8 (CVE-2020-8558)", device(expr.MetaKeyIIFNAME, "lo", false), address(toAddress, loopback, true), drop()),
		newRule("nothing from outside claims to be 127/8 (RFC 1122)", device(expr.MetaKeyIIFNAME, "lo", false), address(fromAddress, loopback, true), drop()),
	}
}

func dispatchRules() []rule {
	return []rule{newRule("only what is addressed to the host can be published", toLocal(), verdict(expr.VerdictJump, chainPublished))}
}

// publishRules ask the maps, those with the most choices first. The draw is
// random and not round robin, because a rule's counter would be common to all
// sockets, and clients that use two of them in turn would always meet the same replica.
func publishRules(backends []backend) []rule {
	maps := slices.Clone(backends)
	slices.SortFunc(maps, func(a, b backend) int {
		return cmp.Or(cmp.Compare(b.left, a.left), strings.Compare(a.mapName(), b.mapName()))
	})
	maps = slices.CompactFunc(maps, func(a, b backend) bool { return a.mapName() == b.mapName() })
	var out []rule
	for _, b := range maps {
		where, load := "one address", loadAddress(regFirst)
		port := loadPort(regSecond, regThird)
		if b.ip.IsUnspecified() {
			where, load, port = "all addresses", nil, loadPort(regFirst, regSecond)
		}
		out = append(out, newRule(fmt.Sprintf("%s, 1 of %d", where, b.left), draw(b.left), load, port, translate(b.mapName())))
	}
	return out
}

func forwardRules(bridge string) []rule {
	into := func() []expr.Any { return device(expr.MetaKeyOIFNAME, bridge, true) }
	return []rule{
		newRule("within the network", device(expr.MetaKeyIIFNAME, bridge, true), into(), verdict(expr.VerdictAccept, "")),
		newRule("answers", into(), conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept, "")),
		newRule("published", into(), conntrack(expr.CtKeySTATUS, ipsDstNAT), verdict(expr.VerdictAccept, "")),
		newRule("nothing else gets in", into(), drop()),
	}
}

func masqueradeRules(bridge string, subnet netip.Prefix) []rule {
	masquerade := []expr.Any{&expr.Masq{}}
	return []rule{
		newRule("containers go out with the host's address", address(fromAddress, subnet, true),
			device(expr.MetaKeyOIFNAME, bridge, false), device(expr.MetaKeyOIFNAME, "lo", false), masquerade),
		newRule("the host's 127/8 cannot be answered from inside", address(fromAddress, netip.MustParsePrefix("127.0.0.0/8"), true),
			device(expr.MetaKeyOIFNAME, bridge, true), masquerade),
		newRule("hairpin: the answer must come back through the host", address(fromAddress, subnet, true),
			device(expr.MetaKeyOIFNAME, bridge, true), conntrack(expr.CtKeySTATUS, ipsDstNAT), masquerade),
	}
}

// backendsOf lists every published socket's containers. The order within a
// socket is by address, so that equal leases give equal elements.
func backendsOf(leases []Lease) []backend {
	groups := map[socket][]netip.AddrPort{}
	for _, l := range leases {
		for _, p := range l.Ports {
			groups[p.socket()] = append(groups[p.socket()], netip.AddrPortFrom(l.Address.Addr(), p.Port))
		}
	}
	var out []backend
	for s, to := range groups {
		slices.SortFunc(to, netip.AddrPort.Compare)
		to = slices.Compact(to)
		for i, t := range to {
			out = append(out, backend{s, uint32(i + 1), t})
		}
	}
	return out
}

func mapsOf(backends []backend) []backendMap {
	byName := map[string][]backend{}
	for _, b := range backends {
		byName[b.mapName()] = append(byName[b.mapName()], b)
	}
	var out []backendMap
	for name, b := range byName {
		out = append(out, backendMap{name, b})
	}
	return out
}

func compareBackends(a, b backend) int {
	return cmp.Or(compareSockets(a.socket, b.socket), cmp.Compare(a.left, b.left), a.to.Compare(b.to))
}

// The rest is the vocabulary of the rules above. Registers: a map's key stands
// in consecutive 32-bit registers; the first also goes by its old 128-bit name, which is how the kernel prints it.
const (
	regFirst  = unix.NFT_REG_1
	regSecond = unix.NFT_REG32_01
	regThird  = unix.NFT_REG32_02

	fromAddress = 12 // offsets in the IPv4 header
	toAddress   = 16

	ipsDstNAT = 1 << 5 // IPS_DST_NAT in linux/netfilter/nf_conntrack_common.h
)

func newRule(why string, parts ...[]expr.Any) rule {
	return rule{why, slices.Concat(parts...)}
}

func equality(equal bool) expr.CmpOp {
	if equal {
		return expr.CmpOpEq
	}
	return expr.CmpOpNeq
}

func device(key expr.MetaKey, name string, equal bool) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: regFirst},
		&expr.Cmp{Op: equality(equal), Register: regFirst, Data: padded},
	}
}

// address compares whole bytes where the prefix ends with one, as nft itself
// does: so a table that was saved and loaded by nft still equals ours.
func address(offset uint32, p netip.Prefix, equal bool) []expr.Any {
	load := &expr.Payload{DestRegister: regFirst, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
	compare := &expr.Cmp{Op: equality(equal), Register: regFirst, Data: p.Addr().AsSlice()}
	if p.Bits()%8 == 0 {
		n := p.Bits() / 8
		load.Len, compare.Data = uint32(n), compare.Data[:n]
		return []expr.Any{load, compare}
	}
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: regFirst, DestRegister: regFirst, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		compare,
	}
}

func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: regFirst},
		&expr.Bitwise{SourceRegister: regFirst, DestRegister: regFirst, Len: 4, Mask: native32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regFirst, Data: make([]byte, 4)},
	}
}

func toLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: regFirst, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: native32(unix.RTN_LOCAL)},
	}
}

func loadAddress(reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: toAddress, Len: 4}}
}

// loadPort needs no guard for protocols without ports: their number is part of
// the key and stands in no element.
func loadPort(proto, port uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto},
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// draw goes on with the rule in one of n cases.
func draw(n uint32) []expr.Any {
	if n == 1 {
		return nil
	}
	return []expr.Any{
		&expr.Numgen{Register: regFirst, Type: unix.NFT_NG_RANDOM, Modulus: n},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: native32(0)},
	}
}

// translate looks the key up. What is not found ends the rule; what is found
// is an address in the first register and a port in the second.
func translate(name string) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: regFirst, DestRegister: regFirst, IsDestRegSet: true, SetName: name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regFirst, RegProtoMin: regSecond, Specified: true},
	}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func drop() []expr.Any { return verdict(expr.VerdictDrop, "") }

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
