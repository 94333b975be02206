package image

import (
	"bytes"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/auth"
	"github.com/wherry-run/wherry/image/auth/ecr"
	"github.com/wherry-run/wherry/image/auth/ecr/sdk"
	"github.com/wherry-run/wherry/image/imagetest"
)

// secretFile makes a file that only its owner may read.
func secretFile(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func password(t *testing.T, user, body string) *Credentials {
	return &Credentials{Username: user, PasswordFile: secretFile(t, body)}
}

// everywhere has credentials for every host.
type everywhere struct{}

func (everywhere) Resolve(authn.Resource) (authn.Authenticator, error) {
	return auth.New(authn.AuthConfig{Username: "keychain", Password: "p"}, "the keychain"), nil
}

func TestOrderOfCredentials(t *testing.T) {
	config := secretFile(t, `{"auths":{"file.example":{"username":"config","password":"p"},"own.example":{"username":"config","password":"p"},
		"bare.example":{"username":"config","password":"p"},"https://index.docker.io/v1/":{"username":"config","password":"p"}}}`)
	o := Options{DockerConfig: config, Keychain: everywhere{}, Registries: map[string]Registry{
		"own.example": {Credentials: password(t, "own", "p")},
		"docker.io":   {Credentials: password(t, "hub", "p")},
	}}
	starred := o
	starred.Registries = map[string]Registry{"own.example": o.Registries["own.example"], "bare.example": {}, "*": {Credentials: password(t, "star", "p")}}
	for _, tc := range []struct {
		what    string
		options Options
		pull    *Credentials
		repo    string
		want    string
	}{
		{"the pull's", o, password(t, "pull", "p"), "own.example/x", "pull"},
		{"the pull's config, which has none", o, &Credentials{DockerConfig: secretFile(t, "{}")}, "own.example/x", "own"},
		{"the registry's", o, nil, "own.example/x", "own"},
		{"Docker Hub's", o, nil, "nginx", "hub"},
		{"the config's", o, nil, "file.example/x", "config"},
		{"the keychain's", o, nil, "other.example/x", "keychain"},
		{"those of all others", starred, nil, "other.example/x", "star"},
		{"the registry's before those of all others", starred, nil, "own.example/x", "own"},
		{"not those of all others", starred, nil, "bare.example/x", "config"},
		{"nobody's", Options{}, nil, "own.example/x", ""},
	} {
		r, err := name.NewRepository(tc.repo)
		if err != nil {
			t.Fatal(err)
		}
		a, err := authn.Resolve(ctx, newKeychains(tc.options).forPull(tc.pull), r)
		if err != nil {
			t.Fatal(tc.what, err)
		}
		c, err := authn.Authorization(ctx, a)
		if err != nil || c.Username != tc.want || (auth.Origin(a) == "") != (tc.want == "") {
			t.Errorf("%s: %q from %q, %v", tc.what, c.Username, auth.Origin(a), err)
		}
	}
}

func TestCredentialsOfOnePull(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "x"))
	r.RequireLogin("me", "pass", true)
	s := newStore(t, Options{})
	if _, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{}); !errors.Is(err, ErrDenied) {
		t.Fatal(err)
	}
	wrong := password(t, "me", "wr0ng")
	_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{Credentials: wrong})
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "password_file "+wrong.PasswordFile) || strings.Contains(err.Error(), "wr0ng") {
		t.Fatal(err)
	}
	_, err = s.Pull(ctx, r.Host+"/app:1", PullOptions{Credentials: &Credentials{TokenFile: "/nonexistent/token"}})
	if err == nil || !strings.Contains(err.Error(), r.Host+": the pull's own credentials: token_file /nonexistent/token: no such file") {
		t.Fatal(err)
	}
	if _, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{Credentials: password(t, "me", "pass\n")}); err != nil {
		t.Fatal(err)
	}
}

func TestConfiguredCredentialsNameTheirKey(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "x"))
	r.RequireLogin("me", "pass", true)
	s := newStore(t, Options{Registries: map[string]Registry{r.Host: {Credentials: &Credentials{Username: "me"}}}})
	_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "registries: "+r.Host+": credentials: username and password_file need each other") {
		t.Fatal(err)
	}
	s.Reconfigure(Options{Registries: map[string]Registry{r.Host: {Credentials: password(t, "me", "pass")}}})
	pullOK(t, s, r.Host+"/app:1")
}

const ecrHost = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// ecrStore is a store that reaches a fake ECR under a registry's real name.
func ecrStore(t *testing.T, r *imagetest.Registry, log *bytes.Buffer, config string) (*Store, *imagetest.ECR) {
	t.Helper()
	e := imagetest.StartECR()
	t.Cleanup(e.Close)
	proxy, err := imagetest.StartProxy(e.Front(r))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	for _, kv := range e.InstanceEnviron() {
		key, value, _ := strings.Cut(kv, "=")
		t.Setenv(key, value)
	}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newStore(t, Options{
		Logger: logger, DockerConfig: config, Keychain: ecr.New(ecr.Options{Logger: logger, Fetch: sdk.Fetch(logger)}),
		Registries: map[string]Registry{"*": {CA: secretFile(t, string(proxy.CA)), Proxy: proxy.URL}},
	})
	return s, e
}

func TestPullFromECR(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "x"))
	push(t, r, "app:2", oneFile("f", "y"))
	push(t, r, "app:3", oneFile("f", "z"))
	var log bytes.Buffer
	s, e := ecrStore(t, r, &log, "")
	pullOK(t, s, ecrHost+"/app:1")
	pullOK(t, s, ecrHost+"/app:2")
	if got := e.Requests("GetAuthorizationToken"); len(got) != 1 || got[0] != "ecr GetAuthorizationToken eu-west-1" {
		t.Errorf("%q", got)
	}
	// The token dies before its time, with the role's keys; 403 says so.
	e.ExpireTokens()
	e.RevokeKeys()
	pullOK(t, s, ecrHost+"/app:3")
	if got := e.Requests("GetAuthorizationToken"); len(got) != 2 {
		t.Errorf("%q", got)
	}
	pullOK(t, s, "public.ecr.aws/app:1")
	if got := e.Requests("ecr-public"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	// No token, nor what it goes over the wire as, is written anywhere.
	var written strings.Builder
	written.WriteString(log.String())
	for _, root := range []string{os.Getenv("HOME"), s.root} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && root != s.root && path != root {
				t.Errorf("%s was written", path)
			}
			if err == nil && d.Type().IsRegular() {
				b, rerr := os.ReadFile(path)
				written.Write(b)
				return rerr
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range e.Passwords() {
		for _, form := range []string{p, base64.StdEncoding.EncodeToString([]byte("AWS:" + p))} {
			if strings.Contains(written.String(), form) {
				t.Error("a secret was written")
			}
		}
	}
}

// A token that dies in the middle of a pull is replaced, once for all layers.
func TestTokenDiesDuringAPull(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", imagetest.Image{Layers: []imagetest.Layer{
		imagetest.NewLayer(entry{Name: "a", Body: noise(100)}), imagetest.NewLayer(entry{Name: "b", Body: noise(200)}),
		imagetest.NewLayer(entry{Name: "c", Body: noise(300)}), imagetest.NewLayer(entry{Name: "d", Body: noise(400)}),
	}})
	var log bytes.Buffer
	s, e := ecrStore(t, r, &log, "")
	var once sync.Once
	r.Break(imagetest.Fault{Path: "/manifests/", Before: func(*http.Request) { once.Do(e.ExpireTokens) }})
	pullOK(t, s, ecrHost+"/app:1")
	if got := len(e.Requests("GetAuthorizationToken")); got != 2 {
		t.Errorf("%d tokens were asked for", got)
	}
}

// What `docker login` left twelve hours ago does not stand before the role.
func TestStaleLoginToECR(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "x"))
	var log bytes.Buffer
	s, e := ecrStore(t, r, &log, secretFile(t, `{"auths":{"`+ecrHost+`":{"username":"AWS","password":"stale"}}}`))
	pullOK(t, s, ecrHost+"/app:1")
	if got := len(e.Requests("GetAuthorizationToken")); got != 1 {
		t.Errorf("%d tokens were asked for", got)
	}
}

func TestECRErrors(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "x"))
	var log bytes.Buffer
	s, e := ecrStore(t, r, &log, "")
	e.Fail("AccessDeniedException", http.StatusBadRequest, 1)
	_, err := s.Pull(ctx, ecrHost+"/app:1", PullOptions{})
	for _, want := range []string{ecrHost, "eu-west-1", "the instance role", "AccessDeniedException"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	// A token that is good, for a registry that refuses it all the same.
	e.SetTokenLife(-1)
	_, err = s.Pull(ctx, ecrHost+"/app:1", PullOptions{})
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "ECR, with AWS credentials from the instance role") {
		t.Error(err)
	}
	if got := len(e.Requests("GetAuthorizationToken")); got != 3 {
		t.Errorf("%d tokens were asked for", got)
	}
}
