package integration

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestGivesUp: on-failure with a limit ends as failed, says so, and stays so
// over a restart of the daemon; `start` gives it a new chance.
func TestGivesUp(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Run("apply", "--no-wait", h.WriteUnit("sick", fmt.Sprintf(`
image: %s
network: none
command: [sh, -c, "echo try; exit 3"]
restart_policy: {condition: on-failure, max_attempts: 2, delay: 20ms}
`, r.Ref("busybox"))))
	failed := func() bool { return h.Unit("sick").State == "failed" }
	harness.Eventually(t, 30*time.Second, "sick has failed", failed)
	res := h.Fails(3, nil, "status", "sick")
	for _, part := range []string{"failed", "gave up after 2 restarts", "code 3"} {
		if !strings.Contains(res.Stdout, part) {
			t.Errorf("status does not say %q:\n%s", part, res.Stdout)
		}
	}
	if out := h.OK("logs", "sick"); strings.Count(out, "try") != 3 {
		t.Errorf("tries:\n%s", out)
	}
	if out := h.OK("events", "sick"); !strings.Contains(out, "give_up") {
		t.Errorf("events:\n%s", out)
	}
	h.KillDaemon()
	h.Start()
	if !failed() {
		t.Errorf("state %s after a restart of the daemon", h.Unit("sick").State)
	}
	h.Run("start", "sick")
	harness.Eventually(t, 30*time.Second, "it is tried three more times", func() bool {
		return failed() && strings.Count(h.OK("logs", "sick"), "try") == 6
	})
}

// TestNoRestart: what the policy leaves ended is not started again.
func TestNoRestart(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	for _, c := range []struct {
		name, policy, state string
		code                int
	}{
		{"listed", "{condition: any, no_restart_exit_codes: [78]}", "failed", 78},
		{"well", "{condition: on-failure}", "completed", 0},
		{"none", "{condition: none}", "failed", 9},
	} {
		h.Run("apply", "--no-wait", h.WriteUnit(c.name, fmt.Sprintf("image: %s\nnetwork: none\ncommand: [sh, -c, \"exit %d\"]\nrestart_policy: %s\n",
			r.Ref("busybox"), c.code, c.policy)))
		if out := h.OK("wait", c.name); out != fmt.Sprintf("%d\n", c.code) {
			t.Errorf("%s: wait: %q", c.name, out)
		}
		if u := h.Unit(c.name); u.State != c.state || u.Restarts != 0 {
			t.Errorf("%s: state %s after %d restarts, want %s after none", c.name, u.State, u.Restarts, c.state)
		}
	}
}

// TestBackoffSurvives: a daemon that was killed does not forget how often a
// unit has failed, nor when to try again.
func TestBackoffSurvives(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Run("apply", "--no-wait", h.WriteUnit("sick", fmt.Sprintf(`
image: %s
network: none
command: [sh, -c, "exit 3"]
restart_policy: {condition: any, delay: 10ms, multiplier: 20, max_delay: 1h, jitter: 0}
`, r.Ref("busybox"))))
	// 10 ms, 200 ms, 4 s, 80 s: the fourth failure waits long enough.
	harness.Eventually(t, 60*time.Second, "the long wait begins", func() bool { return instance(h, "sick").Attempt == 4 })
	before := instance(h, "sick")
	if before.NextTry.IsZero() {
		t.Fatalf("no next try: %+v", before)
	}
	h.KillDaemon()
	h.Start()
	after := instance(h, "sick")
	if after.State != "backoff" || after.Attempt != 4 || !after.NextTry.Equal(before.NextTry) {
		t.Errorf("before attempt %d at %v, after %s, attempt %d at %v", before.Attempt, before.NextTry, after.State, after.Attempt, after.NextTry)
	}
	if !strings.Contains(h.OK("status"), "backoff") {
		t.Error("status does not say backoff")
	}
}

// TestPortFreed: a port that somebody else has is waited for.
func TestPortFreed(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	text := fmt.Sprintf("image: %s\nports: [\"%d:80\"]\ncommand: [sh, -c, \"echo $HOSTNAME >index.html; exec httpd -f -p 80\"]\nworking_dir: /tmp\nstop_grace_period: 1s\n"+
		"restart_policy: {condition: any, delay: 50ms, max_delay: 200ms}\n", r.Ref("busybox"), port)
	h.Run("apply", "--no-wait", h.WriteUnit("one", text))
	hasError(t, h, "one", fmt.Sprint(port), "address already in use")
	l.Close()
	h.Running("one", 1)
	page := fmt.Sprintf("http://127.0.0.1:%d/", port)
	answers(t, page, "")

	// One daemon refuses a unit that can never run beside another one.
	res := h.Run("apply", h.WriteUnit("two", text))
	if res.Code == 0 || !strings.Contains(res.Stderr, fmt.Sprintf("port %d/tcp is published by unit one", port)) {
		t.Errorf("exit code %d: %s", res.Code, res.Stderr)
	}
	// Another daemon on the machine waits.
	other := harness.StartHost(t)
	other.Run("apply", "--no-wait", other.WriteUnit("two", text))
	hasError(t, other, "two", fmt.Sprint(port), "address already in use")
	h.OK("rm", "-f", "one")
	other.Running("two", 1)
	answers(t, page, "")
}

// order is the units in the order of their first event of a type.
func order(t *testing.T, h *harness.Host, kind string, since uint64) (units []string) {
	t.Helper()
	for _, e := range events(t, h) {
		if e.Type == kind && e.Seq > since && !slices.Contains(units, e.Unit) {
			units = append(units, e.Unit)
		}
	}
	return units
}

// TestDependsOrder: a unit starts after the units it needs and stops before them.
func TestDependsOrder(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	text := "image: " + r.Ref("busybox") + "\nnetwork: none\ncommand: [sleep, \"1000\"]\nstop_grace_period: 1s\n"
	// Names and files are in the wrong order.
	h.OK("apply", h.WriteUnit("a-web", text+"depends_on: [m-app]\n"), h.WriteUnit("z-db", text), h.WriteUnit("m-app", text+"depends_on: {z-db: {condition: started}}\n"))
	if got := order(t, h, "start", 0); !slices.Equal(got, []string{"z-db", "m-app", "a-web"}) {
		t.Errorf("started in the order %q", got)
	}
	h.OK("stop", "--all", "--yes")
	if got := order(t, h, "exit", 0); !slices.Equal(got, []string{"a-web", "m-app", "z-db"}) {
		t.Errorf("stopped in the order %q", got)
	}
	all := events(t, h)
	mark := all[len(all)-1].Seq
	h.OK("start", "--all")
	if got := order(t, h, "start", mark); !slices.Equal(got, []string{"z-db", "m-app", "a-web"}) {
		t.Errorf("started again in the order %q", got)
	}

	h.Fails(2, []string{"a-web", "depends_on", "nowhere"}, "apply", h.WriteUnit("a-web", text+"depends_on: [nowhere]\n"))
	h.Fails(2, []string{"z-db", "circle", "a-web", "m-app"}, "apply", h.WriteUnit("z-db", text+"depends_on: [a-web]\n"))
	h.Fails(2, []string{"self depends on itself"}, "apply", h.WriteUnit("self", text+"depends_on: [self]\n"))
	for _, u := range []string{"a-web", "m-app", "z-db"} {
		if d := h.Unit(u); d.Revision != 1 || d.State != "running" {
			t.Errorf("%s is %s at revision %d after refused files", u, d.State, d.Revision)
		}
	}
	h.OK("validate", h.WriteUnit("lone", text+"depends_on: [nowhere]\n"))
}
