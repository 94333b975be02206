package image

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
)

// front serves what a registry has and counts the bytes of its blobs.
type front struct {
	Host string

	// cut says after how many bytes the connection of a blob's n-th request
	// breaks; negative: never. nil: never.
	cut func(digest string, n int) int64
	// hold is called before more of a blob is sent, and may block. served is how
	// much of it was sent so far, in all requests. It may be replaced under mu.
	hold func(q *http.Request, digest string, served int64)

	inner http.Handler

	mu    sync.Mutex
	ended sync.Cond // a request for a blob has; its lock is mu
	blobs map[string]*traffic
}

// traffic is what a front has served of one blob.
type traffic struct {
	body               []byte
	requests, complete int
	open               int   // requests that have not ended
	served, lost       int64 // lost: of requests that were cut
	from               []string
}

func newFront(t *testing.T, r *imagetest.Registry) *front {
	t.Helper()
	f := &front{inner: r, blobs: map[string]*traffic{}}
	f.ended.L = &f.mu
	server := httptest.NewServer(f)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	f.Host = strings.TrimPrefix(server.URL, "http://")
	return f
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.Method != http.MethodGet || !strings.Contains(q.URL.Path, "/blobs/") {
		f.inner.ServeHTTP(w, q)
		return
	}
	digest := path.Base(q.URL.Path)
	f.mu.Lock()
	b := f.blobs[digest]
	if b == nil {
		rec := httptest.NewRecorder()
		plain := q.Clone(q.Context())
		plain.Header.Del("Range")
		f.inner.ServeHTTP(rec, plain)
		b = &traffic{body: rec.Body.Bytes()}
		f.blobs[digest] = b
	}
	cw := &cutting{ResponseWriter: w, f: f, q: q, b: b, digest: digest, left: -1}
	if f.cut != nil {
		cw.left = f.cut(digest, b.requests)
	}
	b.requests++
	b.open++
	b.from = append(b.from, q.Header.Get("Range"))
	f.mu.Unlock()
	complete := 0
	defer func() { // also of one that is cut
		f.mu.Lock()
		defer f.mu.Unlock()
		b.open--
		b.complete += complete
		f.ended.Broadcast()
	}()
	http.ServeContent(cw, q, "", time.Time{}, bytes.NewReader(b.body))
	complete = 1
}

// of returns the traffic of a blob so far. It waits for the requests to end: whoever asked has
// the last bytes before they are counted here.
func (f *front) of(digest string) traffic {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.blobs[digest]
	if b == nil {
		return traffic{}
	}
	for b.open > 0 {
		f.ended.Wait()
	}
	return *b
}

type cutting struct {
	http.ResponseWriter
	f      *front
	q      *http.Request
	b      *traffic
	digest string
	left   int64 // negative: for ever
	sent   int64
}

// Write implements io.Writer. It has no ReadFrom, so that all bytes come here.
func (c *cutting) Write(p []byte) (int, error) {
	c.f.mu.Lock()
	served, hold := c.b.served, c.f.hold
	c.f.mu.Unlock()
	if hold != nil {
		hold(c.q, c.digest, served)
	}
	cut := c.left >= 0 && int64(len(p)) > c.left
	if cut {
		p = p[:c.left]
	}
	n, err := c.ResponseWriter.Write(p)
	c.sent += int64(n)
	c.f.mu.Lock()
	c.b.served += int64(n)
	if cut {
		c.b.lost += c.sent
	}
	c.f.mu.Unlock()
	if cut {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	if c.left >= 0 {
		c.left -= int64(n)
	}
	return n, err
}
