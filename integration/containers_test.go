package integration

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
	"github.com/wherry-run/wherry/supervisor/api"
)

// shop is a unit of four containers: one that is there to complete, a server on
// localhost, one that asks it and is reached from outside, and one that nobody needs.
const shop = `
replicas: 1
ports: ["%d:8080"]
pid: shared
containers:
  migrate: {image: %[2]s, command: [sh, -c, "echo migrated > /data/schema"], volumes: ["shop-data:/data"]}
  php:
    image: %[2]s
    command: [sh, -c, "mkdir -p /www && cp /data/schema /www/ && touch /dev/mqueue/of-php; exec httpd -f -p 127.0.0.1:9000 -h /www"]
    volumes: ["shop-data:/data"]
    depends_on: {migrate: {condition: completed_successfully}}
    stop_grace_period: 2s
  nginx:
    image: %[2]s
    command: [sh, -c, "echo ready; while :; do wget -q -O /www 127.0.0.1:9000/schema; nc -l -p 8080 < /www; done"]
    depends_on: [php]
    stop_grace_period: 2s
  metrics:
    image: %[2]s
    essential: false
    command: [sh, -c, "echo begun; exec sleep 1000"]
    depends_on: [nginx]
    stop_grace_period: 1s
`

// container is one of the unit's first instance.
func container(h *harness.Host, unit, name string) api.Container {
	for _, i := range h.Unit(unit).Instances {
		for _, c := range i.Containers {
			if c.Name == name {
				return c
			}
		}
	}
	return api.Container{}
}

func allUp(t *testing.T, h *harness.Host, unit string) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, "all containers of "+unit+" are as they should be", func() bool {
		for name, state := range map[string]string{"migrate": "completed", "php": "running", "nginx": "running", "metrics": "running"} {
			if container(h, unit, name).State != state {
				return false
			}
		}
		return h.Unit(unit).State == "running"
	})
}

// seen waits until a command in a container prints what it should: a program that has been started may not be ready yet.
func seen(t *testing.T, h *harness.Host, target, command, want string) {
	t.Helper()
	var last harness.Result
	defer func() {
		if t.Failed() {
			t.Logf("%s: %s: %+v", target, command, last)
		}
	}()
	harness.Eventually(t, 30*time.Second, fmt.Sprintf("%s: %s prints %q", target, command, want), func() bool {
		last = h.Run("exec", target, "sh", "-c", command)
		return last.Code == 0 && strings.Contains(last.Stdout, want)
	})
}

func namespace(t *testing.T, pid int, name string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		t.Error(err)
	}
	return link
}

// TestSeveralContainers: they start in order, share what a run shares, and only that.
func TestSeveralContainers(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("shop", fmt.Sprintf(shop, freePort(t), r.Ref("busybox")))
	allUp(t, h, "shop")
	php, nginx := container(h, "shop", "php").Pid, container(h, "shop", "nginx").Pid
	for _, ns := range []string{"net", "ipc", "uts", "user", "pid"} {
		if namespace(t, php, ns) != namespace(t, nginx, ns) {
			t.Errorf("the %s namespace is not shared", ns)
		}
	}
	if namespace(t, php, "mnt") == namespace(t, nginx, "mnt") {
		t.Error("the mount namespace is shared")
	}
	if namespace(t, php, "net") == namespace(t, os.Getpid(), "net") {
		t.Error("the network is the host's")
	}
	for _, c := range []struct{ target, command, want string }{
		{"shop.1/nginx", "wget -q -O - 127.0.0.1:9000/schema", "migrated"}, // php's port, and migrate's volume
		{"shop/nginx", "ls /dev/mqueue", "of-php"},                         // one IPC namespace
		{"shop.1/metrics", "hostname", "shop-1"},
		{"shop.1/php", "cat /etc/hostname", "shop-1"},
		{"shop.1/metrics", "ps", "httpd"}, // one PID namespace
		{"shop.1/metrics", "ls /", "bin"},
	} {
		seen(t, h, c.target, c.command, c.want)
	}
	if out := h.OK("exec", "shop/metrics", "sh", "-c", "ls /www /data 2>&1; true"); !strings.Contains(out, "/www: No such") {
		t.Errorf("php's files are seen by others: %s", out)
	}
	if res := h.Run("exec", "shop", "true"); res.Code == 0 || !strings.Contains(res.Stderr, "shop/php") {
		t.Errorf("exec without a container: %+v", res)
	}
	for _, line := range []string{"shop.1/nginx | ready", "shop.1/metrics | begun"} {
		harness.Eventually(t, 30*time.Second, fmt.Sprintf("%q in the logs", line), func() bool { return strings.Contains(h.OK("logs", "shop"), line) })
	}
	if out := h.OK("logs", "shop.1/nginx"); out != "ready\n" {
		t.Errorf("logs of one: %q", out)
	}
	status := h.OK("status", "shop")
	for _, name := range []string{"migrate", "php", "nginx", "metrics"} {
		if !strings.Contains(status, name) {
			t.Errorf("status does not show %s:\n%s", name, status)
		}
	}
	h.OK("stop", "shop")
	h.OK("rm", "--yes", "shop")
}

// TestEndOfContainers: one that is not essential comes back alone; an essential one takes the
// others with it, and a new run follows; the deaths of daemon and keeper in between
// change nothing.
func TestEndOfContainers(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("shop", fmt.Sprintf(shop, freePort(t), r.Ref("busybox")))
	allUp(t, h, "shop")
	between := []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"the daemon killed", func() { h.KillDaemon(); h.Start() }},
		{"the keeper killed", h.KillKeeper},
		{"both killed", func() { h.KillKeeper(); h.KillDaemon(); h.Start() }},
	}
	for _, b := range between {
		b.do()
		allUp(t, h, "shop")
		run := h.Unit("shop").Instances[0].Run
		php, metrics := container(h, "shop", "php").Pid, container(h, "shop", "metrics")
		kill(t, metrics.Pid)
		harness.Eventually(t, 30*time.Second, "metrics is back: "+b.name, func() bool {
			c := container(h, "shop", "metrics")
			return c.State == "running" && c.Pid != metrics.Pid && c.Restarts == metrics.Restarts+1
		})
		if now := h.Unit("shop").Instances[0]; now.Run != run || container(h, "shop", "php").Pid != php {
			t.Fatalf("%s: the run was disturbed: %+v", b.name, now)
		}
		seen(t, h, "shop/metrics", "wget -q -O - 127.0.0.1:9000/schema", "migrated\n") // not elsewhere
	}
	for _, b := range between {
		run := h.Unit("shop").Instances[0].Run
		kill(t, container(h, "shop", "nginx").Pid)
		harness.Eventually(t, 30*time.Second, "another run: "+b.name, func() bool {
			i := h.Unit("shop").Instances[0]
			return i.Run != run && i.State == "running"
		})
		b.do()
		allUp(t, h, "shop")
	}
	if out := h.OK("events", "shop"); !strings.Contains(out, "container nginx") {
		t.Errorf("events do not name the container:\n%s", out)
	}
}

// TestDaemonKilledAmongContainers: the daemon is killed while containers are being
// started, at no certain moment; in the end there is one run, whole.
func TestDaemonKilledAmongContainers(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	path := h.WriteUnit("shop", fmt.Sprintf(shop, freePort(t), r.Ref("busybox")))
	h.OK("apply", "--no-wait", path)
	for n := range 6 {
		time.Sleep(time.Duration(20+30*n) * time.Millisecond)
		if n%2 == 1 {
			h.KillKeeper()
		}
		h.KillDaemon()
		h.Start()
		h.Run("restart", "--no-wait", "shop")
	}
	allUp(t, h, "shop")
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("pid %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
