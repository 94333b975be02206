package daemon

import (
	"fmt"
	"slices"

	"github.com/wherry-run/wherry/image"
)

var requirements = []string{string(image.Accept), string(image.Digests), string(image.Signed), string(image.Reject)}

// ruleKeys are those of one rule of a trust policy.
var ruleKeys = []key[image.TrustRule]{
	{name: "repository", missing: "all; a pattern of the name without the host: base/*, or base/** for any depth", set: func(r *image.TrustRule, n node, p *problems) { n.text(p, &r.Repository) }},
	{name: "require", missing: "none, it must be there: accept, digest, signed or reject", set: func(r *image.TrustRule, n node, p *problems) { r.Require = requirement(n, p) }},
	{name: "signers", set: setSigners, below: below("signers[]", signerKeys)},
}

var signerKeys = []key[image.Signer]{
	{name: "key", missing: "none; a PEM public key, as of cosign generate-key-pair", set: func(s *image.Signer, n node, p *problems) { n.path(p, &s.Key) }},
	{name: "identity", missing: "none; whom the certificate names, with issuer and trusted_root", set: func(s *image.Signer, n node, p *problems) { n.text(p, &s.Identity) }},
	{name: "identity_regexp", missing: "none; instead of identity, for the whole of it", set: func(s *image.Signer, n node, p *problems) { n.text(p, &s.IdentityRegexp) }},
	{name: "issuer", missing: "none; who vouched for the identity", set: func(s *image.Signer, n node, p *problems) { n.text(p, &s.Issuer) }},
	{name: "issuer_regexp", missing: "none; instead of issuer", set: func(s *image.Signer, n node, p *problems) { n.text(p, &s.IssuerRegexp) }},
	{name: "trusted_root", missing: "none; Sigstore's trusted_root.json, with identity; none is fetched", set: func(s *image.Signer, n node, p *problems) { n.path(p, &s.TrustedRoot) }},
}

// setPolicy reads a word for all repositories, one rule, or a list of them.
func setPolicy(r *image.Registry, n node, p *problems) {
	r.Policy = []image.TrustRule{} // no rule is a policy too: accept
	rules := []node{n}
	if !n.isScalar() && !n.isMap() {
		rules = n.items(p)
	}
	for _, item := range rules {
		var rule image.TrustRule
		before := len(p.errors)
		if item.isScalar() {
			rule.Require = requirement(item, p)
		} else {
			fill(p, item, ruleKeys, &rule)
		}
		if len(p.errors) > before {
			continue
		}
		if rule.Require == "" {
			p.add(item, "require is missing", "it is accept, digest, signed or reject")
			continue
		}
		if err := rule.Check(); err != nil {
			p.add(item, err.Error(), "")
		}
		r.Policy = append(r.Policy, rule)
	}
}

func requirement(n node, p *problems) image.Requirement {
	var s string
	if !n.text(p, &s) {
		return ""
	}
	if !slices.Contains(requirements, s) {
		hint := "it is accept, digest, signed or reject"
		if near := nearest(s, requirements); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		p.add(n, fmt.Sprintf("%q is unknown", s), hint)
		return ""
	}
	return image.Requirement(s)
}

func setSigners(r *image.TrustRule, n node, p *problems) {
	for _, item := range n.items(p) {
		var s image.Signer
		fill(p, item, signerKeys, &s)
		r.Signers = append(r.Signers, s)
	}
}
