package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// TestECR pulls from Amazon ECR under its real name: the daemon has the role of
// an instance, and no line of configuration about credentials.
func TestECR(t *testing.T) {
	const registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	h := harness.NewHost(t)
	reg := imagetest.Start()
	t.Cleanup(reg.Close)
	for _, tag := range []string{"1", "2", "3"} {
		layer := imagetest.NewLayer(imagetest.Entry{Name: "f", Body: tag})
		if _, err := reg.Push("app:"+tag, imagetest.Image{Layers: []imagetest.Layer{layer}}); err != nil {
			t.Fatal(err)
		}
	}
	aws := imagetest.StartECR()
	t.Cleanup(aws.Close)
	proxy, err := imagetest.StartProxy(aws.Front(reg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	ca := filepath.Join(h.Dir, "ca.pem")
	if err := os.WriteFile(ca, proxy.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Config = fmt.Sprintf("registries:\n  %s: {proxy: %q, ca: %s}\n", registry, proxy.URL, ca)
	home := t.TempDir()
	for _, kv := range append(aws.InstanceEnviron(), "HOME="+home, "DOCKER_CONFIG="+home) {
		key, value, _ := strings.Cut(kv, "=")
		t.Setenv(key, value)
	}
	h.Start("--log-level", "debug")

	tokens := func(want int, when string) {
		t.Helper()
		if got := aws.Requests("GetAuthorizationToken"); len(got) != want {
			t.Errorf("%s: %d tokens were asked for, want %d: %q", when, len(got), want, got)
		}
	}
	tokens(0, "before the first pull")
	h.OK("image", "pull", "-q", registry+"/app:1")
	tokens(1, "after the first pull")
	h.OK("reload")
	h.OK("image", "pull", "-q", registry+"/app:2")
	tokens(1, "after a reload")
	// The role was rotated: token and keys are dead before their time.
	aws.ExpireTokens()
	aws.RevokeKeys()
	h.OK("image", "pull", "-q", registry+"/app:3")
	tokens(2, "after the token died")

	aws.ExpireTokens()
	aws.Fail("AccessDeniedException", 400, 9)
	h.Fails(1, []string{registry, "eu-west-1", "the instance role", "AccessDeniedException"}, "image", "pull", "-q", registry+"/app:4")

	secrets := aws.Passwords()
	for _, dir := range []string{h.Dir, home} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if dir == home {
				t.Errorf("%s was written", path)
			}
			b, err := os.ReadFile(path)
			for _, s := range secrets {
				if strings.Contains(string(b), s) {
					t.Errorf("%s has a secret in it", path)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
