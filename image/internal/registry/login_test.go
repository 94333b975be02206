package registry

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/wherry-run/wherry/image/imagetest"
)

func TestLogins(t *testing.T) {
	o := newOrigin(t)
	me := basicAuth("me", "secret")
	for name, c := range map[string]struct {
		login  *imagetest.Login
		creds  authn.AuthConfig
		ok     bool
		tokens int
	}{
		"none":               {nil, me, true, 0},
		"basic":              {&imagetest.Login{User: "me", Password: "secret", Basic: true}, me, true, 0},
		"auth field":         {&imagetest.Login{User: "me", Password: "secret", Basic: true}, authn.AuthConfig{Auth: "bWU6c2VjcmV0"}, true, 0},
		"basic, wrong":       {&imagetest.Login{User: "me", Password: "secret", Basic: true}, basicAuth("me", "wrong"), false, 0},
		"basic, none":        {&imagetest.Login{User: "me", Password: "secret", Basic: true}, authn.AuthConfig{}, false, 0},
		"token":              {&imagetest.Login{User: "me", Password: "secret"}, me, true, 1},
		"token, wrong":       {&imagetest.Login{User: "me", Password: "secret"}, basicAuth("me", "wrong"), false, 1},
		"token, anonymous":   {&imagetest.Login{User: "me", Password: "secret", Anonymous: true}, authn.AuthConfig{}, true, 1},
		"token, nobody":      {&imagetest.Login{User: "me", Password: "secret"}, authn.AuthConfig{}, false, 1},
		"identity token":     {&imagetest.Login{IdentityToken: "id"}, authn.AuthConfig{IdentityToken: "id"}, true, 1},
		"identity, wrong":    {&imagetest.Login{IdentityToken: "id"}, authn.AuthConfig{IdentityToken: "di"}, false, 1},
		"no OAuth2":          {&imagetest.Login{User: "me", Password: "secret"}, authn.AuthConfig{IdentityToken: "id", Username: "me", Password: "secret"}, true, 2},
		"a token of our own": {&imagetest.Login{User: "me", Password: "secret"}, authn.AuthConfig{RegistryToken: "mine"}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := o.proxied(t, imagetest.FaultProxyOptions{Login: c.login})
			k := &keychain{host: p.Host, config: c.creds}
			r := newClient(t, Options{Auth: k}).repo(t, p.Host+"/app")
			_, err := r.Manifest(ctx, "1")
			if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrDenied) {
				t.Fatal(err)
			}
			if c.login != nil && len(c.login.Asked()) != c.tokens && !(c.tokens == 1 && !c.ok) {
				t.Errorf("%q", c.login.Asked())
			}
			if c.login == nil && k.asked != 0 {
				t.Error("looked for credentials that nobody wanted")
			}
		})
	}
}

// TestRoundTrips: a login costs what it must, and once.
func TestRoundTrips(t *testing.T) {
	o := newOrigin(t)
	l := &imagetest.Login{Anonymous: true, ExpiresIn: 300}
	p := o.proxied(t, imagetest.FaultProxyOptions{Login: l})
	c := newClient(t, Options{})
	for i, want := range []int{4, 2} { // 401, token, manifest, blob; then manifest, blob
		before := p.Count("", "")
		r := c.repo(t, p.Host+"/app")
		if _, err := r.Manifest(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Small(ctx, o.layer, 1<<20); err != nil {
			t.Fatal(err)
		}
		if n := p.Count("", "") - before; n != want {
			t.Errorf("pull %d: %d requests\n%v", i, n, p.Log(""))
		}
	}
	// Another repository: the challenge is known, the scope is another one.
	before := p.Count("", "")
	if _, err := c.repo(t, p.Host+"/other").Manifest(ctx, "1"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if n := p.Count("", "") - before; n != 2 || !reflect.DeepEqual(l.Asked(), []string{"GET repository:app:pull", "GET repository:other:pull"}) {
		t.Errorf("%d requests, %q", n, l.Asked())
	}
}

func TestTokenThatEnds(t *testing.T) {
	o := newOrigin(t)
	for name, l := range map[string]*imagetest.Login{
		"after three requests": {Anonymous: true, Uses: 3, ExpiresIn: 300},
		"at once":              {Anonymous: true, Uses: 1, ExpiresIn: 300},
	} {
		p := o.proxied(t, imagetest.FaultProxyOptions{Login: l})
		r := newClient(t, Options{}).repo(t, p.Host+"/app")
		for range 8 {
			if _, err := r.Manifest(ctx, "1"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// All that run when it ends share the new one.
	l := &imagetest.Login{Anonymous: true, ExpiresIn: 300}
	p := o.proxied(t, imagetest.FaultProxyOptions{Login: l})
	r := newClient(t, Options{}).repo(t, p.Host+"/app")
	if _, err := r.Manifest(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	l.Expire()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := r.Manifest(ctx, "1"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(l.Asked()); n != 2 {
		t.Errorf("%d tokens", n)
	}
}

// TestRefusedCredentials: after 401 or 403 the keychain looks again, once.
func TestRefusedCredentials(t *testing.T) {
	o := newOrigin(t)
	fresh := basicAuth("AWS", "new")
	for name, c := range map[string]struct {
		login  *imagetest.Login
		rule   *imagetest.Rule
		next   *authn.AuthConfig
		ok     bool
		max    int // requests
		reject int
	}{
		"basic 401":         {&imagetest.Login{User: "AWS", Password: "new", Basic: true}, nil, &fresh, true, 3, 1},
		"basic 401 for bad": {&imagetest.Login{User: "AWS", Password: "other", Basic: true}, nil, &fresh, false, 3, 1},
		"basic 401, same":   {&imagetest.Login{User: "AWS", Password: "new", Basic: true}, nil, nil, false, 2, 1},
		"token":             {&imagetest.Login{User: "AWS", Password: "new"}, nil, &fresh, true, 4, 1},
		"403":               {&imagetest.Login{User: "AWS", Password: "old", Basic: true}, &imagetest.Rule{Skip: 1, Times: 1, Status: 403}, &fresh, false, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := o.proxied(t, imagetest.FaultProxyOptions{Login: c.login})
			if c.rule != nil {
				p.Do(*c.rule)
			}
			k := &keychain{host: p.Host, config: basicAuth("AWS", "old"), next: c.next}
			_, err := newClient(t, Options{Auth: k}).repo(t, p.Host+"/app").Manifest(ctx, "1")
			if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrDenied) {
				t.Error(err)
			}
			if k.refused != c.reject || p.Count("", "") > c.max {
				t.Errorf("%d times invalid, %v", k.refused, p.Log(""))
			}
		})
	}
}

// TestHiddenFromStrangers: some registries answer 404 or 403 to strangers,
// without a challenge.
func TestHiddenFromStrangers(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		var asked []string
		s := serve(t, func(w http.ResponseWriter, q *http.Request) {
			asked = append(asked, q.URL.Path)
			_, _, ok := q.BasicAuth()
			switch {
			case ok:
				fmt.Fprint(w, "{}")
			case q.URL.Path == "/v2/":
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(401)
			default:
				w.WriteHeader(status)
			}
		})
		k := &keychain{host: s, config: basicAuth("me", "secret")}
		c := newClient(t, Options{Auth: k})
		for range 2 {
			if _, err := c.repo(t, s+"/app").Manifest(ctx, "1"); err != nil {
				t.Errorf("%d: %v", status, err)
			}
		}
		if len(asked) != 4 { // stranger, ping, known; known
			t.Errorf("%d: %q", status, asked)
		}
	}
}

// TestCredentialsStayAtHome: a redirect's target gets no Authorization header.
func TestCredentialsStayAtHome(t *testing.T) {
	o := newOrigin(t)
	var seen []string
	inner := o.Registry
	cdn := serve(t, func(w http.ResponseWriter, q *http.Request) {
		seen = append(seen, q.Header.Get("Authorization"))
		inner.ServeHTTP(w, q)
	})
	for name, l := range map[string]*imagetest.Login{
		"basic": {User: "me", Password: "secret", Basic: true}, "token": {User: "me", Password: "secret"},
	} {
		seen = nil
		p := o.proxied(t, imagetest.FaultProxyOptions{Login: l})
		r := newClient(t, Options{Auth: &keychain{host: p.Host, config: basicAuth("me", "secret")}}).repo(t, p.Host+"/app")
		if _, err := r.Manifest(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		p.Do(imagetest.Rule{Path: "/blobs/", Redirect: "http://" + cdn})
		body, at, err := r.Blob(ctx, o.layer, 5, -1)
		if err != nil || at != 5 {
			t.Fatal(at, err)
		}
		body.Close()
		if len(seen) != 1 || seen[0] != "" {
			t.Errorf("%s: %q", name, seen)
		}
		if e := p.Log("/blobs/")[0]; e.Authorization == "" {
			t.Errorf("%+v", e)
		}
	}
}

// TestExpiredRedirect: what a redirect's target refuses is no refused login.
func TestExpiredRedirect(t *testing.T) {
	o := newOrigin(t)
	cdn := serve(t, func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(403) })
	p := o.proxied(t, imagetest.FaultProxyOptions{})
	p.Do(imagetest.Rule{Path: "/blobs/", Redirect: "http://" + cdn, Times: 1})
	k := &keychain{host: p.Host, config: basicAuth("me", "secret")}
	r := newClient(t, Options{Auth: k}).repo(t, p.Host+"/app")
	_, _, err := r.Blob(ctx, o.layer, 0, -1)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), cdn+", where it redirects to, answers 403") || k.refused != 0 || r.Retry(ctx, 1, err) != nil {
		t.Error(err)
	}
	if _, err := readBlob(t, r, o.layer); err != nil {
		t.Error(err)
	}
	p.Do(imagetest.Rule{Redirect: "http://" + p.Host})
	if _, err := r.Manifest(ctx, "1"); err == nil || !strings.Contains(err.Error(), "too many redirects") {
		t.Error(err)
	}
}

func TestBadTokenServices(t *testing.T) {
	o := newOrigin(t)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		realm  string
		want   string
	}{
		"no json":      {func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, "hello") }, "", "gives no token"},
		"no token":     {func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, "{}") }, "", "gives no token"},
		"header break": {func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, `{"token":"a\r\nX: y"}`) }, "", "a token that is none"},
		"down":         {func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(502) }, "", "502"},
		"missing":      {http.NotFound, "", "token service"},
		"file":         {http.NotFound, "file:///etc/passwd", "unusable token service"},
		"plain":        {http.NotFound, "http://10.0.0.1/token", "not trusted with plain HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			realm := c.realm
			if realm == "" {
				realm = "http://" + serve(t, c.answer) + "/token"
			}
			p := o.proxied(t, imagetest.FaultProxyOptions{Login: &imagetest.Login{User: "me", Password: "secret", Realm: realm}})
			_, err := newClient(t, Options{Auth: &keychain{host: p.Host, config: basicAuth("me", "secret")}}).repo(t, p.Host+"/app").Manifest(ctx, "1")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
}

func TestParseChallenges(t *testing.T) {
	bearer := &challenge{realm: "https://a/token", service: "s"}
	for _, c := range []struct {
		headers []string
		want    *challenge
		scope   string
	}{
		{[]string{`Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"`}, bearer, "repository:x:pull,push"},
		{[]string{`bearer realm=https://a/token, service=s`}, bearer, ""},
		{[]string{`Basic realm="x"`, `Bearer realm="https://a/token",service="s"`}, bearer, ""},
		{[]string{`Basic realm="x, y=\"z", Bearer realm="https://a/token" , service="s"`}, bearer, ""},
		{[]string{`Bearer realm="https://a/token",service="s", Basic realm="x"`}, bearer, ""},
		{[]string{"Basic"}, &challenge{basic: true}, ""},
		{[]string{"Negotiate", `Digest realm="x", qop="auth"`, `Bearer scope="x"`, "", ",,", "=", `"`}, nil, ""},
	} {
		got, scope := parseChallenges(c.headers)
		if !reflect.DeepEqual(got, c.want) || scope != c.scope {
			t.Errorf("%q: %+v %q", c.headers, got, scope)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/token",service="s",scope="repository:x:pull,push", Basic realm="x\"y"`)
	f.Add(`=,"\`)
	f.Fuzz(func(t *testing.T, s string) {
		if c, _ := parseChallenges([]string{s}); c != nil && !c.basic && c.realm == "" {
			t.Errorf("%q: no realm", s)
		}
	})
}

// TestDockerHub: its names, its token service, its quota.
func TestDockerHub(t *testing.T) {
	o := newOrigin(t)
	l := &imagetest.Login{Anonymous: true, ExpiresIn: 300, Realm: "https://auth.docker.io/token"}
	front := o.proxied(t, imagetest.FaultProxyOptions{Login: l})
	front.Do(imagetest.Rule{Method: "HEAD", Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"76;w=21600"}}})
	var hosts []string
	p, err := imagetest.StartProxy(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		hosts = append(hosts, q.Host)
		if q.Host == "auth.docker.io" {
			l.ServeHTTP(w, q)
			return
		}
		q.URL.Path = strings.Replace(q.URL.Path, "/library/", "/", 1)
		front.ServeHTTP(w, q)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l.Anonymous = true
	c := newClient(t, Options{Hosts: map[string]Host{"docker.io": {CA: writeFile(t, p.CA), Proxy: p.URL}}})
	r := c.repo(t, "app")
	r.places[0].login.scope = "repository:app:pull" // the handler above takes library/ away
	if d, err := r.Head(ctx, "1"); err != nil || d != o.digest {
		t.Fatal(d, err)
	}
	if got := strings.Join(hosts, " "); got != "registry-1.docker.io auth.docker.io registry-1.docker.io" {
		t.Error(got)
	}
	limits := c.Limits()
	if len(limits) != 1 || limits[0].Registry != "docker.io" || limits[0].Limit != 100 || limits[0].Remaining != 76 || limits[0].Window.Hours() != 6 || limits[0].At.IsZero() {
		t.Errorf("%+v", limits)
	}
}
