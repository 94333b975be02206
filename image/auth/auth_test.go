package auth

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestDockerConfig(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	path := filepath.Join(t.TempDir(), "config.json")
	body := `{"auths":{
		"https://index.docker.io/v1/":{"auth":"` + b64("hub:1") + `"},
		"reg.example":{"auth":"` + b64("all:2") + `"},
		"reg.example/team/app":{"auth":"` + b64("team:3") + `"},
		"token.example":{"identitytoken":"t0k"}}}`
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string]authn.AuthConfig{
		"nginx":                {Username: "hub", Password: "1"},
		"reg.example/x":        {Username: "all", Password: "2"},
		"reg.example/team/app": {Username: "team", Password: "3"},
		"token.example/x":      {IdentityToken: "t0k"},
		"other.example/x":      {},
	} {
		r, err := name.NewRepository(repo)
		if err != nil {
			t.Fatal(err)
		}
		a, err := DockerConfig(path).Resolve(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Authorization()
		if err != nil || got.Username != want.Username || got.Password != want.Password || got.IdentityToken != want.IdentityToken {
			t.Errorf("%s: %q %v, want %q", repo, got.Username, err, want.Username)
		}
	}
	// The file is read again each time.
	if err := os.WriteFile(path, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := name.NewRepository("nginx")
	if a, err := DockerConfig(path).Resolve(r); err != nil || a != authn.Anonymous {
		t.Error(a, err)
	}
	// A helper that is not there is an error, not anonymity.
	if err := os.WriteFile(path, []byte(`{"credsStore":"does-not-exist"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := DockerConfig(path).Resolve(r); err == nil {
		t.Error("no error")
	}
}
