package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
)

// maxManifest is what registries must take, and may take no more than
// (distribution spec, "Pushing Manifests").
const maxManifest = 4 << 20

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
	if p.mirror && !json.Valid(body) {
		return nil, p.failure(ctx, errors.New("what it sends is no manifest")) // a login page, say
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
		return nil, p.failure(ctx, &networkError{error: err})
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
	return n, failureOf(b.p.host.label, &networkError{error: err})
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
			return p.failure(ctx, &networkError{error: err})
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
