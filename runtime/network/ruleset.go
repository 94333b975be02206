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
	table    string
	chains   []chain
	backends []backend
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

// backend is one element of the map: connections to a published socket whose
// draw came out as slot go to the container.
type backend struct {
	socket
	slot slot
	to   netip.AddrPort
}

// slot is one of n equal chances. The n is part of it, so that one map can
// hold sockets with different numbers of replicas.
type slot struct{ n, i uint32 }

// maxReplicas bounds what slot.key can tell apart.
const maxReplicas = 1 << 16

func (s slot) key() uint32 { return s.n<<16 | s.i }

func slotOf(key uint32) slot { return slot{key >> 16, key & (maxReplicas - 1)} }

// Names within the table.
const (
	chainGuard     = "guard"
	chainIncoming  = "incoming"
	chainLocal     = "local"
	chainPublished = "published"
	chainForward   = "forward"
	chainOutgoing  = "outgoing"
	mapBackends    = "backends"
)

// buildRuleset says what the kernel should hold. doc.go has the picture.
func buildRuleset(bridge string, subnet netip.Prefix, leases []Lease) *ruleset {
	backends := backendsOf(leases)
	return &ruleset{
		table: bridge,
		chains: sortedChains([]chain{
			{chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, guardRules()},
			{chainIncoming, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, dispatchRules()},
			{chainLocal, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, dispatchRules()},
			{name: chainPublished, rules: publishRules(backends)},
			{chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, forwardRules(bridge)},
			{chainOutgoing, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, masqueradeRules(bridge, subnet)},
		}),
		backends: backends,
	}
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

// publishRules draw a slot and look it up, once for each number of replicas
// that occurs: the modulus of a draw is fixed in the rule. The draw is random
// and not round robin, because the counter would be common to all sockets with
// that many replicas, and clients that use two of them in turn would always meet the same replica.
func publishRules(backends []backend) []rule {
	var sizes []uint32
	for _, b := range backends {
		sizes = append(sizes, b.slot.n)
	}
	slices.Sort(sizes)
	var out []rule
	for _, n := range slices.Compact(sizes) {
		out = append(out,
			newRule(fmt.Sprintf("one address, %d behind it", n), loadAddress(), loadPort(), draw(n), translate()),
			newRule(fmt.Sprintf("all addresses, %d behind them", n), loadAnyAddress(), loadPort(), draw(n), translate()))
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

// backendsOf gives every published socket its slots. The order within a socket
// is by address, so that equal leases give equal elements.
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
		to = to[:min(len(to), maxReplicas-1)]
		for i, t := range to {
			out = append(out, backend{s, slot{uint32(len(to)), uint32(i)}, t})
		}
	}
	return sortedBackends(out)
}

func sortedBackends(b []backend) []backend {
	slices.SortFunc(b, func(a, b backend) int {
		return cmp.Or(compareSockets(a.socket, b.socket), cmp.Compare(a.slot.key(), b.slot.key()), a.to.Compare(b.to))
	})
	return b
}

func sortedChains(c []chain) []chain {
	slices.SortFunc(c, func(a, b chain) int { return strings.Compare(a.name, b.name) })
	return c
}

// The rest is the vocabulary of the rules above. Registers: a map's key is
// four consecutive 32-bit registers; the first also goes by its old 128-bit name, which is how the kernel prints it.
const (
	regFirst  = unix.NFT_REG_1
	regSecond = unix.NFT_REG32_01
	regThird  = unix.NFT_REG32_02
	regFourth = unix.NFT_REG32_03

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

func address(offset uint32, p netip.Prefix, equal bool) []expr.Any {
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: regFirst, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: regFirst, DestRegister: regFirst, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: equality(equal), Register: regFirst, Data: p.Addr().AsSlice()},
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

func loadAddress() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: regFirst, Base: expr.PayloadBaseNetworkHeader, Offset: toAddress, Len: 4}}
}

func loadAnyAddress() []expr.Any {
	return []expr.Any{&expr.Immediate{Register: regFirst, Data: make([]byte, 4)}}
}

// loadPort needs no guard for protocols without ports: their number is part of
// the key and stands in no element.
func loadPort() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regSecond},
		&expr.Payload{DestRegister: regThird, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func draw(n uint32) []expr.Any {
	return []expr.Any{&expr.Numgen{Register: regFourth, Type: unix.NFT_NG_RANDOM, Modulus: n, Offset: slot{n, 0}.key()}}
}

// translate looks the four registers up. What is not found ends the rule; what
// is found is an address in the first register and a port in the second.
func translate() []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: regFirst, DestRegister: regFirst, IsDestRegSet: true, SetName: mapBackends},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regFirst, RegProtoMin: regSecond, Specified: true},
	}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func drop() []expr.Any { return verdict(expr.VerdictDrop, "") }

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
