package network

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
)

// chainText is the chains in print, made once: comparing is all we do with it.
type chainText struct {
	fixed     string // all chains but published
	published string
}

func printChains(chains []chain) chainText {
	var fixed, published strings.Builder
	for _, c := range chains {
		b := &fixed
		if c.name == chainPublished {
			b = &published
		}
		fmt.Fprintf(b, "chain %s", c.name)
		if c.hook != nil && c.priority != nil {
			fmt.Fprintf(b, " (%s, hook %s, priority %d)", c.kind, hookName(*c.hook), *c.priority)
		}
		fmt.Fprintln(b)
		for _, r := range c.rules {
			fmt.Fprintf(b, "\t%s\n", r)
		}
	}
	return chainText{fixed.String(), published.String()}
}

// equal tells whether the kernel would behave the same with either.
func (r *ruleset) equal(o *ruleset) bool {
	return r.table == o.table && r.text == o.text &&
		slices.EqualFunc(r.maps, o.maps, func(a, b backendMap) bool {
			return a.name == b.name && slices.Equal(a.backends, b.backends)
		})
}

// onlyPublishedDiffers tells whether maps and the rules of the published chain
// are all that has to change.
func (r *ruleset) onlyPublishedDiffers(o *ruleset) bool {
	return r.text.fixed == o.text.fixed && r.text.published != ""
}

// String prints the ruleset for tests and people.
func (r *ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip %s\n%s%s", r.table, r.text.fixed, r.text.published)
	for _, m := range r.maps {
		fmt.Fprintf(&b, "map %s\n", m.name)
		for _, e := range m.backends {
			fmt.Fprintf(&b, "\t%s\n", e)
		}
	}
	return b.String()
}

func (b backend) String() string {
	return fmt.Sprintf("%s . %s . %d : %s", b.ip, b.proto, b.port, b.to)
}

func (r rule) String() string {
	parts := make([]string, 0, len(r.exprs)+1)
	for _, e := range r.exprs {
		parts = append(parts, exprText(e))
	}
	return strings.Join(parts, "; ") + "  # " + r.why
}

// exprText prints one expression with everything in it that matters, so that
// equal text means an equal rule. A kind that we never write prints as itself.
func exprText(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Meta:
		return fmt.Sprintf("r%d = meta %s", e.Register, metaName(e.Key))
	case *expr.Payload:
		return fmt.Sprintf("r%d = payload %s +%d len %d", e.DestRegister, baseName(e.Base), e.Offset, e.Len)
	case *expr.Bitwise:
		return fmt.Sprintf("r%d = r%d & %x ^ %x", e.DestRegister, e.SourceRegister, e.Mask, e.Xor)
	case *expr.Cmp:
		return fmt.Sprintf("r%d %s %s", e.Register, cmpName(e.Op), dataText(e.Data))
	case *expr.Ct:
		return fmt.Sprintf("r%d = ct %s", e.Register, ctName(e.Key))
	case *expr.Fib:
		return fmt.Sprintf("r%d = fib daddr=%t type=%t", e.Register, e.FlagDADDR, e.ResultADDRTYPE)
	case *expr.Immediate:
		return fmt.Sprintf("r%d = %x", e.Register, e.Data)
	case *expr.Numgen:
		return fmt.Sprintf("r%d = numgen %d mod %d offset %d", e.Register, e.Type, e.Modulus, e.Offset)
	case *expr.Lookup:
		return fmt.Sprintf("r%d = lookup r%d in %s", e.DestRegister, e.SourceRegister, e.SetName)
	case *expr.NAT:
		return fmt.Sprintf("nat %d to r%d : r%d", e.Type, e.RegAddrMin, e.RegProtoMin)
	case *expr.Masq:
		return fmt.Sprintf("masquerade ports=%t", e.ToPorts)
	case *expr.Verdict:
		return strings.TrimSpace(fmt.Sprintf("%s %s", verdictName(e.Kind), e.Chain))
	}
	return fmt.Sprintf("%T%+v", e, e)
}

// dataText prints names as names: a comparison with a device's reads better so.
func dataText(b []byte) string {
	s := strings.TrimRight(string(b), "\x00")
	printable := s != "" && len(b) > 4 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
	if printable {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%x", b)
}

func name[K comparable](k K, names map[K]string) string {
	if n, ok := names[k]; ok {
		return n
	}
	return fmt.Sprintf("%v", k)
}

func metaName(k expr.MetaKey) string {
	return name(k, map[expr.MetaKey]string{expr.MetaKeyIIFNAME: "iifname", expr.MetaKeyOIFNAME: "oifname", expr.MetaKeyL4PROTO: "l4proto"})
}

func baseName(b expr.PayloadBase) string {
	return name(b, map[expr.PayloadBase]string{expr.PayloadBaseNetworkHeader: "network", expr.PayloadBaseTransportHeader: "transport"})
}

func cmpName(o expr.CmpOp) string {
	return name(o, map[expr.CmpOp]string{expr.CmpOpEq: "==", expr.CmpOpNeq: "!="})
}

func ctName(k expr.CtKey) string {
	return name(k, map[expr.CtKey]string{expr.CtKeySTATE: "state", expr.CtKeySTATUS: "status"})
}

func verdictName(k expr.VerdictKind) string {
	return name(k, map[expr.VerdictKind]string{expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictJump: "jump", expr.VerdictGoto: "goto", expr.VerdictReturn: "return"})
}
