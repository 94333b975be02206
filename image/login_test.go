package image

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	text := `{"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "r.example.com/team": {"auth": "YTpi"}}, "credHelpers": {"public.ecr.aws": "ecr-login"}}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{DockerConfig: config, Registries: map[string]Registry{
		"*":          {Mirrors: []string{"https://mirror.example.com/hub", "plain.example.com:5000/x"}},
		"docker.io":  {},
		"Q.Example.": {},
	}}
	want := []string{"docker.io", "mirror.example.com", "plain.example.com:5000", "public.ecr.aws", "q.example.", "r.example.com"}
	if got := o.Hosts(); !slices.Equal(got, want) {
		t.Errorf("hosts %q", got)
	}
	for ref, want := range map[string]string{"nginx": "docker.io", "localhost:5000/a:b": "localhost:5000", "r.example.com/x@sha256:": ""} {
		if got := HostOf(ref); got != want {
			t.Errorf("host of %s: %q", ref, got)
		}
	}
}

// guarded is a registry with a token service, for one user.
func guarded(t *testing.T) string {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if user, pass, _ := r.BasicAuth(); user != "me" || pass != "right" || r.URL.Query().Has("scope") {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"token": "good"}`)
		case r.URL.Path != "/v2/":
			t.Errorf("asked for %s", r.URL)
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestLoginIsLookedFor(t *testing.T) {
	host, file := guarded(t), filepath.Join(t.TempDir(), "password")
	o := Options{Registries: map[string]Registry{host: {Credentials: &Credentials{Username: "me", PasswordFile: file}}}}
	login := func(ask bool) (Login, error) { return o.Login(context.Background(), host, ask) }

	if _, err := login(false); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a file: %v", err)
	}
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	if l, err := login(false); err != nil || l.Anonymous || l.From != "password_file "+file {
		t.Errorf("%+v, %v", l, err)
	}
	l, err := login(true)
	if err == nil || !strings.Contains(err.Error(), "password_file "+file) || strings.Contains(err.Error(), "wrong") || l.Date.IsZero() {
		t.Errorf("a wrong password: %+v, %v", l, err)
	}
	write("right")
	if l, err := login(true); err != nil || l.Date.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	o = Options{}
	if l, err := login(false); err != nil || !l.Anonymous {
		t.Errorf("nothing is configured: %+v, %v", l, err)
	}
}
