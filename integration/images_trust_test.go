package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// signingKey makes a key and writes its public half into a file.
func signingKey(t *testing.T, h *harness.Host, name string) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.Dir, name+".pub")
	if err := os.WriteFile(file, imagetest.PublicPEM(key), 0o644); err != nil {
		t.Fatal(err)
	}
	return key, file
}

// TestTrustPolicy: what the policy refuses is refused before any of its layers is
// fetched, by units and by people alike, and the policy of the next reload counts.
func TestTrustPolicy(t *testing.T) {
	r := liar(t)
	h := harness.NewHost(t)
	mine, file := signingKey(t, h, "mine")
	other, _ := signingKey(t, h, "other")
	digests := map[string]string{}
	for _, repo := range []string{"signed", "unsigned", "foreign", "free", "pinned", "banned"} {
		digest, err := r.Push(repo+":1", small(t, repo+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		digests[repo] = digest
	}
	if err := r.Sign("signed", digests["signed"], mine); err != nil {
		t.Fatal(err)
	}
	if err := r.Sign("foreign", digests["foreign"], other); err != nil {
		t.Fatal(err)
	}
	ref := func(repo string) string { return r.Host + "/" + repo + ":1" }
	policy := func(first string) string {
		return fmt.Sprintf(`
registries:
  "%s":
    policy:
      - {repository: free, require: %s}
      - {repository: pinned, require: digest}
      - {repository: banned, require: reject}
      - {require: signed, signers: [{key: %s}]}
`, r.Host, first, file)
	}
	h.Config = policy("accept")
	h.Start()
	for repo, parts := range map[string][]string{
		"unsigned": {"trust", "signed"}, "foreign": {"trust"}, "pinned": {"trust", "digest"}, "banned": {"trust"},
	} {
		h.Fails(1, append(parts, repo+":1", "wherry.yaml"), "pull", "-q", ref(repo))
		// The config, and a signature: both are blobs too.
		if got := r.Requests("GET /v2/" + repo + "/blobs/"); len(got) > 2 || repo != "foreign" && len(got) > 1 {
			t.Errorf("%s: layers were fetched: %q", repo, got)
		}
	}
	h.Run("apply", "--no-wait", h.WriteUnit("bad", sleeper(ref("unsigned"))))
	hasError(t, h, "bad", "trust", "unsigned:1")
	h.OK("rm", "-f", "bad")
	harness.Eventually(t, 10*time.Second, "nothing is left behind", func() bool { return len(storeLeftovers(h)) == 0 })

	h.Apply("good", sleeper(ref("signed")))
	h.Running("good", 1)
	h.OK("pull", "-q", ref("free"))
	h.OK("pull", "-q", r.Host+"/pinned@"+digests["pinned"])
	h.Apply("free", sleeper(ref("free")))
	running := h.Running("free", 1)

	// A stricter policy leaves what runs alone; the next start obeys it.
	h.Reconfigure(policy("reject"))
	undisturbed(t, h, "free", running)
	h.OK("stop", "free")
	h.Run("start", "--no-wait", "free")
	hasError(t, h, "free", "trust", "free:1")
	if out := h.Run("run", "--rm", "--net", "none", "--pull", "never", ref("free"), "/bin/sh", "-c", "exit 0"); out.Code != 125 || !strings.Contains(out.Stderr, "trust") {
		t.Errorf("run: exit code %d\n%s", out.Code, out.Stderr)
	}
	h.OK("restart", "good")
	h.Running("good", 1)
	h.Reconfigure(policy("accept"))
	h.Running("free", 1) // by itself
	// A signature that was seen once needs no registry, also for a new daemon.
	r.Break(imagetest.Fault{Status: 500})
	h.StopDaemon()
	h.Start()
	h.OK("restart", "good")
	h.Running("good", 1)
}
