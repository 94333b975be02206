package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// small is an image of a shell and one file that no other image has, so that
// each case of a test has something to fetch.
func small(t *testing.T, text string) imagetest.Image {
	t.Helper()
	return imagetest.Image{Layers: []imagetest.Layer{tools(t), imagetest.NewLayer(imagetest.Entry{Name: "text", Body: text})}}
}

// says: a container of the image, which must be there, finds its own text.
func says(t *testing.T, h *harness.Host, ref, text string) {
	t.Helper()
	out := h.OK("run", "--rm", "--net", "none", "--pull", "never", ref, "/bin/sh", "-c", "read x </text; echo $x")
	if out != text+"\n" {
		t.Errorf("%s says %q, want %q", ref, out, text)
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// TestRegistriesOfAllKinds: Debian's registry with everything that it may ask of
// a client, and one with tokens, each as wherry.yaml or a unit says.
func TestRegistriesOfAllKinds(t *testing.T) {
	needsRoot(t)
	h := harness.NewHost(t)
	plain := harness.StartGuardedRegistry(t, harness.Guard{})
	htpasswd := harness.StartGuardedRegistry(t, harness.Guard{User: "me", Password: "secret"})
	private := harness.StartGuardedRegistry(t, harness.Guard{CA: imagetest.NewCA()})
	mutual := harness.StartGuardedRegistry(t, harness.Guard{CA: imagetest.NewCA(), Clients: true, User: "me", Password: "secret"})
	for _, r := range []*harness.Registry{plain, htpasswd, private, mutual} {
		r.Make(t, "app:1", small(t, r.Addr+"\n"))
	}
	tokens := imagetest.Start()
	t.Cleanup(tokens.Close)
	if _, err := tokens.Push("app:1", small(t, tokens.Host+"\n")); err != nil {
		t.Fatal(err)
	}
	tokens.Require(&imagetest.Login{User: "me", Password: "token secret"})
	docker := filepath.Join(h.Dir, "config.json")
	auth := base64.StdEncoding.EncodeToString([]byte("me:token secret"))
	if err := os.WriteFile(docker, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, tokens.Host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Config = fmt.Sprintf(`
registries:
  "%s": {credentials: {username: me, password_file: %s}}
  "%s": {ca: %s}
  "%s": {ca: %s, cert: %s, key: %s, credentials: {username: me, password_file: %s}}
  "%s": {credentials: {docker_config: %s}}
`, htpasswd.Addr, h.Password("one", "secret"), private.Addr, private.File("ca.pem"), mutual.Addr, mutual.File("ca.pem"),
		mutual.File("client.pem"), mutual.File("client.key"), h.Password("two", "secret"), tokens.Host, docker)
	h.Start()
	for _, host := range []string{plain.Addr, htpasswd.Addr, private.Addr, mutual.Addr, tokens.Host} {
		h.OK("image", "pull", "-q", host+"/app:1")
		says(t, h, host+"/app:1", host)
	}
	log, err := os.ReadFile(h.Dir + "/daemon.log")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret", auth} {
		if strings.Contains(string(log), secret) {
			t.Errorf("%q is in the daemon's log", secret)
		}
	}
}

// TestWrongRegistrySettings: the error names the registry, what it misses and where
// the credentials came from, and a reload makes it right.
func TestWrongRegistrySettings(t *testing.T) {
	needsRoot(t)
	h := harness.NewHost(t)
	htpasswd := harness.StartGuardedRegistry(t, harness.Guard{User: "me", Password: "secret"})
	mutual := harness.StartGuardedRegistry(t, harness.Guard{CA: imagetest.NewCA(), Clients: true})
	for _, r := range []*harness.Registry{htpasswd, mutual} {
		r.Make(t, "app:1", small(t, r.Addr+"\n"))
	}
	wrong, right := h.Password("wrong", "sesame"), h.Password("right", "secret")
	h.Config = fmt.Sprintf("registries: {%q: {credentials: {username: me, password_file: %s}}}\n", htpasswd.Addr, wrong)
	h.Start()
	h.Fails(1, []string{htpasswd.Addr, "denied", "401", wrong}, "image", "pull", "-q", htpasswd.Addr+"/app:1")
	h.Fails(1, []string{mutual.Addr, "unknown authority"}, "image", "pull", "-q", mutual.Addr+"/app:1")

	// A unit's own credentials stand before those of wherry.yaml, right or wrong.
	unit := func(file string) string {
		return sleeper(htpasswd.Addr+"/app:1") + fmt.Sprintf("registry_auth: {username: me, password_file: %s}\n", file)
	}
	h.Apply("right", unit(right))
	h.Running("right", 1)
	h.OK("rm", "-f", "right")
	h.OK("rmi", "-f", htpasswd.Addr+"/app:1")

	h.Reconfigure(fmt.Sprintf("registries: {%q: {ca: %s}}\n", mutual.Addr, mutual.File("ca.pem")))
	h.Fails(1, []string{htpasswd.Addr, "denied"}, "image", "pull", "-q", htpasswd.Addr+"/app:1")
	h.Fails(1, []string{mutual.Addr, "client certificate"}, "image", "pull", "-q", mutual.Addr+"/app:1")

	h.Reconfigure(fmt.Sprintf("registries:\n  %q: {ca: %s, cert: %s, key: %s}\n  %q: {credentials: {username: me, password_file: %s}}\n",
		mutual.Addr, mutual.File("ca.pem"), mutual.File("client.pem"), mutual.File("client.key"), htpasswd.Addr, right))
	h.Run("apply", "--no-wait", h.WriteUnit("wrong", unit(wrong)))
	hasError(t, h, "wrong", htpasswd.Addr, "denied", wrong)
	// The file is read at every pull: the unit comes up by itself.
	h.Password("wrong", "secret")
	h.Running("wrong", 1)
	for _, host := range []string{htpasswd.Addr, mutual.Addr} {
		h.OK("image", "pull", "-q", host+"/app:1")
		says(t, h, host+"/app:1", host)
	}
}

// TestRateLimitInStatus: what a registry says of pulls that are left, and that it
// wants none for a while.
func TestRateLimitInStatus(t *testing.T) {
	r := liar(t)
	if _, err := r.Push("app:1", small(t, "limited\n")); err != nil {
		t.Fatal(err)
	}
	p := imagetest.StartFaultProxy(r.Host, imagetest.FaultProxyOptions{})
	t.Cleanup(p.Close)
	h := harness.StartHost(t)
	p.Do(imagetest.Rule{Times: 1, Path: "/manifests/", Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"76;w=21600"}}})
	h.OK("pull", "-q", p.Host+"/app:1")
	if out := h.OK("status"); !strings.Contains(out, p.Host+": 76 of 100 pulls left") {
		t.Errorf("status:\n%s", out)
	}
	p.Do(imagetest.Rule{Status: 429, RetryAfter: "3600"})
	h.Fails(1, []string{p.Host, "too many requests", "until"}, "pull", "-q", p.Host+"/app:1")
	asked := p.Count("", "")
	h.Fails(1, []string{p.Host}, "pull", "-q", p.Host+"/other:1")
	if n := p.Count("", "") - asked; n != 0 {
		t.Errorf("%d requests while the registry wants none", n)
	}
	if out := h.OK("status"); !strings.Contains(out, "wants no requests until") {
		t.Errorf("status:\n%s", out)
	}
}
