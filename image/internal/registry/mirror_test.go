package registry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/wherry-run/wherry/image/imagetest"
)

func TestMirrorsInOrder(t *testing.T) {
	o := newOrigin(t)
	o.Require(&imagetest.Login{User: "me", Password: "secret"})
	nobody := serve(t, http.NotFound)
	for name, c := range map[string]struct {
		rule   imagetest.Rule // of the first mirror
		first  int            // requests that the first mirror gets for a manifest and a blob
		second int
	}{
		"well":           {imagetest.Rule{}, 2, 0},
		"5xx":            {imagetest.Rule{Status: 502}, 1, 2},
		"gone":           {imagetest.Rule{Status: 404}, 2, 2},
		"denied":         {imagetest.Rule{Status: 403}, 1, 2},
		"busy":           {imagetest.Rule{Status: 429, RetryAfter: "60"}, 1, 2},
		"reset":          {imagetest.Rule{Reset: true}, 1, 2},
		"wrong manifest": {imagetest.Rule{Path: "/manifests/", Wrong: []int64{5}}, 2, 1},
		"wrong size":     {imagetest.Rule{Path: "/blobs/", Cut: 5}, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			clean := newOrigin(t)
			one, two := clean.proxied(t, imagetest.FaultProxyOptions{}), clean.proxied(t, imagetest.FaultProxyOptions{})
			one.Do(c.rule)
			r := newClient(t, Options{Hosts: map[string]Host{o.Host: {Mirrors: []string{one.Host, two.Host, nobody}}}}).repo(t, o.Host+"/app")
			if m, err := r.Manifest(ctx, clean.digest); err != nil || m.Digest != clean.digest {
				t.Fatal(err)
			}
			if b, err := readBlob(t, r, clean.layer); err != nil || !bytes.Equal(b, clean.bytes) {
				t.Fatal(err)
			}
			if one.Count("", "") != c.first || two.Count("", "") != c.second {
				t.Errorf("first: %v\nsecond: %v", one.Log(""), two.Log(""))
			}
			for _, e := range append(one.Log(""), two.Log("")...) {
				if e.Query != "ns="+strings.Replace(o.Host, ":", "%3A", 1) || e.Authorization != "" {
					t.Errorf("%+v", e)
				}
			}
		})
	}
	if got := o.Requests(""); len(got) != 0 {
		t.Errorf("the registry itself was asked: %q", got)
	}
}

func TestMirrorPrefixAndOtherRegistries(t *testing.T) {
	var paths []string
	s := serve(t, func(w http.ResponseWriter, q *http.Request) {
		paths = append(paths, q.URL.RequestURI())
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = io.WriteString(w, "{}")
	})
	c := newClient(t, Options{Hosts: map[string]Host{
		"docker.io": {Mirrors: []string{s + "/hub"}},
		"*":         {Mirrors: []string{"http://" + s + "/v2/any/"}},
	}})
	for _, n := range []string{"nginx", "ghcr.io/a/b"} {
		if _, err := c.repo(t, n).Manifest(ctx, "1"); err != nil {
			t.Error(err)
		}
	}
	want := "/v2/hub/library/nginx/manifests/1?ns=docker.io /v2/any/a/b/manifests/1?ns=ghcr.io"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestErrorNamesEveryPlace(t *testing.T) {
	o := newOrigin(t)
	down := serve(t, func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(500) })
	empty := serve(t, http.NotFound)
	r := newClient(t, Options{Hosts: map[string]Host{o.Host: {Mirrors: []string{down, empty}}}}).repo(t, o.Host+"/app")
	_, err := r.Manifest(ctx, "none")
	want := "3 places tried: registry " + down + " answers 500 Internal Server Error; " + empty + ": no such image; " + o.Host + ": no such image"
	if !errors.Is(err, ErrNotFound) || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// TestMirrorWithLoginPage: 200 and a page of HTML is no answer.
func TestMirrorWithLoginPage(t *testing.T) {
	o := newOrigin(t)
	portal := serve(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, "<html>pay here") })
	r := newClient(t, Options{Hosts: map[string]Host{o.Host: {Mirrors: []string{portal}}}}).repo(t, o.Host+"/app")
	if m, err := r.Manifest(ctx, "1"); err != nil || m.Digest != o.digest {
		t.Error(m, err)
	}
	if b, err := readBlob(t, r, o.layer); err != nil || !bytes.Equal(b, o.bytes) {
		t.Error(err)
	}
}

// TestMirrorRests: what failed once is not asked for each blob, but before
// giving up.
func TestMirrorRests(t *testing.T) {
	o := newOrigin(t)
	m, up := o.proxied(t, imagetest.FaultProxyOptions{}), o.proxied(t, imagetest.FaultProxyOptions{})
	m.Do(imagetest.Rule{Status: 500, Times: 1})
	c := newClient(t, Options{Hosts: map[string]Host{up.Host: {Mirrors: []string{m.Host}}}})
	for range 3 {
		if _, err := c.repo(t, up.Host+"/app").Manifest(ctx, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if m.Count("", "") != 1 || up.Count("", "") != 3 {
		t.Error(m.Log(""), up.Log(""))
	}
	up.Do(imagetest.Rule{Status: 500})
	if _, err := c.repo(t, up.Host+"/app").Manifest(ctx, "1"); err != nil {
		t.Error(err)
	}
	if m.Count("", "") != 2 {
		t.Error(m.Log(""))
	}
}

func TestRestIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{gate: &gate{}}
		want := firstRest
		for range 12 {
			h.failed()
			h.failed() // together
			time.Sleep(want - time.Nanosecond)
			if !h.resting() {
				t.Fatalf("asked again before %s", want)
			}
			time.Sleep(time.Nanosecond)
			if h.resting() {
				t.Fatalf("not asked after %s", want)
			}
			want = min(2*want, maxRest)
		}
		h.failed()
		h.worked()
		if h.resting() {
			t.Error("rests after a success")
		}
	})
}

// TestLyingMirror: wrong bytes of a blob are found by the caller, who says so.
func TestLyingMirror(t *testing.T) {
	o := newOrigin(t)
	m, up := o.proxied(t, imagetest.FaultProxyOptions{}), o.proxied(t, imagetest.FaultProxyOptions{})
	m.Do(imagetest.Rule{Path: "/blobs/", Wrong: []int64{7}})
	r := newClient(t, Options{Hosts: map[string]Host{up.Host: {Mirrors: []string{m.Host}}}}).repo(t, up.Host+"/app")
	b, err := readBlob(t, r, o.layer)
	if err != nil || bytes.Equal(b, o.bytes) {
		t.Fatal(err)
	}
	lie := mismatchOf(o.layer, b)
	if err := r.Retry(ctx, 1, lie); err != nil {
		t.Fatal(err)
	}
	if b, err = readBlob(t, r, o.layer); err != nil || !bytes.Equal(b, o.bytes) || m.Count("", "") != 1 {
		t.Error(err, m.Log(""))
	}
	if r.Retry(ctx, 1, lie) == nil {
		t.Error("the registry itself is asked again and again")
	}
	// Small finds it out itself.
	r = newClient(t, Options{Hosts: map[string]Host{up.Host: {Mirrors: []string{m.Host}}}}).repo(t, up.Host+"/app")
	if b, err := r.Small(ctx, o.layer, 1<<20); err != nil || !bytes.Equal(b, o.bytes) {
		t.Error(err)
	}
}

// TestMirrorBreaksInTheMiddle: the rest comes from the next place.
func TestMirrorBreaksInTheMiddle(t *testing.T) {
	o := newOrigin(t)
	m, up := o.proxied(t, imagetest.FaultProxyOptions{}), o.proxied(t, imagetest.FaultProxyOptions{})
	m.Do(imagetest.Rule{Path: "/blobs/", Reset: true, After: 10})
	r := newClient(t, Options{Hosts: map[string]Host{up.Host: {Mirrors: []string{m.Host}}}}).repo(t, up.Host+"/app")
	b, err := readBlob(t, r, o.layer)
	if len(b) != 10 || err == nil || r.Retry(ctx, 1, err) != nil {
		t.Fatal(len(b), err)
	}
	body, at, err := r.Blob(ctx, o.layer, 10, -1)
	if err != nil || at != 10 {
		t.Fatal(at, err)
	}
	defer body.Close()
	if rest, err := io.ReadAll(body); err != nil || !bytes.Equal(append(b, rest...), o.bytes) || up.Count("", "") != 1 {
		t.Error(err, up.Log(""))
	}
}

func TestMirrorHasItsOwnCredentials(t *testing.T) {
	o := newOrigin(t)
	m := o.proxied(t, imagetest.FaultProxyOptions{Login: &imagetest.Login{User: "mirror", Password: "its own"}})
	up := o.proxied(t, imagetest.FaultProxyOptions{Login: &imagetest.Login{User: "me", Password: "secret"}})
	hosts := map[string]Host{up.Host: {Mirrors: []string{m.Host}}}
	// The registry's credentials open only the registry, a pull's own too.
	for _, perPull := range []bool{false, true} {
		k := &keychain{host: up.Host, config: basicAuth("me", "secret")}
		r := newClient(t, Options{Hosts: hosts, Auth: k}).repo(t, up.Host+"/app")
		if perPull {
			r = newClient(t, Options{Hosts: hosts}).Repository(r.name, everywhere{k.config})
		}
		if _, err := r.Manifest(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Log("") {
			if e.Authorization != "" && !strings.HasPrefix(e.Authorization, "Bearer token-") {
				t.Errorf("the mirror saw %+v", e)
			}
		}
	}
	k := &keychain{host: m.Host, config: basicAuth("mirror", "its own")}
	before := up.Count("", "")
	if _, err := newClient(t, Options{Hosts: hosts, Auth: k}).repo(t, up.Host+"/app").Manifest(ctx, "1"); err != nil || up.Count("", "") != before {
		t.Error(err, up.Log(""))
	}
}

// everywhere has the same credentials for all hosts.
type everywhere struct{ authn.AuthConfig }

func (e everywhere) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(e.AuthConfig), nil
}

func basicAuth(user, password string) authn.AuthConfig {
	return authn.AuthConfig{Username: user, Password: password}
}

func TestParseMirror(t *testing.T) {
	for s, want := range map[string]mirrorURL{
		"m":                      {"", "m", ""},
		"m:5000/a/b/":            {"", "m:5000", "a/b"},
		"https://m/a":            {"https", "m", "a"},
		"http://127.0.0.1:1/v2/": {"http", "127.0.0.1:1", ""},
		"https://m/v2/hub":       {"https", "m", "hub"},
		"[::1]:5000":             {"", "[::1]:5000", ""},
	} {
		if got, err := parseMirror(s); err != nil || got != want {
			t.Errorf("%s: %+v %v", s, got, err)
		}
	}
	for _, s := range []string{"", "ftp://m", "https://", "https://me:pw@m", "m?x=y", "m#x", "http//m host"} {
		if got, err := parseMirror(s); err == nil {
			t.Errorf("%s: %+v", s, got)
		}
	}
	for want, h := range map[string]Host{
		`mirror "http://m": m is not trusted with plain HTTP`: {Mirrors: []string{"http://m"}},
		`mirror "ftp://m"`:      {Mirrors: []string{"ftp://m"}},
		"a key without":         {Key: "k"},
		`proxy: want "none" or`: {Proxy: "nowhere"},
	} {
		if _, err := New(Options{Hosts: map[string]Host{"x": h}}); err == nil || !strings.Contains(err.Error(), "registry x: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	if _, err := New(Options{Hosts: map[string]Host{"x": {Mirrors: []string{"http://m"}}, "m": {Insecure: true}}}); err != nil {
		t.Error(err)
	}
}

// TestMirrorHangs: a mirror that does not answer costs little, since somebody
// else has what is wanted.
func TestMirrorHangs(t *testing.T) {
	o := newOrigin(t)
	m := o.proxied(t, imagetest.FaultProxyOptions{})
	m.Do(imagetest.Rule{Hang: true})
	c := newClient(t, Options{Hosts: map[string]Host{o.Host: {Mirrors: []string{m.Host}}}})
	c.mirrorPatience = 50 * time.Millisecond
	if _, err := c.repo(t, o.Host+"/app").Manifest(ctx, "1"); err != nil {
		t.Error(err)
	}
	if n := m.Count("", "") + len(o.Requests("GET")); n < 1 {
		t.Errorf("%d requests", n)
	}
}
