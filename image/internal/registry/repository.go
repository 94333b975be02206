package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
)

const (
	maxAttempts = 5
	maxManifest = 4 << 20 // distribution spec: registries must take 4 MiB, and may take no more
)

var acceptManifests = strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.DockerManifestSchema2),
}, ", ")

// Repository is a repository of a registry, or of the mirrors that stand in
// for it.
type Repository struct {
	c      *Client
	name   name.Repository
	label  string
	places []*place // the mirrors in order, then the registry itself

	mu     sync.Mutex
	absent map[string][]*place // by digest or tag: mirrors that do not have it, or something else under its name; "": have nothing for us
	served map[string]*place   // by digest: who sent the blob last
	last   *place              // who sent any
}

// Manifest is a manifest or an index as the registry sent it.
type Manifest struct {
	Digest    string
	MediaType types.MediaType // what the registry calls it
	Body      []byte
}

// Manifest fetches a manifest or index by tag or digest. Its digest is that of
// the bytes; if it was asked for by digest, they are the same.
func (r *Repository) Manifest(ctx context.Context, id string) (*Manifest, error) {
	var m *Manifest
	err := r.retrying(ctx, id, func(ctx context.Context, p *place) (err error) {
		m, err = p.manifest(ctx, id)
		return err
	})
	return m, err
}

func (p *place) manifest(ctx context.Context, id string) (*Manifest, error) {
	resp, err := p.expect(ctx, http.MethodGet, "/manifests/"+id, http.Header{"Accept": {acceptManifests}}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	body, err := p.read(ctx, resp, maxManifest, "manifest")
	if err != nil {
		return nil, err
	}
	m := &Manifest{Digest: blob.Digest(body), MediaType: mediaType(resp.Header), Body: body}
	if strings.Contains(id, ":") && id != m.Digest {
		size := int64(len(body))
		return nil, p.failure(ctx, &blob.MismatchError{Want: id, Got: m.Digest, WantSize: size, GotSize: size})
	}
	return m, nil
}

func mediaType(h http.Header) types.MediaType {
	mt, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return types.MediaType(strings.TrimSpace(mt))
}

// read reads an answer that must fit in memory.
func (p *place) read(ctx context.Context, resp *http.Response, limit int64, what string) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, p.failure(ctx, &networkError{err})
	}
	if int64(len(body)) > limit {
		return nil, p.failure(ctx, fmt.Errorf("%s is larger than %.1f MiB", what, float64(limit)/(1<<20)))
	}
	return body, nil
}

// Head asks which digest a tag stands for. It costs the registry little, and
// counts as no pull on Docker Hub.
func (r *Repository) Head(ctx context.Context, tag string) (digest string, err error) {
	err = r.retrying(ctx, tag, func(ctx context.Context, p *place) error {
		resp, err := p.get(ctx, http.MethodHead, "/manifests/"+tag, http.Header{"Accept": {acceptManifests}})
		if err != nil {
			return err
		}
		digest = resp.Header.Get("Docker-Content-Digest")
		_, bad := blob.CheckDigest(digest)
		if resp.StatusCode == http.StatusOK && bad == nil {
			drain(resp)
			return nil
		}
		switch resp.StatusCode {
		case http.StatusOK, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			drain(resp)
		default:
			return p.answer(ctx, resp)
		}
		m, err := p.manifest(ctx, tag)
		if err == nil {
			digest = m.Digest
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return digest, nil
}

// Blob starts reading a blob at offset, length bytes of it or, if length is
// negative, all that follow. It is one attempt, at the first place that answers,
// and nothing is checked but the size. at is where the body really begins: 0 if
// ranges are not served; then it is the whole blob.
func (r *Repository) Blob(ctx context.Context, d v1.Descriptor, offset, length int64) (body io.ReadCloser, at int64, err error) {
	digest := d.Digest.String()
	err = r.each(ctx, digest, func(ctx context.Context, p *place) error {
		resp, from, err := p.blob(ctx, d, offset, length)
		if err != nil {
			return err
		}
		body, at = &blobBody{ReadCloser: resp.Body, ctx: ctx, r: r, p: p}, from
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.served == nil {
			r.served = map[string]*place{}
		}
		r.served[digest], r.last = p, p
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return body, at, nil
}

func (p *place) blob(ctx context.Context, d v1.Descriptor, offset, length int64) (*http.Response, int64, error) {
	header := http.Header{}
	if length >= 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	} else if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	path := "/blobs/" + d.Digest.String()
	resp, err := p.get(ctx, http.MethodGet, path, header)
	if err == nil && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && len(header) > 0 {
		drain(resp)
		resp, err = p.get(ctx, http.MethodGet, path, nil)
	}
	if err != nil {
		return nil, 0, err
	}
	at, size := int64(0), resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		at, size, err = contentRange(resp.Header.Get("Content-Range"))
		if err != nil || at > offset {
			resp.Body.Close()
			return nil, 0, p.failure(ctx, fmt.Errorf("unusable range %q", printable(resp.Header.Get("Content-Range"))))
		}
	default:
		f := p.answer(ctx, resp)
		if f.kind == ErrNotFound {
			f.text = fmt.Sprintf("the registry does not have blob %s, which the manifest names", d.Digest)
		}
		return nil, 0, f
	}
	if size >= 0 && size != d.Size {
		resp.Body.Close()
		return nil, 0, p.failure(ctx, &blob.MismatchError{Want: d.Digest.String(), WantSize: d.Size, GotSize: size})
	}
	return resp, at, nil
}

// contentRange reads "bytes 5-9/10"; the size is -1 if it says "*".
func contentRange(s string) (at, size int64, err error) {
	var last int64
	var total string
	if n, err := fmt.Sscanf(s, "bytes %d-%d/%s", &at, &last, &total); n != 3 || at < 0 || last < at {
		return 0, 0, fmt.Errorf("range %q: %w", s, err)
	}
	if total == "*" {
		return at, -1, nil
	}
	_, err = fmt.Sscanf(total, "%d", &size)
	return at, size, err
}

// blobBody knows who to blame for a connection that breaks.
type blobBody struct {
	io.ReadCloser
	ctx context.Context // of the request, whose end is nobody's fault
	r   *Repository
	p   *place
}

// Read implements io.Reader.
func (b *blobBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || b.ctx.Err() != nil {
		return n, err
	}
	if b.p.mirror {
		b.p.host.failed()
	}
	return n, failureOf(b.p.host.label, &networkError{err})
}

// Small fetches a blob that must fit in memory, and checks it.
func (r *Repository) Small(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%d bytes are too many", d.Size)
	}
	digest := d.Digest.String()
	if int64(len(d.Data)) == d.Size && blob.Digest(d.Data) == digest {
		return d.Data, nil // the manifest has it inside
	}
	var body []byte
	err := r.retrying(ctx, digest, func(ctx context.Context, p *place) error {
		resp, _, err := p.blob(ctx, d, 0, -1)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(io.LimitReader(resp.Body, d.Size+1)); err != nil {
			return p.failure(ctx, &networkError{err})
		}
		if got := blob.Digest(body); got != digest {
			return p.failure(ctx, &blob.MismatchError{Want: digest, Got: got, WantSize: d.Size, GotSize: int64(len(body))})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// maxReferrers bounds the pages of a list of referrers.
const maxReferrers = 20

// Referrers lists what refers to a manifest, such as signatures: by the referrers
// API or, where the registry does not have it, by the tag that stands in for it
// (distribution spec, "Referrers tag schema"). None is no error.
func (r *Repository) Referrers(ctx context.Context, digest string) ([]v1.Descriptor, error) {
	if _, err := blob.CheckDigest(digest); err != nil {
		return nil, err
	}
	var all []v1.Descriptor
	err := r.retrying(ctx, "referrers of "+digest, func(ctx context.Context, p *place) (err error) {
		all, err = p.referrers(ctx, digest)
		if err == nil && len(all) == 0 && p.mirror {
			// Many mirrors have only what was pulled through them.
			return &failure{host: p.host.label, kind: ErrNotFound, text: "no referrers"}
		}
		return err
	})
	return all, err
}

func (p *place) referrers(ctx context.Context, digest string) ([]v1.Descriptor, error) {
	var all []v1.Descriptor
	path := "/referrers/" + digest
	for range maxReferrers {
		resp, err := p.get(ctx, http.MethodGet, path, http.Header{"Accept": {string(types.OCIImageIndex)}})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), string(types.OCIImageIndex)) {
			code := resp.StatusCode
			if f := p.answer(ctx, resp); f.temporary || code == http.StatusUnauthorized || code == http.StatusForbidden {
				return nil, f
			}
			return p.referrersByTag(ctx, digest)
		}
		body, err := p.read(ctx, resp, maxManifest, "list of referrers")
		if err != nil {
			return nil, err
		}
		list, err := parseReferrers(body)
		if err != nil {
			return nil, p.failure(ctx, err)
		}
		all = append(all, list...)
		if path = nextPage(resp, "/v2/"+p.repo); path == "" {
			return all, nil
		}
	}
	return nil, p.failure(ctx, fmt.Errorf("more than %d pages of referrers of %s", maxReferrers, digest))
}

func (p *place) referrersByTag(ctx context.Context, digest string) ([]v1.Descriptor, error) {
	m, err := p.manifest(ctx, strings.Replace(digest, ":", "-", 1))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := parseReferrers(m.Body)
	if err != nil {
		return nil, p.failure(ctx, err)
	}
	return list, nil
}

func parseReferrers(body []byte) ([]v1.Descriptor, error) {
	var index struct {
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("list of referrers: %w", err)
	}
	return index.Manifests, nil
}

// nextPage is the path of the next page below the repository, "" if there is none.
func nextPage(resp *http.Response, base string) string {
	link, params, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	if !ok || !strings.Contains(params, `rel="next"`) && !strings.Contains(params, "rel=next") {
		return ""
	}
	u, err := resp.Request.URL.Parse(link)
	if err != nil {
		return ""
	}
	path, ok := strings.CutPrefix(u.Path, base)
	if !ok {
		return ""
	}
	return (&url.URL{Path: path, RawQuery: u.RawQuery}).RequestURI()
}

// order is in which order the places are asked for something: mirrors that are
// well, the registry, and at last the mirrors that rest, since a mirror may have
// what the registry has no more.
func (r *Repository) order(key string) []*place {
	r.mu.Lock()
	absent := slices.Concat(r.absent[key], r.absent[""])
	r.mu.Unlock()
	var first, resting []*place
	for _, p := range r.places[:len(r.places)-1] {
		switch {
		case slices.Contains(absent, p):
		case p.host.resting() || !p.host.gate.closedUntil().IsZero():
			resting = append(resting, p)
		default:
			first = append(first, p)
		}
	}
	return append(append(first, r.places[len(r.places)-1]), resting...)
}

// each asks one place after the other until one has what is wanted. Its errors
// are *tried, unless the context is done.
func (r *Repository) each(ctx context.Context, key string, f func(context.Context, *place) error) error {
	e := &tried{}
	for _, p := range r.order(key) {
		err := f(ctx, p)
		if err == nil {
			if p.mirror {
				p.host.worked()
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		why := failureOf(p.host.label, err)
		e.all = append(e.all, why)
		if !p.mirror {
			e.main = why
			continue
		}
		r.c.log.Debug("mirror has failed, asking the next place", "registry", r.label, "mirror", p.host.name, "err", why.text)
		r.blame(key, p, why)
	}
	return e
}

// blame keeps a mirror that failed from being asked again at once: for this
// one thing if it does not have it, for all if it does not work.
func (r *Repository) blame(key string, p *place, why *failure) {
	switch {
	case why.temporary || isCertificate(why):
		p.host.failed()
		return
	case why.kind == ErrDenied:
		key = "" // it would deny everything else too
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.absent[key], p) {
		r.absent[key] = append(r.absent[key], p)
	}
}

// retrying asks each place, again while time may cure the error.
func (r *Repository) retrying(ctx context.Context, key string, f func(context.Context, *place) error) error {
	for n := 1; ; n++ {
		err := r.each(ctx, key, func(ctx context.Context, p *place) error {
			ctx, cancel := context.WithTimeout(ctx, smallTime)
			defer cancel()
			err := f(ctx, p)
			if err != nil && ctx.Err() != nil {
				err = failureOf(p.host.label, &networkError{ctx.Err()})
			}
			return err
		})
		if err == nil {
			return nil
		}
		if err := r.Retry(ctx, n, err); err != nil {
			return err
		}
	}
}

// Retry waits before the next attempt after err, the attempt-th error in a row
// (from 1), and returns nil, or returns why there is none. It takes errors of
// Blob, of its body, and those that the caller found out itself: after a
// blob.MismatchError the next place is asked, if a mirror sent the bytes; what it
// does not know is taken for a fault of the connection.
func (r *Repository) Retry(ctx context.Context, attempt int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var mismatch *blob.MismatchError
	var known *failure
	switch {
	case errors.As(err, &mismatch):
		if !r.distrust(mismatch.Want) {
			return err
		}
		return nil
	case errors.As(err, &known):
		if !known.temporary {
			return err
		}
	default:
		r.mu.Lock()
		if r.last != nil && r.last.mirror {
			r.last.host.failed()
		}
		r.mu.Unlock()
	}
	wait, limit := r.c.opts.Backoff(attempt), maxAttempts
	if known != nil && !known.until.IsZero() {
		limit = 2 * maxAttempts // nobody was asked
	}
	until := r.closedUntil()
	if known != nil && known.until.After(until) {
		until = known.until // a token service's, or of where blobs lie
	}
	if !until.IsZero() {
		if wait = max(wait, time.Until(until)); wait > maxWait {
			return r.tooLong(until)
		}
	}
	if attempt >= limit {
		return err
	}
	r.c.log.Debug("registry request failed", "registry", r.label, "attempt", attempt, "err", err)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// closedUntil is when the registry's gate opens, zero if it is open or a mirror
// can be asked meanwhile.
func (r *Repository) closedUntil() time.Time {
	order := r.order("")
	if order[0].mirror {
		return time.Time{}
	}
	return order[0].host.gate.closedUntil()
}

func (r *Repository) tooLong(until time.Time) *failure {
	return failureOf(r.label, &closedError{r.label, until})
}

// distrust stops asking the mirror that sent wrong bytes for them. It tells
// whether there was one.
func (r *Repository) distrust(digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.served[digest]
	if p == nil || !p.mirror || slices.Contains(r.absent[digest], p) {
		return false
	}
	r.absent[digest] = append(r.absent[digest], p)
	r.c.log.Warn("mirror sent wrong bytes, asking the next place", "registry", r.label, "mirror", p.host.name, "digest", digest)
	return true
}
