package imagetest

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Registry is a registry in memory, on a loopback port of its own.
type Registry struct {
	Host string // "127.0.0.1:PORT", the first part of its images' names

	server *httptest.Server
	inner  http.Handler

	mu       sync.Mutex
	faults   []*Fault
	requests []string
	login    *Login
}

var silent = log.New(io.Discard, "", 0)

// Start starts a registry. Close it.
func Start() *Registry { return StartTLS(nil) }

// StartTLS starts a registry with TLS, see CA.Server.
func StartTLS(conf *tls.Config) *Registry {
	r := &Registry{inner: registry.New(registry.Logger(silent), registry.WithReferrersSupport(true))}
	r.server = httptest.NewUnstartedServer(r)
	r.server.Config.ErrorLog = silent
	if r.server.TLS = conf; conf != nil {
		r.server.StartTLS()
	} else {
		r.server.Start()
	}
	r.Host = r.server.Listener.Addr().String()
	return r
}

// Close stops the registry at once.
func (r *Registry) Close() {
	r.server.CloseClientConnections()
	r.server.Close()
}

// Push stores an image under a name such as "app:1" and returns the digest of
// its manifest. Faults do not apply.
func (r *Registry) Push(ref string, i Image) (digest string, err error) {
	img, err := i.build()
	if err != nil {
		return "", err
	}
	return r.push(ref, img)
}

func (r *Registry) push(ref string, img v1.Image) (string, error) {
	tag, err := name.ParseReference(r.Host + "/" + ref)
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag, img, remote.WithTransport(direct{r.inner})); err != nil {
		return "", err
	}
	d, err := img.Digest()
	return d.String(), err
}

// PushIndex stores an index of images for several platforms, and returns its
// digest.
func (r *Registry) PushIndex(ref string, images ...Image) (digest string, err error) {
	tag, err := name.ParseReference(r.Host + "/" + ref)
	if err != nil {
		return "", err
	}
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, i := range images {
		img, err := i.build()
		if err != nil {
			return "", err
		}
		p := platformOf(i.Platform)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	if err := remote.WriteIndex(tag, idx, remote.WithTransport(direct{r.inner})); err != nil {
		return "", err
	}
	d, err := idx.Digest()
	return d.String(), err
}

func platformOf(p v1.Platform) v1.Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	return p
}

// direct is a transport that does not leave the process.
type direct struct{ h http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	d.h.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// Fault makes matching answers wrong.
type Fault struct {
	Path  string // the request's path contains this; empty: every request
	Times int    // how often; 0: always

	Status   int                      // answer with this status instead
	CutAfter int64                    // close the connection after so many bytes of the body
	Corrupt  bool                     // flip a bit in the middle of the body
	Truncate int64                    // leave so many bytes at the end away, and say so in Content-Length
	NoRanges bool                     // ignore Range, send the whole
	Delay    time.Duration            // before the answer
	Before   func(r *http.Request)    // called before the answer, may block
	Header   func(h http.Header)      // changes the answer's header
	Replace  func(body []byte) []byte // changes the body
	used     int
}

// Break adds a fault. The first one that matches a request counts.
func (r *Registry) Break(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &f)
}

// Mend removes all faults.
func (r *Registry) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

// RequireLogin makes the registry ask for credentials: a token from its own
// token service, or basic authentication. An empty user gives everybody an
// anonymous token.
func (r *Registry) RequireLogin(user, password string, basic bool) {
	r.Require(&Login{User: user, Password: password, Basic: basic, Anonymous: user == ""})
}

// Require makes the registry ask for a login; nil: for none.
func (r *Registry) Require(l *Login) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.login = l
}

// Requests returns the requests so far whose "METHOD PATH" contains s.
func (r *Registry) Requests(s string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []string
	for _, q := range r.requests {
		if strings.Contains(q, s) {
			got = append(got, q)
		}
	}
	return got
}

func (r *Registry) match(q *http.Request) *Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q.Method+" "+q.URL.Path)
	for _, f := range r.faults {
		if strings.Contains(q.URL.Path, f.Path) && (f.Times == 0 || f.used < f.Times) {
			f.used++
			return f
		}
	}
	return &Fault{}
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	f := r.match(q)
	if f.Before != nil {
		f.Before(q)
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-q.Context().Done():
		}
	}
	if f.Status != 0 {
		http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"broken on purpose"}]}`, f.Status)
		return
	}
	r.mu.Lock()
	login := r.login
	r.mu.Unlock()
	if login != nil && !login.admit(w, q) {
		return
	}
	rec := httptest.NewRecorder()
	inner := q.Clone(q.Context())
	inner.Header.Del("Range")
	r.inner.ServeHTTP(rec, inner)
	answer(w, q, rec, f)
}

// answer sends what the inner registry said, with ranges and faults.
func answer(w http.ResponseWriter, q *http.Request, rec *httptest.ResponseRecorder, f *Fault) {
	body, status := rec.Body.Bytes(), rec.Code
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	if f.Corrupt && len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	if f.Replace != nil {
		body = f.Replace(body)
	}
	body = body[:max(0, int64(len(body))-f.Truncate)]
	if from, to, ok := rangeOf(q, int64(len(body))); ok && !f.NoRanges && status == http.StatusOK && strings.Contains(q.URL.Path, "/blobs/") {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(body)))
		body, status = body[from:to], http.StatusPartialContent
	}
	if q.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	if f.Header != nil {
		f.Header(w.Header())
	}
	w.WriteHeader(status)
	if f.CutAfter > 0 && f.CutAfter < int64(len(body)) {
		_, _ = w.Write(body[:f.CutAfter])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// rangeOf reads Range, of a body of the given size: from and up to, not with, to.
func rangeOf(q *http.Request, size int64) (from, to int64, ok bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(q.Header.Get("Range"), "bytes="), "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !ok || err != nil || from >= size {
		return 0, 0, false
	}
	if to, err = strconv.ParseInt(last, 10, 64); err != nil {
		return from, size, last == ""
	}
	return from, min(to+1, size), to >= from
}
