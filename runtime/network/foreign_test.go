package network

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
)

// inHost runs a command line in the host's namespace.
func (w *world) inHost(t *testing.T, command string) {
	t.Helper()
	inside(t, w.host, func() error {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", command, err, out)
		}
		return nil
	})
}

func needs(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("needs %s", c)
		}
	}
}

// Each firewall drops what is forwarded; the remedy in the error's own text cures it.
func TestForeignDrop(t *testing.T) {
	for name, tc := range map[string]struct{ needs, setup, chain, remedy string }{
		"iptables": {"iptables-nft", "iptables-nft -P FORWARD DROP", "ip filter, chain FORWARD",
			"iptables -I FORWARD -i wherry0 -j ACCEPT && iptables -I FORWARD -o wherry0 -j ACCEPT"},
		"docker": {"iptables-nft", `iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN; iptables-nft -A FORWARD -j DOCKER-USER
			iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables-nft -A FORWARD -i docker0 -j ACCEPT`, "ip filter, chain FORWARD",
			"iptables -I DOCKER-USER -i wherry0 -j ACCEPT && iptables -I DOCKER-USER -o wherry0 -j ACCEPT"},
		"nft": {"nft", `nft 'table inet fw { chain pass { type filter hook forward priority 0; policy drop; ct state established accept
			}; }'`, "inet fw, chain pass",
			"nft insert rule inet fw pass iifname wherry0 accept && nft insert rule inet fw pass oifname wherry0 accept"},
		"legacy": {"iptables-legacy", "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i wherry0 -p tcp -j ACCEPT", "ip filter, chain FORWARD",
			"iptables-legacy -I FORWARD -i wherry0 -j ACCEPT && iptables-legacy -I FORWARD -o wherry0 -j ACCEPT"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			needs(t, tc.needs)
			m := w.open(Options{})
			first := w.attach(m, "first.1-aaaa")
			w.inHost(t, tc.setup)
			_, err := m.Attach(background, newNamespace(t), Endpoint{Run: "web.1-aaaa", Ports: []Port{tcp(8080, 80, "web")}})
			if !errors.Is(err, ErrForeignDrop) {
				t.Fatalf("got %v, want ErrForeignDrop", err)
			}
			if got := err.Error(); !strings.Contains(got, tc.chain) || !strings.HasSuffix(got, "run: "+tc.remedy) {
				t.Errorf("got %q", got)
			}
			if err := m.Heal(background); !errors.Is(err, ErrForeignDrop) {
				t.Errorf("heal: %v; want to hear that containers are cut off", err)
			}
			if len(m.Leases()) != 1 || len(m.reserved) != 0 {
				t.Errorf("left by the failed attach: %v %v", m.Leases(), m.reserved)
			}
			_, remedy, _ := strings.Cut(err.Error(), "run: ")
			if tc.needs == "iptables-nft" {
				remedy = strings.ReplaceAll(remedy, "iptables", tc.needs)
			}
			w.inHost(t, remedy)
			c := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
			serve(t, c.ns, ":80", "web")
			serve(t, w.wire, wireAddr+":80", "wire")
			wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
			wantCall(t, first.ns, wireAddr+":80", "wire "+hostAddr)
			// Opening the other table does not open ours.
			serve(t, c.ns, ":81", "private")
			inside(t, w.wire, func() error { return exec.Command("ip", "route", "add", m.Subnet().String(), "via", hostAddr).Run() })
			wantSilence(t, w.wire, c.lease.Address.Addr().String()+":81")
		})
	}
}

// A chain whose last rule refuses everything is found by a diagnosis alone, and its remedy cures it; one that lets the bridge pass is
// not. A closed input path keeps no published port from anybody.
func TestRefusing(t *testing.T) {
	w := newWorld(t)
	needs(t, "nft")
	m := w.open(Options{})
	c := w.attach(m, "web.1-aaaa", tcp(8080, 80, "web"))
	serve(t, c.ns, ":80", "web")
	refused := func() []Obstacle {
		t.Helper()
		d, err := Diagnose(Options{Bridge: DefaultBridge, Dir: m.options.Dir, host: w.host})
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Dropped) > 0 {
			t.Errorf("dropped: %v", d.Dropped)
		}
		return d.Refused
	}
	w.inHost(t, `nft 'table inet shut { chain in { type filter hook input priority 0; policy drop; ct state established accept
		}; }'`)
	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
	if got := refused(); len(got) > 0 {
		t.Errorf("a closed input path: %v", got)
	}
	w.inHost(t, `nft 'table inet fw { chain pass { type filter hook forward priority 0; ct state established accept
		counter reject with icmpx admin-prohibited
		}; }'`)
	if got, err := call(w.wire, hostAddr+":8080", briefly); err == nil {
		t.Errorf("through a chain that rejects: %q", got)
	}
	got := refused()
	if len(got) != 1 || got[0].Chain != "table inet fw, chain pass" {
		t.Fatalf("a last rule that rejects: %v", got)
	}
	w.inHost(t, got[0].Remedy)
	wantCall(t, w.wire, hostAddr+":8080", "web "+wireAddr)
	if got := refused(); len(got) > 0 {
		t.Errorf("after the remedy: %v", got)
	}
}

// What people save with nft they must be able to load again, and it must be our table still.
func TestTableSurvivesSaveAndLoad(t *testing.T) {
	w := newWorld(t)
	needs(t, "nft")
	m := w.open(Options{})
	for _, run := range []string{"web.1-aaaa", "web.2-aaaa", "web.3-aaaa"} {
		w.attach(m, run, tcp(8080, 80, "web"), Port{HostIP: localhost, HostPort: 53, Port: 53, Protocol: "udp", Share: "web"})
	}
	w.inHost(t, "f=$(mktemp); nft list ruleset > $f && nft flush ruleset && nft -f $f; rc=$?; rm $f; exit $rc")
	got, err := m.host.tables.read(DefaultBridge)
	if err != nil || !got.equal(m.seen.table) {
		t.Errorf("after save and load (%v):\n%s\nbefore:\n%s", err, got, m.seen.table)
	}
	w.wantNothingLeft(m)
}

func TestReadPassing(t *testing.T) {
	name := func(s string) []byte { return append([]byte(s), 0) }
	in := func(data []byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
	}
	out := func(data []byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
	}
	established := conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED)
	accept := verdict(expr.VerdictAccept, "")
	for _, tc := range []struct {
		name  string
		rule  rule
		wants passing
	}{
		{"from the bridge", newRule("", in(name("wherry0")), accept), passing{in: true}},
		{"into the bridge", newRule("", out(name("wherry0")), []expr.Any{&expr.Counter{}}, accept), passing{into: true}},
		{"by a prefix", newRule("", out([]byte("wherry")), accept), passing{into: true}},
		{"another device", newRule("", in(name("wherry01")), accept), passing{}},
		{"another prefix", newRule("", in([]byte("wherry1")), accept), passing{}},
		{"only answers", newRule("", out(name("wherry0")), established, accept), passing{}},
		{"both devices", newRule("", in(name("wherry0")), out(name("wherry0")), accept), passing{}},
		{"everything", newRule("", accept), passing{any: true}},
		{"a drop", newRule("", in(name("wherry0")), drop()), passing{}},
		{"a jump", newRule("", in(name("wherry0")), verdict(expr.VerdictJump, "x")), passing{}},
	} {
		if got := readPassing(tc.rule.exprs, "wherry0"); got != tc.wants {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.wants)
		}
	}
}

func TestRefusesAll(t *testing.T) {
	device := []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")}}
	for _, tc := range []struct {
		name  string
		exprs []expr.Any
		want  bool
	}{
		{"drop", drop(), true},
		{"nft's reject, counted and logged", []expr.Any{&expr.Counter{}, &expr.Log{}, &expr.Reject{}}, true},
		{"iptables' reject", []expr.Any{&expr.Match{Name: "comment"}, &expr.Counter{}, &expr.Target{Name: "REJECT"}}, true},
		{"another target", []expr.Any{&expr.Target{Name: "LOG"}}, false},
		{"of one device", append(device, &expr.Reject{}), false},
		{"of some packets", []expr.Any{&expr.Match{Name: "limit"}, &expr.Target{Name: "REJECT"}}, false},
		{"of some packets, by nft", append([]expr.Any{&expr.Limit{}}, drop()...), false},
		{"accept", verdict(expr.VerdictAccept, ""), false},
		{"a jump", verdict(expr.VerdictJump, "x"), false},
		{"a counter", []expr.Any{&expr.Counter{}}, false},
	} {
		if got := refusesAll(tc.exprs); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestLets(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    foreignChain
		want bool
	}{
		{"no rules", foreignChain{}, false},
		{"one direction", foreignChain{all: []passing{{in: true}}}, false},
		{"both directions", foreignChain{all: []passing{{in: true}, {into: true}}}, true},
		{"everything, in the base chain", foreignChain{base: []passing{{any: true}}}, true},
		{"everything, in some other chain", foreignChain{all: []passing{{any: true}}}, false},
	} {
		if got := tc.c.lets(); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

func FuzzParseLegacy(f *testing.F) {
	f.Add(make([]byte, iptInfoSize), make([]byte, 400))
	f.Fuzz(func(_ *testing.T, info, entries []byte) { parseLegacy(info, entries, "wherry0") })
}
