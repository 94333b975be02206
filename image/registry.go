package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/disk"
)

const (
	userAgent    = "wherry"
	maxAttempts  = 5
	stallTimeout = time.Minute
	maxManifest  = 4 << 20
)

var acceptManifests = strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.DockerManifestSchema2),
}, ",")

// newTransport makes the store's own HTTP connections.
func newTransport(insecure []string, proxy func(*http.Request) (*url.URL, error)) http.RoundTripper {
	t := &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          16,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		DisableCompression:    true, // a layer is what its digest covers
		ReadBufferSize:        64 << 10,
	}
	return &plainGuard{inner: t, insecure: insecure}
}

// plainGuard refuses plain HTTP, except to loopback and to hosts that the
// options name, wherever a URL comes from: a name, a redirect, a token service.
type plainGuard struct {
	inner    http.RoundTripper
	insecure []string
}

// RoundTrip implements http.RoundTripper.
func (g *plainGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !isLoopback(r.URL.Hostname()) && !slices.Contains(g.insecure, r.URL.Host) {
		return nil, &plainHTTPError{r.URL.Host}
	}
	return g.inner.RoundTrip(r)
}

type plainHTTPError struct{ host string }

func (e *plainHTTPError) Error() string {
	return fmt.Sprintf("%s is not trusted with plain HTTP; list it as insecure if it is", e.host)
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// repository is a repository of a registry that we are logged in to.
type repository struct {
	s      *Store
	name   name.Repository
	host   string
	client *http.Client
}

// connect asks the registry how to log in, and does so.
func (s *Store) connect(ctx context.Context, ref reference) (*repository, error) {
	r := &repository{s: s, name: ref.Context(), host: ref.Context().RegistryStr()}
	how := s.registries.Load()
	auth, err := authn.Resolve(ctx, how.keychain, r.name)
	if err != nil {
		return nil, err
	}
	var tr http.RoundTripper
	err = s.retrying(ctx, func() (err error) {
		scopes := []string{r.name.Scope(transport.PullScope)}
		tr, err = transport.NewWithContext(ctx, r.name.Registry, auth, transport.NewUserAgent(how.transport, userAgent), scopes)
		return err
	})
	if err != nil {
		return nil, translate(r.host, err)
	}
	r.client = &http.Client{Transport: tr, CheckRedirect: checkRedirect}
	return r, nil
}

// checkRedirect keeps a registry from sending us to services inside our
// network: from a public host no redirect leads to a private address.
func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("too many redirects")
	}
	if private(r.URL.Hostname()) && !private(via[0].URL.Hostname()) && r.URL.Host != via[0].URL.Host {
		return fmt.Errorf("redirect from %s to the private address %s refused", via[0].URL.Host, r.URL.Host)
	}
	return nil
}

func private(host string) bool {
	if isLoopback(host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()
}

// manifest is a manifest or an index as the registry sent it.
type manifest struct {
	digest    string
	mediaType types.MediaType
	body      []byte
}

// manifest fetches a manifest or index by tag or digest. The digest is that of
// the bytes; if it was asked for by digest, they must be the same.
func (r *repository) manifest(ctx context.Context, id string) (*manifest, error) {
	var m *manifest
	err := r.s.retrying(ctx, func() (err error) {
		m, err = r.manifestOnce(ctx, id)
		return err
	})
	return m, translate(r.host, err)
}

func (r *repository) manifestOnce(ctx context.Context, id string) (*manifest, error) {
	req, err := r.request(ctx, "manifests", id)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", acceptManifests)
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxManifest {
		return nil, fmt.Errorf("manifest is larger than %s", disk.Bytes(maxManifest))
	}
	m := &manifest{digest: blob.Digest(body), mediaType: types.MediaType(resp.Header.Get("Content-Type")), body: body}
	if strings.Contains(id, ":") && id != m.digest {
		size := int64(len(body))
		return nil, &blob.MismatchError{Want: id, Got: m.digest, WantSize: size, GotSize: size}
	}
	return m, nil
}

func (r *repository) request(ctx context.Context, kind, id string) (*http.Request, error) {
	u := url.URL{Scheme: r.name.Scheme(), Host: r.host, Path: fmt.Sprintf("/v2/%s/%s/%s", r.name.RepositoryStr(), kind, id)}
	return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
}

// source reads a blob, over as many connections as it takes.
func (r *repository) source(d v1.Descriptor) *blob.Source {
	return &blob.Source{
		Size:  d.Size,
		Stall: stallTimeout,
		Open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			return r.openBlob(ctx, d, offset)
		},
		Retry: func(ctx context.Context, n int, err error) error {
			if werr := r.s.waitRetry(ctx, n, err); werr != nil {
				return translate(r.host, werr)
			}
			return nil
		},
	}
}

// openBlob asks for a blob from offset on. A registry that cannot do that
// sends it from the start.
func (r *repository) openBlob(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	req, err := r.request(ctx, "blobs", d.Digest.String())
	if err != nil {
		return nil, 0, err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		resp.Body.Close()
		return nil, 0, blobError(d, err)
	}
	at := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &at); err != nil || at > offset {
			resp.Body.Close()
			return nil, 0, fmt.Errorf("registry %s: unusable range %q", r.host, resp.Header.Get("Content-Range"))
		}
	} else if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
		resp.Body.Close()
		return nil, 0, &blob.MismatchError{Want: d.Digest.String(), WantSize: d.Size, GotSize: resp.ContentLength}
	}
	return resp.Body, at, nil
}

// blobError keeps a missing blob apart from a missing image.
func blobError(d v1.Descriptor, err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return &registryError{ErrNotFound, fmt.Sprintf("the registry does not have blob %s, which the manifest names", d.Digest)}
	}
	return err
}

// small fetches a blob that must fit in memory.
func (r *repository) small(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%d bytes are too many", d.Size)
	}
	src := r.source(d).Reader(ctx)
	defer src.Close()
	b, err := io.ReadAll(io.LimitReader(src, d.Size+1))
	if err != nil {
		return nil, err
	}
	if got := blob.Digest(b); got != d.Digest.String() {
		return nil, &blob.MismatchError{Want: d.Digest.String(), Got: got, WantSize: d.Size, GotSize: int64(len(b))}
	}
	return b, nil
}

// retrying runs f again while time may cure its error.
func (s *Store) retrying(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil {
			return nil
		}
		if err := s.waitRetry(ctx, n, err); err != nil {
			return err
		}
	}
}

// waitRetry waits before the next attempt, or returns why there is none.
func (s *Store) waitRetry(ctx context.Context, n int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if n >= maxAttempts || !temporary(err) {
		return err
	}
	s.log.Debug("registry request failed", "attempt", n, "err", err)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(s.backoff(n)):
		return nil
	}
}

// backoff doubles from a fifth of a second.
func backoff(n int) time.Duration { return 100 * time.Millisecond << n }

// temporary tells whether the same request may succeed a little later.
func temporary(err error) bool {
	var answer *transport.Error
	var known *registryError
	var mismatch *blob.MismatchError
	var guard *plainHTTPError
	var dns *net.DNSError
	switch {
	case errors.As(err, &answer):
		return answer.Temporary() || answer.StatusCode >= 500
	case errors.As(err, &known), errors.As(err, &mismatch), errors.As(err, &guard), isCertificate(err):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}
