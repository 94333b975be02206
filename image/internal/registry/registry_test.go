package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/blob"
)

var ctx = context.Background()

// origin is a registry with one image of one layer, "app:1".
type origin struct {
	*imagetest.Registry
	digest string // of the manifest
	layer  v1.Descriptor
	bytes  []byte // of the layer
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	r := imagetest.Start()
	t.Cleanup(r.Close)
	l := imagetest.NewLayer(imagetest.Entry{Name: "f", Body: strings.Repeat("some content ", 1000)})
	o := &origin{Registry: r, bytes: l.Blob()}
	var err error
	if o.digest, err = r.Push("app:1", imagetest.Image{Layers: []imagetest.Layer{l}}); err != nil {
		t.Fatal(err)
	}
	o.layer = describe(o.bytes)
	return o
}

func describe(b []byte) v1.Descriptor {
	sum := sha256.Sum256(b)
	return v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}, Size: int64(len(b))}
}

// proxied starts a fault proxy before the registry.
func (o *origin) proxied(t *testing.T, opts imagetest.FaultProxyOptions) *imagetest.FaultProxy {
	t.Helper()
	p := imagetest.StartFaultProxy(o.Host, opts)
	t.Cleanup(p.Close)
	return p
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Backoff == nil {
		o.Backoff = func(int) time.Duration { return 0 }
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (c *Client) repo(t *testing.T, s string) *Repository {
	t.Helper()
	n, err := name.NewRepository(s)
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(n, nil)
}

func readBlob(t *testing.T, r *Repository, d v1.Descriptor) ([]byte, error) {
	t.Helper()
	body, at, err := r.Blob(ctx, d, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if at != 0 {
		t.Errorf("begins at %d", at)
	}
	return io.ReadAll(body)
}

// keychain has one host's credentials, and counts.
type keychain struct {
	host    string
	config  authn.AuthConfig
	next    *authn.AuthConfig // after Invalidate
	asked   int
	refused int
}

func (k *keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	k.asked++
	if r.RegistryStr() != k.host {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(k.config), nil
}

func (k *keychain) Invalidate(registry string) {
	if registry == k.host {
		k.refused++
		if k.next != nil {
			k.config = *k.next
		}
	}
}

func TestNothingIsAskedTwice(t *testing.T) {
	o := newOrigin(t)
	r := newClient(t, Options{}).repo(t, o.Host+"/app")
	m, err := r.Manifest(ctx, "1")
	if err != nil || m.Digest != o.digest {
		t.Fatal(m, err)
	}
	if b, err := r.Small(ctx, o.layer, 1<<20); err != nil || !bytes.Equal(b, o.bytes) {
		t.Fatal(err)
	}
	if got := o.Requests(""); len(got) != 2 {
		t.Errorf("%q", got)
	}
	inside := o.layer
	inside.Data = o.bytes
	if b, err := r.Small(ctx, inside, 1<<20); err != nil || !bytes.Equal(b, o.bytes) || len(o.Requests("")) != 2 {
		t.Error(err, o.Requests(""))
	}
	if _, err := r.Small(ctx, o.layer, 5); err == nil {
		t.Error("no limit")
	}
}

func TestHead(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	r := newClient(t, Options{}).repo(t, p.Host+"/app")
	for _, c := range []struct {
		rule imagetest.Rule
		gets int
	}{
		{imagetest.Rule{}, 0},
		{imagetest.Rule{Method: "HEAD", Status: 405}, 1},
		{imagetest.Rule{Method: "HEAD", Header: http.Header{"Docker-Content-Digest": {"nonsense"}}}, 1},
		{imagetest.Rule{Method: "HEAD", Status: 503, Times: 2}, 0},
	} {
		before := p.Count("GET", "/manifests/")
		p.Mend()
		p.Do(c.rule)
		if got, err := r.Head(ctx, "1"); err != nil || got != o.digest {
			t.Errorf("%+v: %s %v", c.rule, got, err)
		}
		if n := p.Count("GET", "/manifests/") - before; n != c.gets {
			t.Errorf("%+v: %d times GET", c.rule, n)
		}
	}
	p.Mend()
	if _, err := r.Head(ctx, "none"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestBlobRanges(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	r := newClient(t, Options{}).repo(t, p.Host+"/app")
	for _, c := range []struct {
		rule           imagetest.Rule
		offset, length int64
		at, to         int64
	}{
		{imagetest.Rule{}, 0, -1, 0, o.layer.Size},
		{imagetest.Rule{}, 10, -1, 10, o.layer.Size},
		{imagetest.Rule{}, 10, 20, 10, 30},
		{imagetest.Rule{}, 0, 20, 0, 20},
		{imagetest.Rule{IgnoreRange: true}, 10, 20, 0, o.layer.Size},
		{imagetest.Rule{Match: func(r *http.Request) bool { return r.Header.Get("Range") != "" }, Status: 416}, 10, 20, 0, o.layer.Size},
	} {
		p.Mend()
		p.Do(c.rule)
		body, at, err := r.Blob(ctx, o.layer, c.offset, c.length)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil || at != c.at || !bytes.Equal(b, o.bytes[c.at:c.to]) {
			t.Errorf("%+v: %d bytes at %d, %v", c, len(b), at, err)
		}
	}
	for _, rule := range []imagetest.Rule{
		{Cut: 5}, {Add: "more"}, {Header: http.Header{"Content-Range": {"bytes 7-9/9"}}},
	} {
		p.Mend()
		p.Do(rule)
		var mismatch *blob.MismatchError
		offset := int64(0)
		if rule.Header != nil {
			offset = 8
		}
		if _, _, err := r.Blob(ctx, o.layer, offset, -1); !errors.As(err, &mismatch) || r.Retry(ctx, 1, err) == nil {
			t.Errorf("%+v: %v", rule, err)
		}
	}
	p.Mend()
	p.Do(imagetest.Rule{Header: http.Header{"Content-Range": {fmt.Sprintf("bytes 9-10/%d", o.layer.Size)}}})
	if _, _, err := r.Blob(ctx, o.layer, 8, -1); err == nil || !strings.Contains(err.Error(), "unusable range") {
		t.Error(err)
	}
}

func TestBrokenBodyIsTemporary(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	r := newClient(t, Options{}).repo(t, p.Host+"/app")
	p.Do(imagetest.Rule{Path: "/blobs/", Reset: true, After: 10})
	b, err := readBlob(t, r, o.layer)
	if len(b) != 10 || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), p.Host) {
		t.Error(len(b), err)
	}
	if r.Retry(ctx, 1, err) != nil || r.Retry(ctx, maxAttempts, err) == nil {
		t.Error("retries")
	}
}

func TestWrongManifestForDigest(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	r := newClient(t, Options{}).repo(t, p.Host+"/app")
	p.Do(imagetest.Rule{Wrong: []int64{10}})
	var mismatch *blob.MismatchError
	if _, err := r.Manifest(ctx, o.digest); !errors.As(err, &mismatch) || mismatch.Want != o.digest || p.Count("", "") != 1 {
		t.Error(err)
	}
}

func TestCancelIsReturnedAsItIs(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	r := newClient(t, Options{}).repo(t, p.Host+"/app")
	why := errors.New("changed my mind")
	cctx, cancel := context.WithCancelCause(ctx)
	p.Do(imagetest.Rule{Before: func() { cancel(why) }, Hang: true})
	if _, err := r.Manifest(cctx, "1"); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestReferrers(t *testing.T) {
	o := newOrigin(t)
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,"digest":"sha256:` + strings.Repeat("a", 64) + `","artifactType":"x/y"}]}`
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, q *http.Request)
		want   int
		bad    bool
	}{
		"api": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			fmt.Fprint(w, index)
		}, 1, false},
		"pages": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			if q.URL.Query().Get("page") == "" {
				w.Header().Set("Link", "<"+q.URL.Path+`?page=2>; rel="next"`)
			}
			fmt.Fprint(w, index)
		}, 2, false},
		"endless": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Header().Set("Link", "<"+q.URL.Path+`?page=2>; rel="next"`)
			fmt.Fprint(w, index)
		}, 0, true},
		"tag": {func(w http.ResponseWriter, q *http.Request) {
			if !strings.HasSuffix(q.URL.Path, "/manifests/"+strings.Replace(o.digest, ":", "-", 1)) {
				http.NotFound(w, q)
				return
			}
			fmt.Fprint(w, index)
		}, 1, false},
		"none": {http.NotFound, 0, false},
		"html": {func(w http.ResponseWriter, q *http.Request) {
			if strings.Contains(q.URL.Path, "/manifests/") {
				http.NotFound(w, q)
				return
			}
			fmt.Fprint(w, "<html>")
		}, 0, false},
		"down": {func(w http.ResponseWriter, q *http.Request) { http.Error(w, "", 500) }, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.answer)
			got, err := newClient(t, Options{}).repo(t, s+"/app").Referrers(ctx, o.digest)
			if len(got) != c.want && !c.bad || (err != nil) != c.bad {
				t.Error(got, err)
			}
		})
	}
}

func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		kind   error
		want   string
	}{
		{404, "", ErrNotFound, "no such image"},
		{403, `{"errors":[{"code":"DENIED","message":"go away"}]}`, ErrDenied, "go away"},
		{500, "<html>", ErrUnavailable, "answers 500 Internal Server Error"},
		{503, `{"errors":[{"message":"a\u001b[2Jb"}]}`, ErrUnavailable, "a [2Jb"},
		{418, "", nil, "answers 418"},
		{400, `{"details":"x"}`, nil, "Bad Request: x"},
	} {
		s := serve(t, func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := newClient(t, Options{}).repo(t, s+"/app").Manifest(ctx, "1")
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d: %v", c.status, err)
		}
	}
}
