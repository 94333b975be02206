package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/cosign"
	"github.com/wherry-run/wherry/image/keyless"
)

// Admit asks the trust policy whether the image with this manifest, which is in
// the store, may be used under the name ref. Pull does that by itself; who uses what
// Get returns asks here. What was verified before needs no network; o's Policy says
// whether the registry may be asked otherwise. If ref is only a digest, or the
// beginning of one, one of the image's names must do.
func (s *Store) Admit(ctx context.Context, ref, digest string, o PullOptions) error {
	s.mu.Lock()
	rec, ok := s.idx.Images[digest]
	names := []string{ref}
	if s.bareLocked(ref) {
		names = s.idx.NamesOf(digest)
	}
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: %s", ErrNotFound, digest)
	}
	if len(names) == 0 && len(s.registries.Load().trust.rules) > 0 {
		return &StepError{Step: StepTrust, Object: ref, Err: &refusal{rule: "the trust policy", why: "it has no name that a rule could be about"}}
	}
	var errs []error
	for _, n := range names {
		r, err := s.parseRef(n)
		if err != nil {
			return err
		}
		p := &pull{s: s, ref: r, name: r.String(), credentials: o.Credentials}
		if err = p.admit(ctx, admission{digest: rec.Digest, indexes: rec.Indexes, offline: o.Policy == Never}); err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// bareLocked tells whether ref is a digest without a repository, as Get takes it.
func (s *Store) bareLocked(ref string) bool {
	hex, sha := strings.CutPrefix(ref, "sha256:")
	if sha {
		return true
	}
	if len(hex) < minPrefix || strings.Trim(hex, "0123456789abcdef") != "" {
		return false
	}
	r, err := s.parseRef(ref)
	return err != nil || s.idx.Names[r.String()] == ""
}

// admission is what a policy decides about.
type admission struct {
	digest  string   // of the manifest
	indexes []string // that it was chosen from, the outermost first
	repo    *repository
	offline bool
}

// named is the digest to write into a name: the one that stands for all platforms.
func (t admission) named() string {
	if len(t.indexes) > 0 {
		return t.indexes[0]
	}
	return t.digest
}

// refusal is the policy's no. It is ErrUntrusted, and also what kept us from
// finding out, if something did: a registry that does not answer may do so later.
type refusal struct {
	rule  string
	why   string
	cause error
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%v: %s refuses it: %s", ErrUntrusted, r.rule, r.why)
}

// Unwrap returns ErrUntrusted and the cause.
func (r *refusal) Unwrap() []error {
	if r.cause == nil {
		return []error{ErrUntrusted}
	}
	return []error{ErrUntrusted, r.cause}
}

// admit applies the policy. It runs before anything of the image is fetched,
// unpacked or named.
func (p *pull) admit(ctx context.Context, t admission) error {
	how := p.s.registries.Load().trust
	d := how.decide(p.ref)
	var err error
	switch d.Require {
	case Accept:
		return nil
	case Digests:
		if p.ref.digest() != "" {
			return nil
		}
		err = &refusal{rule: d.text, why: fmt.Sprintf("a tag can change; it stands for %s right now: write %s@%s", t.named(), p.ref.repository(), t.named())}
	case Signed:
		err = p.signed(ctx, how, d, t)
	default: // Reject, and what is no requirement
		err = &refusal{rule: d.text, why: "nothing of it may be used"}
	}
	return p.s.stepFailed(StepTrust, p.name, err)
}

// rejected refuses what no answer of a registry could make acceptable, before one
// is asked: even a name can be too much to tell.
func (p *pull) rejected(ctx context.Context) error {
	switch p.s.registries.Load().trust.decide(p.ref).Require {
	case Accept, Digests, Signed:
		return nil
	}
	return p.admit(ctx, admission{})
}

// signed demands a signature of one of the rule's signers.
func (p *pull) signed(ctx context.Context, how policies, d decision, t admission) error {
	signers, err := d.load()
	if err != nil {
		return &refusal{rule: d.text, why: err.Error(), cause: err}
	}
	if _, ok := p.s.vouched.find(t.digest, signers); ok {
		return nil
	}
	if t.offline {
		return &refusal{rule: d.text, why: "no signature of it was verified before, and no registry may be asked now (pull policy never, or a load)"}
	}
	if t.repo == nil {
		t.repo = p.s.connect(p.ref, p.credentials)
	}
	j := inquiry{signers: signers, keyless: how.keyless}
	w, err := j.search(ctx, source{t.repo}, append(slices.Clone(t.indexes), t.digest))
	if err != nil {
		return err
	}
	if w == nil {
		return &refusal{rule: d.text, why: j.reason(), cause: errors.Join(j.broken...)}
	}
	w.Rule, w.At = d.text, time.Now().UTC()
	p.s.log.Info("image signature verified", "image", p.name, "signed", w.Signed, "by", w.By)
	return p.s.vouched.add(t.digest, *w, func(digest string) bool {
		p.s.mu.Lock()
		defer p.s.mu.Unlock()
		_, ok := p.s.idx.Images[digest]
		return ok
	})
}

// inquiry looks for one signature that counts, and remembers why others do not.
type inquiry struct {
	signers []*signer
	keyless keyless.Verifier

	reasons []string
	broken  []error // what kept it from finding out
}

// search goes through the signatures of the digests, until one counts.
func (j *inquiry) search(ctx context.Context, src cosign.Source, digests []string) (found *voucher, err error) {
	for _, digest := range digests {
		err := cosign.Visit(ctx, src, digest, func(s *cosign.Signature) bool {
			found = j.weigh(ctx, s)
			return found == nil
		})
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if found != nil {
			return found, nil
		}
		if err != nil {
			j.broken = append(j.broken, err)
		}
	}
	return nil, nil
}

// weigh tells who of the signers made the signature.
func (j *inquiry) weigh(ctx context.Context, s *cosign.Signature) *voucher {
	if err := s.Check(); err != nil {
		j.no(s, err)
		return nil
	}
	var roots []string
	for _, g := range j.signers {
		switch {
		case g.key == nil && !slices.Contains(roots, string(g.root)):
			roots = append(roots, string(g.root))
		case g.key != nil:
			err := s.VerifyKey(g.key)
			if err == nil {
				return &voucher{Signer: g.print, By: g.name, Signed: s.Subject}
			}
			j.no(s, fmt.Errorf("%s: %w", g, err))
		}
	}
	for _, root := range roots {
		if w := j.certificate(ctx, s, root); w != nil {
			return w
		}
	}
	return nil
}

// certificate asks about all signers with one trusted root.
func (j *inquiry) certificate(ctx context.Context, s *cosign.Signature, root string) *voucher {
	if s.Bundle == nil {
		j.no(s, errors.New("it has no certificate, and so no identity"))
		return nil
	}
	if j.keyless == nil {
		j.broken = append(j.broken, errNoVerifier)
		return nil
	}
	var who []*signer
	r := keyless.Request{Bundle: s.Bundle, Artifact: s.Artifact, TrustedRoot: []byte(root)}
	if s.Artifact == nil {
		r.Digest = s.Subject
	}
	for _, g := range j.signers {
		if g.key == nil && string(g.root) == root {
			who, r.Identities = append(who, g), append(r.Identities, g.id)
		}
	}
	res, err := j.keyless.Verify(ctx, r)
	var broken *keyless.BrokenError
	switch {
	case errors.As(err, &broken):
		j.broken = append(j.broken, broken)
	case err != nil:
		j.no(s, err)
	default:
		return &voucher{Signer: who[res.Identity].print, By: res.String(), Signed: s.Subject}
	}
	return nil
}

func (j *inquiry) no(s *cosign.Signature, err error) {
	j.reasons = append(j.reasons, fmt.Sprintf("signature %s: %s", s.Where, strings.ReplaceAll(err.Error(), "\n", "; ")))
}

// maxReasons is how many signatures a refusal explains.
const maxReasons = 8

// reason is why no signature counted.
func (j *inquiry) reason() string {
	var all []string
	for _, err := range j.broken {
		all = append(all, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	all = append(all, j.reasons...)
	if len(all) == 0 {
		return "it has no signature"
	}
	if n := len(all) - maxReasons; n > 0 {
		all = append(all[:maxReasons], fmt.Sprintf("and %d more", n))
	}
	return "no signature counts: " + strings.Join(all, "; ")
}

// source reads signatures from the image's repository and its mirrors.
type source struct{ *repository }

// Manifest implements cosign.Source.
func (s source) Manifest(ctx context.Context, id string) ([]byte, error) {
	m, err := s.repository.Manifest(ctx, id)
	if err != nil {
		return nil, absent(err)
	}
	return m.Body, nil
}

// Blob implements cosign.Source.
func (s source) Blob(ctx context.Context, d cosign.Descriptor) ([]byte, error) {
	h, err := v1.NewHash(d.Digest)
	if err != nil {
		return nil, err
	}
	return s.repository.Small(ctx, v1.Descriptor{Digest: h, Size: d.Size}, d.Size)
}

// Referrers implements cosign.Source.
func (s source) Referrers(ctx context.Context, digest string) ([]cosign.Descriptor, error) {
	list, err := s.repository.Referrers(ctx, digest)
	if err != nil {
		return nil, absent(err)
	}
	var all []cosign.Descriptor
	for _, d := range list {
		all = append(all, cosign.Descriptor{MediaType: string(d.MediaType), ArtifactType: d.ArtifactType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations})
	}
	return all, nil
}

// absent translates what a registry does not have.
func absent(err error) error {
	if errors.Is(err, ErrNotFound) {
		return cosign.ErrNone
	}
	return err
}
