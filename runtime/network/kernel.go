package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	"github.com/wherry-run/wherry/runtime/internal/nsthread"
	"golang.org/x/sys/unix"
)

// tables reads and writes nftables in one network namespace.
type tables struct {
	conn *nftables.Conn
	gen  int // a socket that only asks for the generation
}

func openTables(host *os.File) (*tables, error) {
	options := []nftables.ConnOption{nftables.AsLasting()}
	if host != nil {
		options = append(options, nftables.WithNetNSFd(int(host.Fd())))
	}
	conn, err := nftables.New(options...)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	t := &tables{conn: conn, gen: -1}
	err = nsthread.Net(host, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		t.gen = fd
		timeout := unix.NsecToTimeval(int64(5 * time.Second))
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	})
	if err != nil {
		t.close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return t, nil
}

func (t *tables) close() {
	t.conn.CloseLasting()
	if t.gen >= 0 {
		unix.Close(t.gen)
		t.gen = -1
	}
}

// generation is the number that the kernel raises by one with every change of
// any table. Equal numbers mean that nobody changed anything: the cheapest
// check there is, one message of 20 bytes.
func (t *tables) generation() (uint32, error) {
	const header = unix.SizeofNlMsghdr + 4 // netlink's and nfnetlink's
	msg := make([]byte, header)
	binary.NativeEndian.PutUint32(msg[0:], header)
	binary.NativeEndian.PutUint16(msg[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(t.gen, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	reply := make([]byte, 256)
	n, _, err := unix.Recvfrom(t.gen, reply, 0)
	if err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	kind := uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN)
	if n < header+8 || binary.NativeEndian.Uint16(reply[4:]) != kind {
		return 0, errors.New("nftables generation: unexpected answer")
	}
	for b := reply[header:n]; len(b) >= 8; {
		length := int(binary.NativeEndian.Uint16(b))
		if binary.NativeEndian.Uint16(b[2:]) == unix.NFTA_GEN_ID {
			return binary.BigEndian.Uint32(b[4:]), nil
		}
		if length < 4 || (length+3)&^3 > len(b) {
			break
		}
		b = b[(length+3)&^3:]
	}
	return 0, errors.New("nftables generation: no number in the answer")
}

func (t *tables) table(name string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: name}
}

// set describes a map by its name, which says whether the key has an address.
func (t *tables) set(table, name string) *nftables.Set {
	key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if strings.HasPrefix(name, mapOneAddress) {
		key = append([]nftables.SetDatatype{nftables.TypeIPAddr}, key...)
	}
	return &nftables.Set{
		Table:        t.table(table),
		Name:         name,
		IsMap:        true,
		KeyType:      nftables.MustConcatSetType(key...),
		DataType:     nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
		KeyByteOrder: binaryutil.BigEndian,
	}
}

// rewrite replaces the whole table in one transaction: no packet meets half a
// ruleset, and connections that exist stay as conntrack knows them.
func (t *tables) rewrite(want *ruleset) error {
	table := t.table(want.table)
	// Adding first makes deleting legal when the table is not there.
	t.conn.AddTable(table)
	t.conn.DelTable(table)
	t.conn.AddTable(table)
	for _, m := range want.maps {
		if err := t.changeMap(want.table, m, nil); err != nil {
			return err
		}
	}
	for _, c := range want.chains {
		t.conn.AddChain(t.chain(want.table, c))
	}
	for _, c := range want.chains {
		t.addRules(want.table, c)
	}
	return t.commit("write table " + want.table)
}

// update changes only what differs between two rulesets whose chains other
// than published are equal. Also one transaction.
func (t *tables) update(have, want *ruleset) error {
	rules := have.text.published != want.text.published
	if rules {
		// First, as rules hold on to their maps.
		t.conn.FlushChain(&nftables.Chain{Table: t.table(want.table), Name: chainPublished})
	}
	old := map[string][]backend{}
	for _, m := range have.maps {
		old[m.name] = append([]backend{}, m.backends...)
	}
	for _, m := range want.maps {
		if err := t.changeMap(want.table, m, old[m.name]); err != nil {
			return err
		}
		delete(old, m.name)
	}
	for _, c := range want.chains {
		if rules && c.name == chainPublished {
			t.addRules(want.table, c)
		}
	}
	for name := range old {
		t.conn.DelSet(t.set(want.table, name))
	}
	return t.commit("update table " + want.table)
}

// changeMap makes the map if old is nil, and sends the elements that differ.
func (t *tables) changeMap(table string, m backendMap, old []backend) error {
	set := t.set(table, m.name)
	if old == nil {
		if err := t.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("map %s: %w", m.name, err)
		}
	}
	for part := range chunks(minus(old, m.backends)) {
		if err := t.conn.SetDeleteElements(set, elements(part)); err != nil {
			return fmt.Errorf("map %s: %w", m.name, err)
		}
	}
	for part := range chunks(minus(m.backends, old)) {
		if err := t.conn.SetAddElements(set, elements(part)); err != nil {
			return fmt.Errorf("map %s: %w", m.name, err)
		}
	}
	return nil
}

func (t *tables) chain(table string, c chain) *nftables.Chain {
	out := &nftables.Chain{Table: t.table(table), Name: c.name, Type: c.kind, Hooknum: c.hook, Priority: c.priority}
	if c.hook != nil {
		accept := nftables.ChainPolicyAccept
		out.Policy = &accept
	}
	return out
}

func (t *tables) addRules(table string, c chain) {
	for _, r := range c.rules {
		t.conn.AddRule(&nftables.Rule{
			Table:    t.table(table),
			Chain:    t.chain(table, c),
			Exprs:    r.exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.why),
		})
	}
}

// remove deletes the table; a missing one is no error.
func (t *tables) remove(name string) error {
	t.conn.AddTable(t.table(name))
	t.conn.DelTable(t.table(name))
	return t.commit("delete table " + name)
}

func (t *tables) commit(what string) error {
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// read returns what the kernel holds under this name, or nil if there is no
// such table. What we would never write is kept too, so that it makes a difference.
func (t *tables) read(name string) (*ruleset, error) {
	found, err := t.conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	there := false
	for _, f := range found {
		there = there || f.Name == name
	}
	if !there {
		return nil, nil
	}
	chains, err := t.readChains(name)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", name, err)
	}
	maps, err := t.readMaps(name)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", name, err)
	}
	return newRuleset(name, chains, maps), nil
}

func (t *tables) readChains(table string) ([]chain, error) {
	all, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, err
	}
	var out []chain
	for _, c := range all {
		if c.Table == nil || c.Table.Name != table {
			continue
		}
		rules, err := t.conn.GetRules(t.table(table), c)
		if err != nil {
			return nil, err
		}
		read := chain{name: c.Name, kind: c.Type, hook: c.Hooknum, priority: c.Priority}
		if c.Policy != nil && *c.Policy != nftables.ChainPolicyAccept {
			read.kind += ", policy drop"
		}
		for _, r := range rules {
			why, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			read.rules = append(read.rules, rule{why, r.Exprs})
		}
		out = append(out, read)
	}
	return out, nil
}

func (t *tables) readMaps(table string) ([]backendMap, error) {
	sets, err := t.conn.GetSets(t.table(table))
	if err != nil {
		return nil, err
	}
	var out []backendMap
	for _, s := range sets {
		found, err := t.conn.GetSetElements(t.set(table, s.Name))
		if err != nil {
			return nil, err
		}
		m := backendMap{name: s.Name}
		for _, e := range found {
			m.backends = append(m.backends, decodeBackend(s.Name, e.Key, e.Val))
		}
		out = append(out, m)
	}
	return out, nil
}

// elements lays the backends out as the kernel wants them: every part of a
// concatenation begins at a multiple of four bytes.
func elements(backends []backend) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(backends))
	for _, b := range backends {
		ip, to := b.ip.As4(), b.to.Addr().As4()
		key := append(ip[:], protocolNumber(b.proto), 0, 0, 0)
		key = append(binary.BigEndian.AppendUint16(key, b.port), 0, 0)
		if b.ip.IsUnspecified() {
			key = key[len(ip):]
		}
		val := append(binary.BigEndian.AppendUint16(to[:], b.to.Port()), 0, 0)
		out = append(out, nftables.SetElement{Key: key, Val: val})
	}
	return out
}

// decodeBackend reads an element back; one of another shape becomes a backend
// that equals none of ours.
func decodeBackend(name string, key, val []byte) backend {
	i := strings.LastIndexByte(name, '_')
	left, err := strconv.ParseUint(name[i+1:], 10, 32)
	if len(key) == 8 {
		key = append(make([]byte, 4), key...)
	}
	if err != nil || len(key) != 12 || len(val) != 8 {
		return backend{}
	}
	return backend{
		socket: socket{netip.AddrFrom4([4]byte(key)), protocolName(key[4]), binary.BigEndian.Uint16(key[8:])},
		left:   uint32(left),
		to:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(val)), binary.BigEndian.Uint16(val[4:])),
	}
}

func protocolNumber(name string) byte {
	if name == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func protocolName(n byte) string {
	switch n {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	}
	return fmt.Sprint(n)
}

// chunks cuts a list so that each part's attributes stay below the 64 KiB that
// a netlink attribute can hold.
func chunks(b []backend) func(func([]backend) bool) {
	const most = 500
	return func(yield func([]backend) bool) {
		for len(b) > 0 {
			n := min(len(b), most)
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

func minus(a, b []backend) []backend {
	have := map[backend]bool{}
	for _, x := range b {
		have[x] = true
	}
	var out []backend
	for _, x := range a {
		if !have[x] {
			out = append(out, x)
		}
	}
	return out
}

func hookName(h nftables.ChainHook) string {
	return name(h, map[nftables.ChainHook]string{
		*nftables.ChainHookPrerouting: "prerouting", *nftables.ChainHookForward: "forward",
		*nftables.ChainHookOutput: "output", *nftables.ChainHookPostrouting: "postrouting",
	})
}
