package image

import (
	"testing"
)

// TestPolicyHoldsUnderEveryNameOfARegistry: to write a registry's name in another way
// does not lead around its policy.
func TestPolicyHoldsUnderEveryNameOfARegistry(t *testing.T) {
	reject := Registry{Policy: []TrustRule{{Require: Reject}}}
	for host, refs := range map[string][]string{
		"docker.io": {"nginx", "docker.io/nginx", "index.docker.io/library/nginx", "registry-1.docker.io/library/nginx",
			"REGISTRY-1.docker.io/library/nginx", "registry-1.docker.io:443/library/nginx"},
		"index.docker.io":      {"nginx", "registry-1.docker.io/library/nginx"},
		"registry.example.com": {"registry.example.com/a", "Registry.EXAMPLE.com/a", "registry.example.com:443/a", "registry.example.com:0443/a"},
		"r.example.com:443":    {"r.example.com/a", "r.example.com:443/a"},
		"Reg.example.com:5000": {"reg.example.com:5000/a"},
	} {
		s := newStore(t, Options{Registries: map[string]Registry{host: reject}})
		for _, ref := range refs {
			r, err := s.parseRef(ref)
			if err != nil {
				t.Fatal(err)
			}
			if d := s.registries.Load().trust.decide(r); d.Require != Reject {
				t.Errorf("rules of %s: %s passes by %q", host, ref, d.Require)
			}
		}
		r, err := s.parseRef("registry.example.com:5000/a")
		if err != nil {
			t.Fatal(err)
		}
		if d := s.registries.Load().trust.decide(r); d.Require != Accept {
			t.Errorf("rules of %s count for another port", host)
		}
	}
	both := newPolicies(Options{Registries: map[string]Registry{"index.docker.io": {Policy: []TrustRule{{Require: Accept}}}, "docker.io": reject}})
	if got := both.rules["docker.io"]; len(got) != 1 || got[0].Require != Reject {
		t.Errorf("the usual name does not win: %+v", got)
	}
}
