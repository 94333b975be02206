package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestManyContainers: as many as a host may have are started, listed, stopped and leave
// nothing. With WHERRY_LONG (scripts/test --all) it is a thousand.
func TestManyContainers(t *testing.T) {
	many := 200
	if os.Getenv("WHERRY_LONG") != "" {
		many = 1000
	}
	if testing.Short() {
		t.Skip("so many containers take their time: not with -short")
	}
	reg := registry(t)
	h := harness.StartHost(t)
	h.OK("image", "pull", "-q", reg.Ref("busybox"))
	began := time.Now()
	file := h.WriteUnit("many", fmt.Sprintf("image: %s\nreplicas: %d\nnetwork: none\ncommand: [sleep, \"86000\"]\nstop_grace_period: 1s\n", reg.Ref("busybox"), many))
	if r := h.RunIn(5*time.Minute, "apply", file); r.Code != 0 {
		t.Fatalf("apply: %+v", r)
	}
	t.Logf("%d containers started in %v", many, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	list := h.OK("list")
	t.Logf("listed in %v: %s", time.Since(began).Round(time.Millisecond), list)
	u := h.Unit("many")
	if u.Running != many || len(u.Instances) != many {
		t.Errorf("%d of %d instances run", u.Running, len(u.Instances))
	}
	pids := map[int]bool{}
	for _, in := range u.Instances {
		pids[in.Pid] = true
	}
	if len(pids) != many {
		t.Errorf("%d processes", len(pids))
	}
	began = time.Now()
	if r := h.RunIn(5*time.Minute, "rm", "-f", "many"); r.Code != 0 {
		t.Fatalf("rm: %+v", r)
	}
	t.Logf("stopped and removed in %v", time.Since(began).Round(time.Millisecond))
}
