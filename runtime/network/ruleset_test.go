package network

import (
	"flag"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func someLeases() []Lease {
	return []Lease{
		leaseOf("web.1-aaaa", "10.88.0.2", tcp(80, 8080, "web"), at("127.0.0.1", tcp(9090, 90, "web"))),
		leaseOf("web.2-aaaa", "10.88.0.3", tcp(80, 8080, "web"), at("127.0.0.1", tcp(9090, 90, "web"))),
		leaseOf("web.3-bbbb", "10.88.0.4", tcp(80, 8081, "web")),
		leaseOf("dns.1-aaaa", "10.88.0.5", Port{HostPort: 53, Port: 53, Protocol: "udp"}),
	}
}

func TestRulesetGolden(t *testing.T) {
	got := buildRuleset("wherry0", netip.MustParsePrefix("10.88.0.0/16"), someLeases()).String() +
		"\n" + buildRuleset("other", netip.MustParsePrefix("172.29.8.0/21"), nil).String()
	const golden = "testdata/ruleset.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (see it with -update and git diff):\n%s", golden, got)
	}
}

// The order in which leases come does not matter, everything in them does.
func TestRulesetCompare(t *testing.T) {
	subnet := netip.MustParsePrefix("10.88.0.0/16")
	base := buildRuleset("wherry0", subnet, someLeases())
	for range 20 {
		leases := someLeases()
		rand.Shuffle(len(leases), func(i, j int) { leases[i], leases[j] = leases[j], leases[i] })
		if other := buildRuleset("wherry0", subnet, leases); !other.equal(base) {
			t.Fatalf("order matters:\n%s\n%s", base, other)
		}
	}
	for name, other := range map[string]*ruleset{
		"bridge":     buildRuleset("wherry1", subnet, someLeases()),
		"subnet":     buildRuleset("wherry0", netip.MustParsePrefix("10.89.0.0/16"), someLeases()),
		"fewer":      buildRuleset("wherry0", subnet, someLeases()[:3]),
		"no replica": buildRuleset("wherry0", subnet, someLeases()[1:]),
		"moved":      buildRuleset("wherry0", subnet, append(someLeases()[:3], leaseOf("dns.1-aaaa", "10.88.0.6", someLeases()[3].Ports...))),
	} {
		if other.equal(base) {
			t.Errorf("%s: the difference is not seen", name)
		}
	}
}

func TestElementsDecode(t *testing.T) {
	for _, m := range buildRuleset("wherry0", netip.MustParsePrefix("10.88.0.0/16"), someLeases()).maps {
		for i, e := range elements(m.backends) {
			if got := decodeBackend(m.name, e.Key, e.Val); got != m.backends[i] {
				t.Errorf("%s: %s became %s", m.name, m.backends[i], got)
			}
		}
	}
	if got := decodeBackend("strange", []byte{1}, nil); got != (backend{}) {
		t.Errorf("nonsense became %s", got)
	}
}

// The odds are equal: walking the maps from the most choices to one, as the
// rules do, gives each replica the same share.
func TestOddsAreEqual(t *testing.T) {
	for n := 1; n <= 9; n++ {
		var leases []Lease
		for i := range n {
			leases = append(leases, leaseOf("web.1-a", nth(netip.MustParsePrefix("10.88.0.0/16"), uint32(i+2)).String(), tcp(80, 80, "web")))
		}
		rest, seen := 1.0, 0
		for left := n; left >= 1; left-- {
			for _, b := range backendsOf(leases) {
				if int(b.left) == left {
					share := rest / float64(left)
					if math.Abs(share-1/float64(n)) > 1e-9 {
						t.Errorf("%d of %d has %f", left, n, share)
					}
					rest, seen = rest-share, seen+1
				}
			}
		}
		if seen != n || rest > 1e-9 {
			t.Errorf("%d replicas: %d stand in the maps, %f is left over", n, seen, rest)
		}
	}
}
