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

// TestReplicasShareAPort: each replica answers on the one published port, and
// a killed one is missed by nobody for long.
func TestReplicasShareAPort(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	port := freePort(t)
	h.Apply("r", fmt.Sprintf(`
image: %s
replicas: 3
ports: ["%d:8000"]
stop_grace_period: 1s
command: [sh, -c, "mkdir /w; hostname >/w/index.html; exec httpd -f -p 8000 -h /w"]
`, r.Ref("busybox"), port))
	for i := 1; i <= 3; i++ {
		h.Running("r", i)
	}
	seen := map[string]bool{}
	harness.Eventually(t, 30*time.Second, "all three replicas answer", func() bool {
		if b, err := getPage(fmt.Sprintf("http://127.0.0.1:%d/", port)); err == nil {
			seen[b] = true
		}
		return len(seen) == 3
	})
	// The host's own addresses answer too.
	for _, ip := range hostAddresses(t) {
		harness.Eventually(t, 30*time.Second, ip+" answers", func() bool {
			_, err := getPage(fmt.Sprintf("http://%s:%d/", ip, port))
			return err == nil || !slices.Contains(hostAddresses(t), ip) // the bridge of another test has gone
		})
	}
	// The port belongs to this unit.
	h.Run("apply", "--no-wait", h.WriteUnit("other", fmt.Sprintf("image: %s\nports: [\"%d:80\"]\ncommand: [sleep, \"100\"]\n", r.Ref("busybox"), port)))
	res := h.Run("status", "other")
	if u, err := h.Client().Unit(t.Context(), "other"); err == nil && u.State == "running" {
		t.Errorf("a second unit runs on port %d:\n%s", port, res.Stdout)
	}
}

// TestContainersReach: containers of the bridge reach each other by address
// and the outside of the bridge; a container without network reaches nothing.
func TestContainersReach(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	image := r.Ref("busybox")
	h.OK("run", "-d", "--name", "srv", image, "sh", "-c", "mkdir /w; echo served >/w/index.html; exec httpd -f -p 8000 -h /w")
	in := h.Running("srv", 1)
	addr, _, _ := strings.Cut(in.Address, "/")
	if net.ParseIP(addr) == nil {
		t.Fatalf("address %q", in.Address)
	}
	harness.Eventually(t, 20*time.Second, "another container reaches it", func() bool {
		res := h.Run("run", "--rm", image, "wget", "-qO-", "http://"+addr+":8000/")
		return res.Code == 0 && res.Stdout == "served\n"
	})
	if res := h.Run("run", "--rm", "--net", "none", image, "wget", "-T", "2", "-qO-", "http://"+addr+":8000/"); res.Code == 0 {
		t.Errorf("a container without network reached %s", addr)
	}
	// A random port is chosen and shown.
	h.OK("run", "-d", "--name", "rnd", "-p", "8000", image, "sh", "-c", "mkdir /w; echo random >/w/index.html; exec httpd -f -p 8000 -h /w")
	h.Running("rnd", 1)
	u := h.Unit("rnd")
	if len(u.Ports) != 1 || u.Ports[0].HostPort == 0 {
		t.Fatalf("ports %+v", u.Ports)
	}
	answers(t, fmt.Sprintf("http://127.0.0.1:%d/", u.Ports[0].HostPort), "random")
}

func hostAddresses(t *testing.T) (l []string) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() != nil {
			l = append(l, ip.String())
		}
	}
	return l
}
