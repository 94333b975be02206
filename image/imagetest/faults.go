package imagetest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultProxy stands between a client and a registry and does what networks and
// registries do: it answers 429, breaks connections, changes bytes. It counts
// what it was asked and what it served. Without rules it changes nothing.
type FaultProxy struct {
	Host string // "127.0.0.1:PORT", to be used in image names instead of the registry's

	target string
	server *httptest.Server
	client *http.Transport
	login  *Login

	mu    sync.Mutex
	rules []*Rule
	log   []Served
}

// FaultProxyOptions configure a FaultProxy.
type FaultProxyOptions struct {
	TLS   *tls.Config // what it shows its clients, see CA.Server; nil: plain HTTP
	Login *Login      // what it wants of its clients; nil: nothing
	Trust *tls.Config // how it speaks to a registry with TLS
}

// Rule says what happens to a matching request. The zero value of each field
// does nothing.
type Rule struct {
	Method string                     // empty: GET and HEAD alike
	Path   string                     // the path contains this
	Match  func(r *http.Request) bool // besides
	Skip   int                        // matching requests that are left alone first
	Times  int                        // how often it applies; 0: always

	// Instead of asking the registry:
	Status     int           // this answer
	RetryAfter string        // its Retry-After: seconds or an HTTP date
	Header     http.Header   // of this answer, or besides the registry's
	Redirect   string        // to this URL and the request's path
	Hang       bool          // no answer until the client goes away
	Before     func()        // called before anything else, may block
	Delay      time.Duration // before the answer

	// With the registry's answer:
	IgnoreRange bool    // the whole blob, with status 200
	Reset       bool    // reset the connection,
	After       int64   // after so many bytes of the body
	Wrong       []int64 // offsets in what is served at which a bit is flipped
	Cut         int64   // so many bytes are missing at the end, and Content-Length says so
	Short       int64   // so many bytes are missing at the end, but Content-Length promises them
	Add         string  // is put at the end, and Content-Length says so

	// A trickle: Piece bytes (0: 1) after each Every.
	Every time.Duration
	Piece int

	seen, used int
}

// Served is one request and what became of it.
type Served struct {
	Method, Path, Query  string
	Range, Authorization string
	Status               int
	Bytes                int64 // of the body, as far as they were written
	Whole                bool  // the answer was written to its end
}

// StartFaultProxy starts a proxy before a registry: "host:port" or a URL. Close it.
func StartFaultProxy(registry string, o FaultProxyOptions) *FaultProxy {
	if !strings.Contains(registry, "://") {
		registry = "http://" + registry
	}
	p := &FaultProxy{target: strings.TrimSuffix(registry, "/"), login: o.Login, client: &http.Transport{DisableCompression: true, TLSClientConfig: o.Trust}}
	p.server = httptest.NewUnstartedServer(p)
	p.server.Config.ErrorLog = silent
	if p.server.TLS = o.TLS; o.TLS != nil {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	p.Host = p.server.Listener.Addr().String()
	return p
}

// Close stops the proxy at once.
func (p *FaultProxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
	p.client.CloseIdleConnections()
}

// Do adds a rule. The first one that matches a request and is not used up counts.
func (p *FaultProxy) Do(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &r)
}

// Mend removes all rules.
func (p *FaultProxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
}

// Log returns the requests so far whose path contains s, in the order that they
// ended in.
func (p *FaultProxy) Log(s string) []Served {
	p.mu.Lock()
	defer p.mu.Unlock()
	var got []Served
	for _, e := range p.log {
		if strings.Contains(e.Path, s) {
			got = append(got, e)
		}
	}
	return got
}

// Count counts the requests with the method (empty: any) whose path contains s.
func (p *FaultProxy) Count(method, s string) int {
	n := 0
	for _, e := range p.Log(s) {
		if method == "" || e.Method == method {
			n++
		}
	}
	return n
}

// Bytes adds up the bytes of bodies served for paths that contain s.
func (p *FaultProxy) Bytes(s string) int64 {
	var n int64
	for _, e := range p.Log(s) {
		n += e.Bytes
	}
	return n
}

func (p *FaultProxy) rule(q *http.Request) *Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		if r.Method != "" && r.Method != q.Method || !strings.Contains(q.URL.Path, r.Path) || r.Match != nil && !r.Match(q) {
			continue
		}
		if r.seen++; r.seen <= r.Skip || r.Times > 0 && r.used >= r.Times {
			continue
		}
		r.used++
		return r
	}
	return &Rule{}
}

// ServeHTTP implements http.Handler.
func (p *FaultProxy) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	out := &recorder{ResponseWriter: w, entry: Served{
		Method: q.Method, Path: q.URL.Path, Query: q.URL.RawQuery, Range: q.Header.Get("Range"), Authorization: q.Header.Get("Authorization"),
	}}
	defer func() {
		p.mu.Lock()
		p.log = append(p.log, out.entry)
		p.mu.Unlock()
		if out.broken { // not before: who sees it may ask for the log
			out.reset()
		}
	}()
	r := p.rule(q)
	if r.Before != nil {
		r.Before()
	}
	if r.Delay > 0 && !pause(q, r.Delay) {
		return
	}
	for k, v := range r.Header {
		w.Header()[k] = v
	}
	switch {
	case r.Hang:
		<-q.Context().Done()
	case r.Status != 0:
		if r.RetryAfter != "" {
			w.Header().Set("Retry-After", r.RetryAfter)
		}
		http.Error(out, `{"errors":[{"code":"UNKNOWN","message":"broken on purpose"}]}`, r.Status)
		out.entry.Whole = true
	case r.Redirect != "":
		http.Redirect(out, q, r.Redirect+q.URL.RequestURI(), http.StatusTemporaryRedirect)
		out.entry.Whole = true
	case p.login != nil && !p.login.admit(out, q):
		out.entry.Whole = true
	default:
		p.forward(out, q, r)
	}
}

// forward asks the registry and passes its answer on.
func (p *FaultProxy) forward(w *recorder, q *http.Request, r *Rule) {
	req, err := http.NewRequestWithContext(q.Context(), q.Method, p.target+q.URL.RequestURI(), q.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req.ContentLength = q.ContentLength
	for k, v := range q.Header {
		req.Header[k] = v
	}
	if p.login != nil {
		req.Header.Del("Authorization")
	}
	if r.IgnoreRange {
		req.Header.Del("Range")
	}
	resp, err := p.client.RoundTrip(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		if _, ok := r.Header[k]; !ok {
			w.Header()[k] = v
		}
	}
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(max(0, resp.ContentLength-r.Cut)+int64(len(r.Add)), 10))
	}
	w.WriteHeader(resp.StatusCode)
	if q.Method == http.MethodHead {
		w.entry.Whole = true
		return
	}
	w.entry.Whole = r.pass(w, q, resp)
	w.broken = !w.entry.Whole
}

// pass copies the body as the rule wants it, and tells whether the client got
// all that it was promised.
func (r *Rule) pass(w *recorder, q *http.Request, resp *http.Response) bool {
	limit := int64(1) << 62
	if resp.ContentLength >= 0 {
		limit = max(0, resp.ContentLength-r.Cut-r.Short)
	}
	if r.Reset {
		limit = min(limit, r.After)
	}
	size := 32 << 10
	if r.Every > 0 {
		size = max(1, r.Piece)
	}
	body, buf := io.LimitReader(resp.Body, limit), make([]byte, size)
	for {
		n, err := body.Read(buf)
		for _, at := range r.Wrong {
			if i := at - w.entry.Bytes; i >= 0 && i < int64(n) {
				buf[i] ^= 1
			}
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return false
			}
			if r.Every > 0 {
				_ = http.NewResponseController(w.ResponseWriter).Flush()
				if !pause(q, r.Every) {
					return false
				}
			}
		}
		if err != nil {
			break
		}
	}
	if r.Reset || r.Short > 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		return false
	}
	_, err := io.WriteString(w, r.Add)
	return err == nil
}

// pause waits, unless the client goes away.
func pause(q *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-q.Context().Done():
		return false
	}
}

// recorder writes down what a client got.
type recorder struct {
	http.ResponseWriter
	entry  Served
	broken bool // the connection is to be reset
}

func (w *recorder) WriteHeader(status int) {
	w.entry.Status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.entry.Bytes += int64(n)
	return n, err
}

// reset ends the connection with a TCP reset, as a crashed machine's successor
// and many a firewall do.
func (w *recorder) reset() {
	conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	raw := conn
	if t, ok := conn.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	conn.Close()
}

// String tells what was asked, for a test's error message.
func (s Served) String() string {
	return fmt.Sprintf("%s %s %s: %d, %d bytes", s.Method, s.Path, s.Range, s.Status, s.Bytes)
}
