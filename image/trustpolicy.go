package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/internal/cosign"
	"github.com/wherry-run/wherry/image/keyless"
)

// maxTrustFile bounds the files that a policy names.
const maxTrustFile = 8 << 20

// policies are the trust rules by registry, and who judges certificates.
type policies struct {
	rules   map[string][]TrustRule
	keyless keyless.Verifier // nil: nobody
}

func newPolicies(o Options) policies {
	p := policies{rules: map[string][]TrustRule{}, keyless: o.Keyless}
	for _, host := range slices.Sorted(maps.Keys(o.Registries)) {
		// Of several names of one registry the usual one counts.
		r := o.Registries[host]
		if known := policyHost(host); r.Policy != nil && (host == known || p.rules[known] == nil) {
			p.rules[known] = r.Policy
		}
	}
	return p
}

// policyHost is a registry's one name: another way to write it must not lead around
// its policy.
func policyHost(host string) string {
	host = strings.ToLower(host)
	if bare, port, ok := strings.Cut(host, ":"); ok && strings.TrimLeft(port, "0") == "443" {
		host = bare
	}
	switch host {
	case name.DefaultRegistry, "registry-1.docker.io", "registry.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}

// check finds what would make a rule refuse everything.
func (p policies) check() error {
	var errs []error
	for host, rules := range p.rules {
		for i, r := range rules {
			err := r.Check()
			for _, g := range r.Signers {
				if err == nil {
					err = p.checkVerifier(g)
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("registry %s: rule %d of its policy: %w", host, i+1, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (p policies) checkVerifier(g Signer) error {
	if g.Key != "" {
		return nil
	}
	s, err := g.load()
	if err != nil {
		return err
	}
	if p.keyless == nil {
		return fmt.Errorf("signer %s: %w", s, errNoVerifier)
	}
	if err := p.keyless.CheckRoot(context.Background(), s.root); err != nil {
		return fmt.Errorf("signer %s: %s: %w", s, g.TrustedRoot, err)
	}
	return nil
}

var errNoVerifier = errors.New("nothing is there that can judge certificates; wherry-verify is missing")

// decision is the rule that decides about an image.
type decision struct {
	TrustRule
	text string // names the rule
}

// decide finds the first rule that matches. Without a policy of its own a
// registry falls under that of "*": to name a registry for the sake of a mirror must
// not open it.
func (p policies) decide(r reference) decision {
	repository := r.Context().RepositoryStr()
	for _, key := range []string{policyHost(r.Context().RegistryStr()), "*"} {
		rules, ok := p.rules[key]
		if !ok {
			continue
		}
		for i, rule := range rules {
			if rule.matches(repository) {
				pattern := rule.Repository
				if pattern == "" {
					pattern = "all repositories"
				}
				return decision{rule, fmt.Sprintf("rule %d of registry %s (%s: %s)", i+1, key, pattern, rule.Require)}
			}
		}
		break
	}
	return decision{TrustRule: TrustRule{Require: Accept}}
}

// matches tells whether the rule is about the repository.
func (r TrustRule) matches(repository string) bool {
	if r.Repository == "" || r.Repository == "**" {
		return true
	}
	head, deep := strings.CutSuffix(r.Repository, "/**")
	if !deep {
		ok, _ := path.Match(r.Repository, repository)
		return ok
	}
	parts, n := strings.Split(repository, "/"), strings.Count(head, "/")+1
	if len(parts) <= n {
		return false
	}
	ok, _ := path.Match(head, strings.Join(parts[:n], "/"))
	return ok
}

// Check tells whether the rule can be followed: what it demands is known, and the files
// that it names are there and hold what they should. A rule that cannot be
// followed lets nothing in.
func (r TrustRule) Check() error {
	if _, err := path.Match(r.Repository, ""); err != nil {
		return fmt.Errorf("repository pattern %q: %w", r.Repository, err)
	}
	if strings.Contains(strings.TrimSuffix(r.Repository, "**"), "**") {
		return fmt.Errorf("repository pattern %q: ** can only stand at its end", r.Repository)
	}
	if head := strings.TrimSuffix(r.Repository, "**"); head != r.Repository && head != "" && !strings.HasSuffix(head, "/") {
		return fmt.Errorf("repository pattern %q: write / before **", r.Repository)
	}
	if !slices.Contains([]Requirement{Accept, Digests, Signed, Reject}, r.Require) {
		return fmt.Errorf("requirement %q: want %s, %s, %s or %s", r.Require, Accept, Digests, Signed, Reject)
	}
	if r.Require != Signed && len(r.Signers) > 0 {
		return fmt.Errorf("signers with requirement %q: they count only with %q", r.Require, Signed)
	}
	if r.Require == Signed && len(r.Signers) == 0 {
		return errors.New("no signers: nothing could be signed by one of them")
	}
	_, err := r.load()
	return err
}

// signer is a Signer with its files read.
type signer struct {
	name  string
	print string // fingerprint: what is in the files, not where they are
	key   *cosign.Key
	id    keyless.Identity
	root  []byte
}

func (s *signer) String() string { return s.name }

// load reads the files anew: they may change while the store is open.
func (r TrustRule) load() ([]*signer, error) {
	var all []*signer
	for _, g := range r.Signers {
		s, err := g.load()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (g Signer) load() (*signer, error) {
	id := keyless.Identity{Subject: g.Identity, SubjectRegexp: g.IdentityRegexp, Issuer: g.Issuer, IssuerRegexp: g.IssuerRegexp}
	if g.Key != "" {
		if id != (keyless.Identity{}) || g.TrustedRoot != "" {
			return nil, fmt.Errorf("signer %s: a key and an identity; write two signers", g.Key)
		}
		b, err := readTrustFile(g.Key)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		key, err := cosign.ParseKey(b)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", g.Key, err)
		}
		return &signer{name: "key " + g.Key, print: "key:" + key.ID(), key: key}, nil
	}
	s := &signer{name: g.Identity + g.IdentityRegexp, id: id}
	if err := id.Check(); err != nil {
		return nil, fmt.Errorf("signer %q: %w", s.name, err)
	}
	if g.TrustedRoot == "" {
		return nil, fmt.Errorf("signer %s: no trusted root: name a Sigstore trusted_root.json; none is fetched", s)
	}
	var err error
	if s.root, err = readTrustFile(g.TrustedRoot); err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	if !json.Valid(s.root) {
		return nil, fmt.Errorf("trusted root %s: not JSON", g.TrustedRoot)
	}
	root := sha256.Sum256(s.root)
	b, err := json.Marshal(struct {
		ID   keyless.Identity
		Root []byte
	}{id, root[:]})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	s.print = "identity:" + hex.EncodeToString(sum[:])
	return s, nil
}

func readTrustFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTrustFile+1))
	if err == nil && len(b) > maxTrustFile {
		err = fmt.Errorf("%s: too large", file)
	}
	return b, err
}
