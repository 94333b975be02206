package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogin(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "1"))
	config := func(body string) string {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	auths := func(user, password string) string {
		return config(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host, base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
	}
	bin := t.TempDir()
	helper := "#!/bin/sh\nread host\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"me\",\"Secret\":\"secret\"}' \"$host\"\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", filepath.Dir(auths("me", "secret"))) // must not be read
	t.Setenv("DOCKER_AUTH_CONFIG", "{}")
	for _, basic := range []bool{false, true} {
		r.RequireLogin("me", "secret", basic)
		for name, c := range map[string]struct {
			file string
			ok   bool
		}{
			"auths": {auths("me", "secret"), true}, "wrong": {auths("me", "wrong"), false}, "none": {"", false},
			"missing file": {filepath.Join(t.TempDir(), "none"), false}, "broken": {config("{"), false},
			"store":  {config(`{"credsStore":"test"}`), true},
			"helper": {config(fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, r.Host)), true},
		} {
			s := newStore(t, Options{DockerConfig: c.file})
			_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{})
			if (err == nil) != c.ok {
				t.Errorf("%s, basic %v: %v", name, basic, err)
			}
			if !c.ok && name != "broken" && !errors.Is(err, ErrDenied) {
				t.Errorf("%s, basic %v: %v", name, basic, err)
			}
		}
	}
	r.RequireLogin("", "", false) // anonymous tokens, as on Docker Hub
	pullOK(t, newStore(t, Options{}), r.Host+"/app:1")
}

func TestPlainHTTPOnlyWhereTrusted(t *testing.T) {
	g := &plainGuard{inner: roundTrip(func(*http.Request) (*http.Response, error) { return nil, errReached }), insecure: []string{"mirror.example:80"}}
	for url, want := range map[string]bool{
		"http://127.0.0.1:5000/": true, "http://localhost:5000/": true, "http://[::1]:5000/": true, "https://example.com/": true,
		"http://mirror.example:80/": true, "http://mirror.example:81/": false, "http://example.com/": false, "http://10.0.0.1/": false,
	} {
		req, _ := http.NewRequest("GET", url, nil)
		if _, err := g.RoundTrip(req); errors.Is(err, errReached) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestNoTLS(t *testing.T) {
	s := newStore(t, Options{})
	how := newRegistries(Options{})
	how.transport = &plainGuard{inner: roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("server gave HTTP response to HTTPS client")
	})}
	s.registries.Store(how)
	_, err := s.Pull(ctx, "10.1.2.3:5000/app:1", PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "registry 10.1.2.3:5000: no TLS there, and 10.1.2.3:5000 is not trusted with plain HTTP; list it as insecure if it is") {
		t.Error(err)
	}
}

var errReached = errors.New("reached")

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"https://registry.example/x", "https://cdn.example/y", true}, {"https://registry.example/x", "http://169.254.169.254/y", false},
		{"https://registry.example/x", "https://127.0.0.1/y", false}, {"https://10.0.0.5/x", "https://10.0.0.6/y", true},
	} {
		from, _ := http.NewRequest("GET", c.from, nil)
		to, _ := http.NewRequest("GET", c.to, nil)
		if err := checkRedirect(to, []*http.Request{from}); (err == nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
