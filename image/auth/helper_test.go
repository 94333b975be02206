package auth

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// helpers puts docker-credential-NAME scripts into PATH.
func helpers(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, body := range scripts {
		if err := os.WriteFile(filepath.Join(dir, helperPrefix+name), []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestHelper(t *testing.T) {
	helpers(t, map[string]string{
		"echo":     `read s; [ "$1" = get ] && printf '{"ServerURL":"x","Username":"u","Secret":"for %s"}' "$s"`,
		"identity": `echo '{"Username":"<token>","Secret":"id"}'`,
		"nothing":  `echo "credentials not found in native keychain"; exit 1`,
		"blank":    `echo '{}'`,
		"garbage":  `echo ` + hidden,
		"half":     `echo '{"Username":"u"}'`,
		"fails":    `echo "no such profile"; echo more >&2; exit 3`,
		"leaks":    `echo '{"Secret":"` + hidden + `"}'; exit 1`,
		"stderr":   `echo "gpg: no key" >&2; exit 2`,
	})
	for helper, want := range map[string]authn.AuthConfig{
		"echo":     {Username: "u", Password: "for reg.example:5000"},
		"identity": {IdentityToken: "id"},
		"nothing":  {},
		"blank":    {},
	} {
		if got, _ := get(t, From(Credentials{Helper: helper}), "reg.example:5000/a/b"); got != want {
			t.Errorf("%s: %+v", helper, got)
		}
	}
	for helper, want := range map[string]string{
		"garbage": "its answer of 13 bytes is not the JSON of a credential helper",
		"half":    "its answer has no user name or no secret",
		"fails":   "exit status 3: no such profile",
		"leaks":   "exit status 1",
		"stderr":  "exit status 2: gpg: no key",
		"missing": "no such program in PATH",
	} {
		if e := refused(t, From(Credentials{Helper: helper}), "reg.example/x"); !strings.Contains(e, helperPrefix+helper+": "+want) {
			t.Errorf("%s: %s", helper, e)
		}
	}
	if got, from := get(t, From(Credentials{Helper: "echo"}), "nginx"); got.Password != "for https://index.docker.io/v1/" || from != "docker-credential-echo" {
		t.Error(got, from)
	}
}

func TestHelpersOfDockerConfig(t *testing.T) {
	helpers(t, map[string]string{
		"store": `read s; case $s in *nothing*) echo "credentials not found in native keychain"; exit 1;; esac; echo '{"Username":"store","Secret":"1"}'`,
		"one":   `echo '{"Username":"one","Secret":"2"}'`,
	})
	path := write(t, "config.json", `{"credsStore":"store","credHelpers":{"one.example":"one","docker.io":"one","file.example":""},"auths":{
		"nothing.example":{"auth":"`+b64("file:3")+`"},"file.example":{"auth":"`+b64("file:4")+`"},"one.example":{}}}`)
	for repo, want := range map[string]string{
		"any.example/x": "store", "one.example/x": "one", "nginx": "one",
		"nothing.example/x": "file", "nothing-at-all.example/x": "", "file.example/x": "file",
	} {
		if got, _ := get(t, DockerConfig(path), repo); got.Username != want {
			t.Errorf("%s: %q, want %q", repo, got.Username, want)
		}
	}
	if _, from := get(t, DockerConfig(path), "one.example/x"); from != "docker-credential-one, credHelpers in "+path {
		t.Error(from)
	}
}

func TestHelperThatHangs(t *testing.T) {
	helpers(t, map[string]string{
		"hangs": `exec sleep 600`,
	})
	if _, err := runHelper(t.Context(), "hangs", "x", 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "no answer within 10ms") {
		t.Error(err)
	}
	stop := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := runHelper(ctx, "hangs", "x", time.Minute); !errors.Is(err, stop) {
		t.Error(err)
	}
}
