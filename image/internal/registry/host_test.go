package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
)

func writeFile(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGate: one 429 stops everybody, and nobody asks before its time.
func TestGate(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	p.Do(imagetest.Rule{Times: 1, Status: 429, RetryAfter: "1"})
	c := newClient(t, Options{})
	begin := time.Now()
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			_, err := c.repo(t, p.Host+"/app").Manifest(ctx, "1")
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if time.Since(begin) < time.Second {
		t.Error("asked before its time")
	}
	if n := p.Count("", ""); n > 2*cap(done) {
		t.Errorf("%d requests", n)
	}
}

func TestGateTooLong(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	p.Do(imagetest.Rule{Status: 429, RetryAfter: "86400"})
	c := newClient(t, Options{})
	for range 2 {
		_, err := c.repo(t, p.Host+"/app").Manifest(ctx, "1")
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "too many requests; it wants none until 2") {
			t.Error(err)
		}
	}
	if p.Count("", "") != 1 {
		t.Error(p.Log(""))
	}
	l := c.Limits()
	if len(l) != 1 || l[0].Registry != p.Host || time.Until(l[0].Until) < 23*time.Hour || l[0].Limit != -1 {
		t.Errorf("%+v", l)
	}
}

func Test503WithRetryAfter(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	p.Do(imagetest.Rule{Status: 503, RetryAfter: time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)})
	_, err := newClient(t, Options{}).repo(t, p.Host+"/app").Manifest(ctx, "1")
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "wants none until") || p.Count("", "") != 1 {
		t.Error(err, p.Log(""))
	}
}

// TestRetryWaits for the gate, for as long as it takes and not a moment longer.
func TestRetryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{Backoff: func(n int) time.Duration { return time.Duration(n) * time.Second }})
		r := c.repo(t, "reg.example/app")
		g := r.places[0].host.gate
		busy := failureOf("reg.example", &networkError{error: errors.New("reset")})
		begin := time.Now()
		if err := r.Retry(ctx, 3, busy); err != nil || time.Since(begin) != 3*time.Second {
			t.Error(err, time.Since(begin))
		}
		g.close(90*time.Second, true, nil)
		begin = time.Now()
		if err := r.Retry(ctx, 1, busy); err != nil || time.Since(begin) != 90*time.Second {
			t.Error(err, time.Since(begin))
		}
		g.close(maxWait+time.Second, true, nil)
		begin = time.Now()
		if err := r.Retry(ctx, 1, busy); !errors.Is(err, ErrUnavailable) || time.Since(begin) != 0 {
			t.Error(err, time.Since(begin))
		}
		cctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		time.Sleep(2 * time.Second)
		if err := r.Retry(cctx, 1, busy); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		var patient gate
		patient.close(1e9*time.Second, true, nil)
		if d := time.Until(patient.closedUntil()); d != maxClosed {
			t.Error("closed for", d)
		}
		// Without a wish of the registry the gate closes for longer and longer.
		time.Sleep(time.Hour)
		for n := 1; n < 4; n++ {
			g.close(0, false, c.opts.Backoff)
			if d := time.Until(g.closedUntil()); d != time.Duration(n)*time.Second {
				t.Error(n, d)
			}
			time.Sleep(time.Minute)
		}
		g.opened()
		g.close(0, false, c.opts.Backoff)
		if d := time.Until(g.closedUntil()); d != time.Second {
			t.Error(d)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0": 0, "Sun, 01 Mar 2026 12:01:00 GMT": time.Minute, "Sun, 01 Mar 2026 11:00:00 GMT": 0,
		"1772366430": 30 * time.Second, "9999999999999999999": -1, "-5": -1, "soon": -1, "": -1,
	} {
		got, ok := retryAfter(http.Header{"Retry-After": {s}}, now)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v %v", s, got, ok)
		}
	}
	if got, ok := retryAfter(http.Header{"X-Retry-After": {"1772366430"}}, now); !ok || got != 30*time.Second {
		t.Error(got, ok)
	}
	for s, want := range map[string]int{"100;w=21600": 100, "7": 7, "": -1, "x;w=1": -1, "-3": -1, "0;w=x": 0} {
		if got, _, _ := quota(s); got != want {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestTLS(t *testing.T) {
	o := newOrigin(t)
	ca, other, dir := imagetest.NewCA(), imagetest.NewCA(), t.TempDir()
	if err := ca.Write(dir, "me"); err != nil {
		t.Fatal(err)
	}
	wrong := t.TempDir()
	if err := other.Write(wrong, "you"); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	p := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.Server(nil)})
	strict := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.Server(ca)})
	for name, c := range map[string]struct {
		host string
		set  Host
		want string // of the error
	}{
		"private CA":         {p.Host, Host{CA: file("ca.pem")}, ""},
		"not trusted":        {p.Host, Host{}, "unknown authority"},
		"another CA":         {p.Host, Host{CA: filepath.Join(wrong, "ca.pem")}, "unknown authority"},
		"no such file":       {p.Host, Host{CA: file("none.pem")}, "certificate authority: open " + file("none.pem")},
		"no certificate":     {p.Host, Host{CA: file("me.key")}, "no certificate in"},
		"client certificate": {strict.Host, Host{CA: file("ca.pem"), Cert: file("me.pem"), Key: file("me.key")}, ""},
		"none":               {strict.Host, Host{CA: file("ca.pem")}, "it asks for a client certificate, and none is configured"},
		"of another CA":      {strict.Host, Host{CA: file("ca.pem"), Cert: filepath.Join(wrong, "you.pem"), Key: filepath.Join(wrong, "you.key")}, "certificate"},
		"key missing":        {strict.Host, Host{CA: file("ca.pem"), Cert: file("me.pem")}, "client certificate: "},
		"plain server":       {o.Host, Host{CA: file("ca.pem")}, "no TLS there"},
	} {
		t.Run(name, func(t *testing.T) {
			before := p.Count("", "") + strict.Count("", "")
			_, err := newClient(t, Options{Hosts: map[string]Host{c.host: c.set}}).repo(t, c.host+"/app").Manifest(ctx, "1")
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.host)) {
				t.Error(err)
			}
			if err != nil && p.Count("", "")+strict.Count("", "") != before {
				t.Error("asked all the same")
			}
		})
	}
}

// TestCertificatesAreReadAnew: a renewed certificate counts without a restart.
func TestCertificatesAreReadAnew(t *testing.T) {
	o := newOrigin(t)
	ca, other := imagetest.NewCA(), imagetest.NewCA()
	p := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.Server(nil)})
	file := writeFile(t, other.PEM)
	r := newClient(t, Options{Hosts: map[string]Host{p.Host: {CA: file}}}).repo(t, p.Host+"/app")
	if _, err := r.Manifest(ctx, "1"); err == nil {
		t.Fatal("trusted")
	}
	if err := os.WriteFile(file+".new", ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Manifest(ctx, "1"); err != nil {
		t.Error(err)
	}
}

// TestWrongClock: certificates that are not valid now may be right, and our
// clock wrong.
func TestWrongClock(t *testing.T) {
	o := newOrigin(t)
	ca := imagetest.NewCA()
	now := time.Now()
	for _, valid := range [][2]time.Time{{now.Add(time.Hour), now.Add(2 * time.Hour)}, {now.Add(-2 * time.Hour), now.Add(-time.Hour)}} {
		p := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.ServerAt(nil, valid[0], valid[1])})
		waits := 0
		c := newClient(t, Options{Hosts: map[string]Host{p.Host: {CA: writeFile(t, ca.PEM)}}, Backoff: func(int) time.Duration { waits++; return 0 }})
		_, err := c.repo(t, p.Host+"/app").Manifest(ctx, "1")
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the clock of this machine says "+now.UTC().Format("2006-01-02T")) || waits < 2 {
			t.Error(waits, err)
		}
	}
}

// TestRedirectTargetIsTrustedAsItsOrigin is: a private CA counts for where the
// registry's blobs lie, too, but the client certificate is not shown there.
func TestRedirectTargetIsTrustedAsItsOriginIs(t *testing.T) {
	o := newOrigin(t)
	ca, dir := imagetest.NewCA(), t.TempDir()
	if err := ca.Write(dir, "me"); err != nil {
		t.Fatal(err)
	}
	set := Host{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "me.pem"), Key: filepath.Join(dir, "me.key")}
	p := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.Server(ca)})
	shown := -1
	cdn := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.Server(nil)})
	cdn.Do(imagetest.Rule{Match: func(q *http.Request) bool { shown = len(q.TLS.PeerCertificates); return false }})
	p.Do(imagetest.Rule{Path: "/blobs/", Redirect: "https://" + cdn.Host})
	r := newClient(t, Options{Hosts: map[string]Host{p.Host: set}}).repo(t, p.Host+"/app")
	if _, err := readBlob(t, r, o.layer); err != nil || shown != 0 {
		t.Error(shown, err)
	}
}

// TestLoopbackWithOrWithoutTLS: loopback needs no settings to be spoken to in
// plain HTTP, and TLS is found out.
func TestLoopbackWithOrWithoutTLS(t *testing.T) {
	o := newOrigin(t)
	ca := imagetest.NewCA()
	p := o.proxied(t, imagetest.FaultProxyOptions{TLS: ca.Server(nil)})
	for host, want := range map[string]string{o.Host: "", p.Host: "unknown authority"} {
		r := newClient(t, Options{}).repo(t, host+"/app")
		for range 2 {
			if _, err := r.Manifest(ctx, "1"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
}

func TestPlainHTTPOnlyWhereTrusted(t *testing.T) {
	c := newClient(t, Options{Hosts: map[string]Host{"listed.example:80": {Insecure: true}}})
	for url, want := range map[string]bool{
		"http://10.1.2.3/": false, "http://example.com/": false, "http://listed.example:81/": false, "http://listed.example:80/": true,
		"http://127.0.0.1:1/": true, "http://[::1]:1/": true, "http://x.localhost:1/": true,
	} {
		cctx, cancel := context.WithCancel(ctx)
		cancel() // nothing is really asked
		req, _ := http.NewRequestWithContext(cctx, "GET", url, nil)
		_, err := c.send(c.host(req.URL.Host, nil), req)
		var plain *plainHTTPError
		if errors.As(err, &plain) == want {
			t.Errorf("%s: %v", url, err)
		}
	}
	if got := c.repo(t, "listed.example:80/app").places[0].schemeNow(); got != "http" {
		t.Error(got)
	}
	for _, n := range []string{"10.1.2.3:5000/app", "reg.local/app", "example.com/app"} {
		if got := c.repo(t, n).places[0].schemeNow(); got != "https" {
			t.Errorf("%s: %s", n, got)
		}
	}
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"https://registry.example/x", "https://cdn.example/y", true}, {"https://registry.example/x", "http://169.254.169.254/y", false},
		{"https://registry.example/x", "https://127.0.0.1/y", false}, {"https://10.0.0.5/x", "https://10.0.0.6/y", true},
		{"https://registry.example/x", "https://[::ffff:10.0.0.1]/y", false},
		{"http://10.0.0.5/x", "http://169.254.169.254/latest/meta-data/", false}, {"http://127.0.0.1:5000/x", "http://[fd00:ec2::254]/y", false},
		{"http://10.0.0.5/x", "http://[::ffff:169.254.169.254]:80/y", false}, {"http://169.254.1.1/x", "http://169.254.1.1:81/y", true},
	} {
		from, _ := http.NewRequest("GET", c.from, nil)
		to, _ := http.NewRequest("GET", c.to, nil)
		if err := checkRedirect(from.URL, to.URL); (err == nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestProxyPerHost: a host's own proxy comes before the one for all, and may be
// none.
func TestProxyPerHost(t *testing.T) {
	o := newOrigin(t)
	seen := ""
	proxy := serve(t, func(w http.ResponseWriter, q *http.Request) {
		seen = q.Host
		o.ServeHTTP(w, q)
	})
	c := newClient(t, Options{Hosts: map[string]Host{
		"a.example": {Insecure: true, Proxy: "http://" + proxy}, o.Host: {Insecure: true, Proxy: "none"},
	}, Proxy: func(*http.Request) (*url.URL, error) { return nil, errors.New("must not be asked") }})
	if _, err := c.repo(t, "a.example/app").Manifest(ctx, "1"); err != nil || seen != "a.example" {
		t.Error(seen, err)
	}
	if _, err := c.repo(t, o.Host+"/app").Manifest(ctx, "1"); err != nil {
		t.Error(err)
	}
	if _, err := c.repo(t, "b.example/app").Manifest(ctx, "1"); err == nil || !strings.Contains(err.Error(), "must not be asked") {
		t.Error(err)
	}
}

// TestTrickle: an answer that never ends ends the attempt.
func TestTrickle(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	attempts := 0 // not what the proxy has seen: an attempt can end before it gets there
	c := newClient(t, Options{Backoff: func(int) time.Duration { attempts++; return 0 }})
	c.patience = 50 * time.Millisecond
	for _, rule := range []imagetest.Rule{{Every: time.Second}, {Hang: true}} {
		p.Do(rule)
		attempts = 0
		_, err := c.repo(t, p.Host+"/app").Manifest(ctx, "1")
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no answer in time") {
			t.Errorf("%+v: %v", rule, err)
		}
		p.Close()
		if n := p.Count("", ""); attempts != maxAttempts || n > maxAttempts {
			t.Errorf("%d attempts, %d requests", attempts, n)
		}
		p = o.proxied(t, imagetest.FaultProxyOptions{})
	}
}

// TestInherit: a changed configuration does not open a closed gate.
func TestInherit(t *testing.T) {
	o := newOrigin(t)
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	p.Do(imagetest.Rule{Status: 429, RetryAfter: "3600", Header: http.Header{"Ratelimit-Remaining": {"0;w=60"}}})
	old, fresh := newClient(t, Options{}), newClient(t, Options{})
	if _, err := old.repo(t, p.Host+"/app").Manifest(ctx, "1"); err == nil {
		t.Fatal("no error")
	}
	fresh.Inherit(old)
	if _, err := fresh.repo(t, p.Host+"/app").Manifest(ctx, "1"); err == nil || p.Count("", "") != 1 {
		t.Error(err, p.Log(""))
	}
	if l := fresh.Limits(); len(l) != 1 || l[0].Remaining != 0 || l[0].Until.IsZero() {
		t.Errorf("%+v", l)
	}
}
