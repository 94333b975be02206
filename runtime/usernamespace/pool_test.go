package usernamespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

func nobody() ([]span, error) { return nil, nil }

// daemon is the pool of one of several daemons on a host.
func daemon(t *testing.T, claims string, o Options) *Pool {
	t.Helper()
	o.Claims = claims
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "leases")
	}
	if o.read == nil {
		o.read = nobody
	}
	p, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func lease(t *testing.T, p *Pool, run string) runtime.IDMap {
	t.Helper()
	m, err := p.Lease(run)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLeaseIsOfTheInstance(t *testing.T) {
	p := daemon(t, t.TempDir(), Options{})
	a := lease(t, p, "web.1-aaaa")
	if a.Size != Size || uint64(a.HostID) < ours[0].first || uint64(a.HostID)+Size > ours[0].end || a.HostID%Size != 0 {
		t.Errorf("lease %+v", a)
	}
	if again := lease(t, p, "web.1-aaaa"); again != a {
		t.Errorf("again: %+v, was %+v", again, a)
	}
	if b := lease(t, p, "web.1-bbbb"); b.HostID != a.HostID+Size && uint64(b.HostID) != ours[0].first {
		t.Errorf("a second run of the slot: %+v beside %+v", b, a)
	}
	if err := p.Release("web.1-aaaa"); err != nil {
		t.Fatal(err)
	}
	if c := lease(t, p, "web.1-cccc"); c != a {
		t.Errorf("after the release: %+v, was %+v", c, a)
	}
}

func TestLeasesSurviveTheDaemon(t *testing.T) {
	claims, dir := t.TempDir(), filepath.Join(t.TempDir(), "leases")
	p := daemon(t, claims, Options{Dir: dir})
	a, b := lease(t, p, "a.1-x"), lease(t, p, "b.1-x")
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = daemon(t, claims, Options{Dir: dir})
	want := []Lease{{"a.1-x", a}, {"b.1-x", b}}
	if got := p.Leases(); !slices.Equal(got, want) {
		t.Errorf("leases %+v, want %+v", got, want)
	}
	if err := p.Keep([]string{"b.1-x"}); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 || left[0].Name() != "b.1-x.json" {
		t.Errorf("files %v", left)
	}
	if _, err := os.Lstat(p.claimPath(a.HostID)); err == nil {
		t.Error("the claim of a stays")
	}
}

// Daemons that know nothing of each other share the host.
func TestDaemonsDoNotCollide(t *testing.T) {
	claims := t.TempDir()
	var mu sync.Mutex
	seen := map[uint32]string{}
	var wg sync.WaitGroup
	for d := range 4 {
		p := daemon(t, claims, Options{ranges: []span{{1 << 20, 1<<20 + 64*Size}}})
		wg.Go(func() {
			for i := range 16 {
				run := fmt.Sprintf("web.%d-x", i)
				m, err := p.Lease(run)
				mu.Lock()
				if other := seen[m.HostID]; err != nil || other != "" {
					t.Errorf("daemon %d: %s: %+v, %v; it is %s's", d, run, m, err, other)
				}
				seen[m.HostID] = fmt.Sprintf("%d's %s", d, run)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	p := daemon(t, claims, Options{ranges: []span{{1 << 20, 1<<20 + 64*Size}}})
	if _, err := p.Lease("one.1-more"); !errors.Is(err, ErrNoIDs) {
		t.Errorf("65th of 64: %v", err)
	}
}

func TestClaimsOfTheDead(t *testing.T) {
	claims := t.TempDir()
	room := []span{{1 << 20, 1<<20 + Size}}
	dead := daemon(t, claims, Options{ranges: room})
	lease(t, dead, "web.1-x")
	p := daemon(t, claims, Options{ranges: room})
	if _, err := p.Lease("db.1-x"); !errors.Is(err, ErrNoIDs) {
		t.Errorf("beside a live one: %v", err)
	}
	if err := os.RemoveAll(dead.o.Dir); err != nil {
		t.Fatal(err)
	}
	m := lease(t, p, "db.1-x")
	// Whoever comes back does not take what another one has got by now.
	if err := dead.Release("web.1-x"); err != nil {
		t.Fatal(err)
	}
	if !p.valid(m.HostID) {
		t.Error("the claim went with a lease of somebody else")
	}
	// A folder of claims that was emptied does not make a daemon give its own ids twice.
	os.RemoveAll(claims)
	if _, err := p.Lease("db.2-x"); !errors.Is(err, ErrNoIDs) {
		t.Errorf("without claims: %v", err)
	}
}

func TestLeaseKeepsClear(t *testing.T) {
	start := uint64(1 << 20)
	p := daemon(t, t.TempDir(), Options{
		ranges: []span{{start, start + 4*Size}},
		read: func() ([]span, error) {
			return []span{{start + 10, start + 20}, {start + 2*Size - 1, start + 2*Size + 1}}, nil
		},
	})
	if m := lease(t, p, "x.1-a"); uint64(m.HostID) != start+3*Size {
		t.Errorf("lease %+v", m)
	}
	if _, err := p.Lease("x.1-b"); !errors.Is(err, ErrNoIDs) {
		t.Errorf("the others are taken: %v", err)
	}
}

func TestHold(t *testing.T) {
	claims := t.TempDir()
	p := daemon(t, claims, Options{})
	m := runtime.IDMap{HostID: uint32(ours[0].first), Size: Size}
	if err := p.Hold("web.1-x", m); err != nil {
		t.Fatal(err)
	}
	if got := lease(t, p, "web.1-x"); got != m {
		t.Errorf("lease %+v", got)
	}
	if other := daemon(t, claims, Options{}); !other.valid(m.HostID) {
		t.Error("others do not see it")
	}
}

func TestLeaseRefusesNames(t *testing.T) {
	p := daemon(t, t.TempDir(), Options{})
	for _, run := range []string{"", "../x", ".x", "a/b", "a\x00"} {
		if _, err := p.Lease(run); err == nil {
			t.Errorf("%q has a lease", run)
		}
	}
}

func TestRanges(t *testing.T) {
	for i, s := range ours {
		if s.first%Size != 0 || s.end%Size != 0 || s.slots() < 1000 {
			t.Errorf("range %d: %+v", i, s)
		}
		for name, o := range map[string]span{
			"systemd's containers": {524288, 1879048192}, "systemd's foreign ids": {2147352576, 2147418112}, "negative": {1 << 31, 1 << 32}, "dynamic users": {61184, 65520},
		} {
			if s.overlaps(o) {
				t.Errorf("range %d overlaps %s", i, name)
			}
		}
	}
	if sssd := (span{200000, 2000200001}); ours[0].overlaps(sssd) {
		t.Error("the first range overlaps SSSD's")
	}
	got := parseSubIDs(strings.NewReader("a:100000:65536\n# no\nb:x:1\nc:1:0\n\nd:200000:10"))
	if want := []span{{100000, 165536}, {200000, 200010}}; !slices.Equal(got, want) {
		t.Errorf("subuid: %v", got)
	}
}

func TestMissingIDs(t *testing.T) {
	for text, want := range map[string][]span{
		"         0          0 4294967295\n":      {{4294967295, 1 << 32}},
		"0 100000 65536\n":                        {{65536, 1 << 32}},
		"0 1000 1\n1 100000 65536\n100000 5 10\n": {{65537, 100000}, {100010, 1 << 32}},
	} {
		got, err := missingIDs(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := missingIDs("no map"); err == nil {
		t.Error("nonsense is no map")
	}
}

func TestCheckRelease(t *testing.T) {
	for release, ok := range map[string]bool{"6.1.0-18-amd64": true, "5.19.0": true, "5.18.9": false, "4.19": false, "what": true} {
		if err := checkRelease(release); (err == nil) != ok {
			t.Errorf("%s: %v", release, err)
		}
	}
}

func TestDecisionStays(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "userns.json")
	for _, want := range []Decision{{Shifted: true}, {Why: "it was so"}} {
		raw, _ := json.Marshal(want)
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Decide(file, filepath.Join(dir, "nowhere"), "x"); err != nil || got != want {
			t.Errorf("decision %+v, %v; want %+v", got, err, want)
		}
	}
	os.WriteFile(file, []byte("{"), 0o600)
	if _, err := Decide(file, dir, "x"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a damaged record: %v", err)
	}
}

func TestDecideAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	if err := Kernel(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := Probe(dir, true); err != nil {
		t.Skip(err)
	}
	decide := func(name string) Decision {
		t.Helper()
		d, err := Decide(filepath.Join(dir, name+".json"), filepath.Join(dir, name), "web.1-x")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, name := range []string{"empty", "foreign"} {
		os.Mkdir(filepath.Join(dir, name), 0o755)
	}
	if err := os.WriteFile(filepath.Join(dir, "foreign", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "foreign", "f"), 100000, 0); err != nil {
		t.Fatal(err)
	}
	if d := decide("empty"); !d.Shifted || d.Run != "web.1-x" {
		t.Errorf("empty: %+v", d)
	}
	if d := decide("foreign"); d.Shifted || !strings.Contains(d.Why, "100000") {
		t.Errorf("with owners that no run has: %+v", d)
	}
	os.Remove(filepath.Join(dir, "foreign", "f"))
	if d := decide("foreign"); d.Shifted {
		t.Errorf("decided anew: %+v", d)
	}
	err := Probe("/proc/self", true)
	if !errors.Is(err, ErrCannotShift) || !strings.Contains(err.Error(), "proc") {
		t.Errorf("proc: %v", err)
	}
}
