package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
)

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
