package integration

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// before puts a fault proxy before a registry.
func before(t *testing.T, registry string) *imagetest.FaultProxy {
	t.Helper()
	p := imagetest.StartFaultProxy(registry, imagetest.FaultProxyOptions{})
	t.Cleanup(p.Close)
	return p
}

// TestMirrors: whatever is wrong with the first mirror, the next one gives the
// image, and without any the registry itself does. A mirror that lies is found
// out and gives nothing.
func TestMirrors(t *testing.T) {
	needsRoot(t)
	r := harness.StartRegistry(t)
	type mirror struct {
		name        string
		rule        imagetest.Rule
		main, first *imagetest.FaultProxy
		ref         string
	}
	all := []mirror{
		{name: "well"},
		{name: "slow", rule: imagetest.Rule{Delay: 300 * time.Millisecond}},
		{name: "hangs", rule: imagetest.Rule{Hang: true}},
		{name: "denies", rule: imagetest.Rule{Status: http.StatusUnauthorized}},
		{name: "empty", rule: imagetest.Rule{Status: http.StatusNotFound}},
		{name: "sick", rule: imagetest.Rule{Status: http.StatusBadGateway}},
		{name: "busy", rule: imagetest.Rule{Status: http.StatusTooManyRequests, RetryAfter: "600"}},
		{name: "lies", rule: imagetest.Rule{Path: "/blobs/", Wrong: []int64{20}}},
		{name: "lies of manifests", rule: imagetest.Rule{Path: "/manifests/", Wrong: []int64{20}}},
		{name: "breaks", rule: imagetest.Rule{Path: "/blobs/", Reset: true, After: 100}},
	}
	config := "registries:\n"
	second := before(t, r.Addr)
	for i := range all {
		m := &all[i]
		m.main, m.first = before(t, r.Addr), before(t, r.Addr)
		if m.rule.Path != "" || m.rule.Status != 0 || m.rule.Hang || m.rule.Delay != 0 {
			m.first.Do(m.rule)
		}
		image := strings.ReplaceAll(m.name, " ", "-") + ":1"
		digest := r.Make(t, image, small(t, m.name+"\n"))
		m.ref = m.main.Host + "/" + image
		if m.name == "lies of manifests" { // by tag nobody can tell
			m.ref = m.main.Host + "/" + strings.TrimSuffix(image, ":1") + "@" + digest
		}
		config += fmt.Sprintf("  %q: {mirrors: [\"127.0.0.1:1\", %q, %q]}\n", m.main.Host, "http://"+m.first.Host, second.Host)
	}
	h := harness.NewHost(t)
	h.Config = config
	h.Start()
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			repo := "/v2/" + strings.ReplaceAll(m.name, " ", "-")
			h.OK("image", "pull", "-q", m.ref)
			says(t, h, m.ref, m.name)
			if n := m.main.Count("", ""); n != 0 {
				t.Errorf("the registry itself was asked: %v", m.main.Log(""))
			}
			fromSecond := second.Count("GET", repo) > 0
			if well := m.name == "well" || m.name == "slow"; well == fromSecond {
				t.Errorf("the second mirror was asked: %v; it got %v, the first one %v", fromSecond, second.Log(repo), m.first.Log(""))
			}
		})
	}
	second.Do(imagetest.Rule{Status: http.StatusServiceUnavailable})
	m := all[5]
	r.Make(t, "late:1", small(t, "late\n"))
	ref := m.main.Host + "/late:1"
	h.OK("image", "pull", "-q", ref)
	says(t, h, ref, "late")
	if m.main.Count("GET", "/late/blobs/") == 0 {
		t.Errorf("the registry itself was not asked: %v", m.main.Log(""))
	}
	r.Stop()
	m.main.Close()
	h.Fails(1, []string{"places tried", m.main.Host, m.first.Host, "127.0.0.1:1", "refused"}, "image", "pull", "-q", m.main.Host+"/never:1")
}

// TestRegistryDown: what is here starts without the registry, also after the
// daemon is back, and each policy does what it says.
func TestRegistryDown(t *testing.T) {
	needsRoot(t)
	r := harness.StartRegistry(t, "busybox")
	harness.PushTo(t, r.Addr+"/absent:1", "busybox")
	p := before(t, r.Addr)
	ref := p.Host + "/busybox:latest"
	// As they begin: the log has a request when its answer is over, which may be after whoever asked has gone on.
	var begun atomic.Int64
	p.Do(imagetest.Rule{Match: func(*http.Request) bool { begun.Add(1); return false }})
	asked := func() int { return int(begun.Load()) }
	h := harness.StartHost(t)
	h.Apply("web", sleeper(ref))
	h.Running("web", 1)

	n := asked()
	h.Apply("missing", sleeper(ref))
	h.Running("missing", 1)
	h.OK("restart", "web")
	h.Running("web", 1)
	if got := asked(); got != n {
		t.Errorf("asked for what is here: %d requests, %v", got-n, p.Log(""))
	}
	h.Apply("fresh", sleeper(ref)+"pull_policy: newer\n")
	h.Running("fresh", 1)
	if got := asked(); got == n {
		t.Error("policy newer did not ask")
	}
	if u := h.Unit("fresh"); u.Stale {
		t.Error("an answer, and yet it is called stale")
	}

	r.Stop()
	n = asked()
	h.OK("stop", "web")
	h.OK("start", "web")
	h.Running("web", 1)
	h.OK("stop", "web")
	h.StopDaemon()
	h.Start()
	h.OK("start", "web")
	h.Running("web", 1)
	h.KillDaemon()
	h.Start()
	h.OK("restart", "web", "missing", "fresh")
	for _, u := range []string{"web", "missing", "fresh"} {
		h.Running(u, 1)
	}
	if got := asked(); got != n {
		t.Errorf("asked for what is here: %d requests, %v", got-n, p.Log(""))
	}

	h.Apply("newer", sleeper(ref)+"pull_policy: newer\n")
	h.Running("newer", 1)
	if u := h.Unit("newer"); !u.Stale {
		t.Error("the image is not called stale")
	}
	if out := h.OK("status", "newer"); !strings.Contains(out, "the registry did not answer") {
		t.Errorf("status does not say that the image may be stale:\n%s", out)
	}
	h.Run("apply", "--no-wait", h.WriteUnit("always", sleeper(ref)+"pull_policy: always\n"))
	hasError(t, h, "always", "pull", p.Host)
	h.Run("apply", "--no-wait", h.WriteUnit("never", sleeper(p.Host+"/other:1")+"pull_policy: never\n"))
	hasError(t, h, "never", "other:1", "pull")
	h.Apply("here", sleeper(ref)+"pull_policy: never\n")
	h.Running("here", 1)

	// A daemon that comes to a unit whose image is not here, as after a boot with the registry down, tries again and again.
	h.Run("apply", "--no-wait", h.WriteUnit("absent", sleeper(p.Host+"/absent:1")))
	hasError(t, h, "absent", "pull", p.Host)
	h.KillDaemon()
	h.Start()
	tries := 0 // those of the last daemon count on
	harness.Eventually(t, 30*time.Second, "the new daemon knows the unit", func() bool {
		tries = instance(h, "absent").Attempt
		return tries > 0
	})
	harness.Eventually(t, 30*time.Second, "the new daemon tries again", func() bool { return instance(h, "absent").Attempt > tries })
	if u := h.Unit("absent"); u.State != "backoff" && u.State != "starting" {
		t.Errorf("a unit that waits for its image is called %s", u.State)
	}

	// When the registry is back, whoever waits for it comes up, without an operator.
	r.Restart(t)
	h.Running("always", 1)
	h.Running("absent", 1)
}
