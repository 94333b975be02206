package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
