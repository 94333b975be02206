package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

const hidden = "s3cr3t-value"

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// write makes a file that only its owner may read.
func write(t *testing.T, name, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, k authn.Keychain, repo string) (authn.AuthConfig, string) {
	t.Helper()
	a, err := authn.Resolve(t.Context(), k, resource(t, repo))
	if err != nil {
		t.Fatal(repo, err)
	}
	c, err := authn.Authorization(t.Context(), a)
	if err != nil {
		t.Fatal(repo, err)
	}
	return *c, Origin(a)
}

// refused resolves, and returns what the error says.
func refused(t *testing.T, k authn.Keychain, repo string) string {
	t.Helper()
	a, err := authn.Resolve(t.Context(), k, resource(t, repo))
	var known *Error
	if !errors.As(err, &known) || known.Registry != resource(t, repo).RegistryStr() {
		t.Fatalf("%s: %v, %v", repo, a, err)
	}
	if strings.Contains(err.Error(), hidden) {
		t.Errorf("the error shows a secret: %v", err)
	}
	return err.Error()
}

func TestDockerConfig(t *testing.T) {
	path := write(t, "config.json", `{"auths":{
		"https://index.docker.io/v1/":{"auth":"`+b64("hub:1")+`"},
		"docker.io/team/app":{"auth":"`+b64("hubteam:2")+`"},
		"reg.example":{"auth":"`+b64("all:3")+`"},
		"reg.example/team":{"auth":"`+b64("team:4:5")+`"},
		"reg.example/team/app":{"auth":"`+b64("app:6")+`"},
		"paths.example/only/here":{"auth":"`+b64("here:7")+`"},
		"https://old.example/v2/":{"auth":"`+strings.TrimRight(b64("old:8\x00"), "=")+`"},
		"token.example":{"auth":"`+b64("x:")+`","identitytoken":"t0k"},
		"bearer.example:5000":{"registrytoken":"b"},
		"plain.example":{"username":"u","password":"p"},
		"empty.example":{},
		"bad.example":{"auth":"`+hidden+`"}}}`)
	for repo, want := range map[string]authn.AuthConfig{
		"nginx":                   {Username: "hub", Password: "1"},
		"team/app":                {Username: "hubteam", Password: "2"},
		"team/apple":              {Username: "hub", Password: "1"},
		"reg.example/x":           {Username: "all", Password: "3"},
		"reg.example/teams/x":     {Username: "all", Password: "3"},
		"reg.example/team/x":      {Username: "team", Password: "4:5"},
		"reg.example/team/app":    {Username: "app", Password: "6"},
		"reg.example/team/app/db": {Username: "app", Password: "6"},
		"reg.example:5000/x":      {},
		"paths.example/only/here": {Username: "here", Password: "7"},
		"paths.example/other":     {}, // docker/cli would hand out the key above
		"old.example/x":           {Username: "old", Password: "8"},
		"token.example/x":         {Username: "x", IdentityToken: "t0k"},
		"bearer.example:5000/x":   {RegistryToken: "b"},
		"plain.example/x":         {Username: "u", Password: "p"},
		"empty.example/x":         {},
		"other.example/x":         {},
	} {
		got, from := get(t, DockerConfig(path), repo)
		if got.Auth = ""; got != want || (from == path) != (want != authn.AuthConfig{}) {
			t.Errorf("%s: %+v from %q, want %+v", repo, got, from, want)
		}
	}
	if e := refused(t, DockerConfig(path), "bad.example/x"); !strings.Contains(e, path) || !strings.Contains(e, "bad.example") {
		t.Error(e)
	}
}

func TestDockerConfigIsReadEachTime(t *testing.T) {
	path := write(t, "config.json", `{"auths":{"reg.example":{"auth":"`+b64("u:1")+`"}}}`)
	k := DockerConfig(path)
	if c, _ := get(t, k, "reg.example/x"); c.Password != "1" {
		t.Error(c)
	}
	for _, body := range []string{"{}", ""} {
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, _ := get(t, k, "reg.example/x"); c != (authn.AuthConfig{}) {
			t.Error(c)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if c, _ := get(t, k, "reg.example/x"); c != (authn.AuthConfig{}) {
		t.Error(c)
	}
	if c, _ := get(t, DockerConfig(""), "reg.example/x"); c != (authn.AuthConfig{}) {
		t.Error(c)
	}
	// Where one source names the file, it has to be there.
	if e := refused(t, From(Credentials{DockerConfig: path}), "reg.example/x"); !strings.Contains(e, path+": no such file") {
		t.Error(e)
	}
}

func TestBrokenDockerConfig(t *testing.T) {
	for body, want := range map[string]string{
		`{"auths":{"a":"` + hidden + `"}}`:     "wrong type",
		`{"` + hidden + `"`:                    "not JSON",
		`{"credsStore":"does-not-exist"}`:      "credsStore in ",
		`{"credsStore":"../` + "evil" + `"}`:   "not the name of a helper",
		`{"credHelpers":{"docker.io":"nope"}}`: "docker-credential-nope: no such program in PATH",
	} {
		path := write(t, "config.json", body)
		if e := refused(t, DockerConfig(path), "nginx"); !strings.Contains(e, want) || !strings.Contains(e, path) {
			t.Errorf("%s: %s", body, e)
		}
	}
}

func TestFrom(t *testing.T) {
	password, token := write(t, "password", hidden+"\r\n"), write(t, "token", "abc")
	got, from := get(t, From(Credentials{Username: "u", PasswordFile: password}), "reg.example/x")
	if got != (authn.AuthConfig{Username: "u", Password: hidden}) || from != "password_file "+password {
		t.Error(got, from)
	}
	got, from = get(t, From(Credentials{TokenFile: token}), "reg.example/x")
	if got != (authn.AuthConfig{RegistryToken: "abc"}) || from != "token_file "+token {
		t.Error(got, from)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"):                "no such file",
		write(t, "empty", "\n"):                           "empty",
		write(t, "two", hidden+"\n"+hidden):               "more than one line",
		write(t, "big", strings.Repeat(hidden, 100<<10)):  "larger than",
		filepath.Dir(write(t, "in-a-folder-of-mine", "")): "not a regular file",
		fifo: "not a regular file",
	} {
		e := refused(t, From(Credentials{TokenFile: file}), "reg.example/x")
		if !strings.Contains(e, "token_file "+file+": ") || !strings.Contains(e, want) {
			t.Errorf("%s, want %s", e, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []Credentials{
		{}, {Username: "u"}, {PasswordFile: "/p"}, {Username: "u", PasswordFile: "/p", TokenFile: "/t"},
		{DockerConfig: "/c", Helper: "x"}, {Username: "a:b", PasswordFile: "/p"}, {Helper: "../x"},
	} {
		if c.Check() == nil {
			t.Errorf("%+v passes", c)
		}
		refused(t, From(c), "reg.example/x")
	}
	for _, c := range []Credentials{{Username: "u", PasswordFile: "/p"}, {TokenFile: "/t"}, {DockerConfig: "/c"}, {Helper: "ecr-login"}} {
		if err := c.Check(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestWarnsOnceOfOpenFiles(t *testing.T) {
	var log bytes.Buffer
	f := &Files{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	open := write(t, "open", hidden)
	config := write(t, "config.json", `{"auths":{"reg.example":{"auth":"`+b64("u:"+hidden)+`"}}}`)
	for _, path := range []string{open, config} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !reachable(filepath.Dir(open)) {
		t.Skip("the folder for temporary files is closed: nothing in it is open to everybody")
	}
	for range 2 {
		get(t, f.From(Credentials{TokenFile: open}), "reg.example/x")
		get(t, f.DockerConfig(config), "reg.example/x")
		get(t, f.From(Credentials{TokenFile: write(t, "closed", hidden)}), "reg.example/x")
		get(t, f.DockerConfig(write(t, "c.json", `{"auths":{}}`)), "reg.example/x")
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 || strings.Contains(log.String(), hidden) {
		t.Errorf("%d warnings:\n%s", n, &log)
	}
	// A closed folder above is enough.
	log.Reset()
	if err := os.Chmod(filepath.Dir(open), 0o700); err != nil {
		t.Fatal(err)
	}
	get(t, (&Files{Logger: f.Logger}).From(Credentials{TokenFile: open}), "reg.example/x")
	if log.Len() > 0 {
		t.Error(&log)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	a := New(authn.AuthConfig{Username: "u", Password: hidden, RegistryToken: hidden}, "here")
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "auth", a)
	j, err := json.Marshal(a)
	out := fmt.Sprintf("%v %+v %#v %s %q %d", a, a, a, a, a, a) + log.String() + string(j)
	if err != nil || strings.Contains(out, hidden) || !strings.Contains(out, "credentials from here") {
		t.Error(out, err)
	}
}

// Nothing in a file makes the reader panic, or shows in an error.
func FuzzDockerConfig(f *testing.F) {
	for _, seed := range []string{
		"", "{", "null", `{"auths":{"reg.example/a":{"auth":"dTpw"}}}`, `{"auths":{"https://reg.example/v1/":{"auth":"dTpw="}}}`,
		`{"auths":{"reg.example":{"auth":"` + hidden + `"}}}`, `{"auths":{"":{"password":"p"},"/":{"password":"p"}}}`, `{"auths":[]}`,
	} {
		f.Add([]byte(seed), "reg.example/a/b")
	}
	f.Fuzz(func(t *testing.T, body []byte, repo string) {
		r, err := name.NewRepository(repo)
		if err != nil {
			return
		}
		var file dockerFile
		if err := file.parse(body); err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("%v", err)
			}
			return
		}
		key, a, ok := file.entry(r)
		if !ok {
			return
		}
		if _, there := file.Auths[key]; !there {
			t.Errorf("%q is not in the file", key)
		}
		if _, err := a.config(); err != nil && a.Auth != "" && len(a.Auth) > 8 && strings.Contains(err.Error(), a.Auth) {
			t.Errorf("%v", err)
		}
	})
}
