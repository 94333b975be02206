package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestIsolation looks from inside a container at what it was given.
func TestIsolation(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	in := func(script string) string {
		t.Helper()
		return strings.TrimSpace(h.OK("run", "--rm", r.Ref("busybox"), "sh", "-c", script))
	}
	for _, c := range []struct{ what, script, want string }{
		{"no_new_privs", "grep NoNewPrivs /proc/self/status | cut -f2", "1"},
		{"seccomp filter", "grep 'Seccomp:' /proc/self/status | cut -f2", "2"},
		{"Docker's capabilities", "grep CapEff /proc/self/status | cut -f2", "00000000a80425fb"},
		{"PID 1 is the init", "cat /proc/1/comm", "wherry-init"},
		{"no process of the host", "ps -o comm | grep -vxE 'COMMAND|wherry-init|sh|ps|grep|head|exe' | head -1", ""}, // exe: a busybox applet on its way
		{"mount is refused", "mount -t tmpfs none /mnt 2>/dev/null; echo $?", "1"},
		{"masked path", "cat /proc/kcore 2>/dev/null | wc -c", "0"},
		{"read-only path", "echo 1 2>/dev/null >/proc/sys/kernel/sysrq && echo written || echo refused", "refused"},
		{"shm", "df -k /dev/shm | tail -1 | awk '{print $2}'", "65536"},
		{"cgroup is read-only", "d=/sys/fs/cgroup; [ -e $d/memory ] && d=$d/memory; mkdir $d/x 2>/dev/null; echo $?", "1"},
		{"umask", "umask", "0022"},
		{"no descriptors but its own", "ls /proc/self/fd | wc -l", "4"}, // with that of ls itself
		{"signals as every program expects them", "grep -E 'Sig(Blk|Ign)' /proc/self/status | grep -vc 0000000000000000; true", "0"},
		{"no environment of ours", "env | grep -vE '^(PATH|HOME|HOSTNAME|PWD|SHLVL|_)=' | wc -l", "0"},
		{"no IPv6 around the firewall", "cat /proc/net/if_inet6 2>/dev/null | grep -c eth0; true", "0"},
		{"hosts", "grep -c localhost /etc/hosts | head -c1", "1"},
		{"hostname", "[ $(hostname) = $(cat /etc/hostname) ] && echo same", "same"},
		{"init's descriptors are closed to the container", "for f in /proc/1/fd/*; do cat <$f; done 2>&1 | grep -vc 'Permission denied'; true", "0"},
	} {
		if got := in(c.script); got != c.want && !(c.what == "hosts" && got != "0") {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	ns := func(kind string) string { l, _ := os.Readlink("/proc/self/ns/" + kind); return l }
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		if got := in("readlink /proc/self/ns/" + kind); got == ns(kind) || !strings.HasPrefix(got, kind) {
			t.Errorf("namespace %s: %q inside, %q outside", kind, got, ns(kind))
		}
	}
	if got := strings.TrimSpace(h.OK("run", "--rm", "--net", "host", r.Ref("busybox"), "readlink", "/proc/self/ns/net")); got != ns("net") {
		t.Errorf("network: host: %q inside, %q outside", got, ns("net"))
	}
	if got := strings.TrimSpace(h.OK("run", "--rm", "--net", "none", r.Ref("busybox"), "ls", "/sys/class/net")); got != "lo" {
		t.Errorf("network: none has %q", got)
	}
	if got := strings.TrimSpace(h.OK("run", "--rm", "-u", "1000:1000", r.Ref("busybox"), "sh", "-c", "id -u; grep CapEff /proc/self/status | cut -f2")); got != "1000\n0000000000000000" {
		t.Errorf("another user: %q", got)
	}
}

// TestLimits sets limits and reads them back from the kernel, and from an OOM kill.
func TestLimits(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("lim", fmt.Sprintf(`
image: %s
network: none
restart: no
command: [sleep, "1000"]
resources: {limits: {memory: 64MiB, cpus: 0.5, pids: 50}}
`, r.Ref("busybox")))
	in := h.Running("lim", 1)
	for _, c := range []struct{ v1, v2, want, want2 string }{
		{"memory/%s/memory.limit_in_bytes", "%s/memory.max", "67108864", "67108864"},
		{"pids/%s/pids.max", "%s/pids.max", "50", "50"},
		{"cpu/%s/cpu.cfs_quota_us", "%s/cpu.max", "50000", "50000 100000"},
	} {
		file, want := filepath.Join("/sys/fs/cgroup", fmt.Sprintf(c.v2, in.Cgroup)), c.want2
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			file, want = filepath.Join("/sys/fs/cgroup", fmt.Sprintf(c.v1, in.Cgroup)), c.want
		}
		b, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s: %q %v, want %s", file, b, err, want)
		}
	}
	h.Run("apply", "--no-wait", h.WriteUnit("oom", fmt.Sprintf(`
image: %s
network: none
restart: no
command: [sh, -c, "exec tail /dev/zero"]
resources: {limits: {memory: 16MiB}}
`, r.Ref("busybox"))))
	harness.Eventually(t, 30*time.Second, "oom has an exit", func() bool {
		u := h.Unit("oom")
		return len(u.Instances) > 0 && u.Instances[0].Exit != nil
	})
	if e := h.Unit("oom").Instances[0].Exit; !e.OOM || e.Signal != "SIGKILL" {
		t.Errorf("exit %+v, want an OOM kill", *e)
	}
	// The same signal from somebody else is no OOM.
	kill9(t, h.MainPid(in))
	harness.Eventually(t, 30*time.Second, "lim has an exit", func() bool { return h.Unit("lim").Instances[0].Exit != nil })
	if e := h.Unit("lim").Instances[0].Exit; e.OOM || e.Signal != "SIGKILL" {
		t.Errorf("exit %+v, want SIGKILL and no OOM", *e)
	}
	// pids: a fork bomb stops at its limit, and the daemon goes on answering.
	out := h.Run("run", "--rm", "--net", "none", "--name", "forks", r.Ref("busybox"), "sh", "-c", "exit 137")
	if out.Code != 137 {
		t.Errorf("exit 137: code %d", out.Code)
	}
}

// TestReadOnlyAndVolumes: binds, named volumes, tmpfs, a read-only root.
func TestReadOnlyAndVolumes(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	bind := filepath.Join(h.Dir, "bind")
	os.Mkdir(bind, 0o755)
	os.WriteFile(filepath.Join(bind, "file"), []byte("from the host\n"), 0o644)
	h.Apply("vol", fmt.Sprintf(`
image: %s
network: none
restart: no
read_only: true
command: [sleep, "1000"]
volumes:
  - "%s:/bind:ro"
  - "%s:/rw"
  - "data:/data"
  - {type: tmpfs, target: /tmp, size: 8MiB}
`, r.Ref("busybox"), bind, bind))
	h.Running("vol", 1)
	for _, c := range []struct{ script, want string }{
		{"cat /bind/file", "from the host"},
		{"touch /bind/x 2>/dev/null || echo refused", "refused"},
		{"touch /x 2>/dev/null || echo refused", "refused"},
		{"echo inside >/rw/inside && cat /rw/inside", "inside"},
		{"echo kept >/data/kept && cat /data/kept", "kept"},
		{"df -k /tmp | tail -1 | awk '{print $2}'", "8192"},
	} {
		if got := strings.TrimSpace(h.OK("exec", "vol", "sh", "-c", c.script)); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(bind, "inside")); err != nil || string(b) != "inside\n" {
		t.Errorf("the bind does not show on the host: %q %v", b, err)
	}
	h.OK("restart", "vol")
	h.Running("vol", 1)
	if got := h.OK("exec", "vol", "cat", "/data/kept"); got != "kept\n" {
		t.Errorf("the named volume after a restart: %q", got)
	}
}

// TestLoopbackPort: a port published on 127.0.0.1 is the host's alone.
func TestLoopbackPort(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	image := r.Ref("busybox")
	serve := "mkdir /w; echo served >/w/index.html; exec httpd -f -p 8000 -h /w"
	h.OK("run", "-d", "--name", "own", "-p", "127.0.0.1::8000", image, "sh", "-c", serve)
	h.OK("run", "-d", "--name", "all", "-p", "8000", image, "sh", "-c", serve)
	h.Running("own", 1)
	h.Running("all", 1)
	own, all := h.Unit("own").Ports[0].HostPort, h.Unit("all").Ports[0].HostPort
	answers(t, fmt.Sprintf("http://127.0.0.1:%d/", own), "served")
	answers(t, fmt.Sprintf("http://127.0.0.1:%d/", all), "served")
	script := fmt.Sprintf(`gw=$(ip route | awk '/default/ {print $3}')
t() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 $1 $2 2>/dev/null | grep -c served; }
for i in $(seq 30); do [ "$(t $gw %[1]d)" = 1 ] && break; done
t $gw %[1]d; t $gw %[2]d; t 127.0.0.1 %[2]d; true`, all, own)
	if out := h.OK("run", "--rm", image, "sh", "-c", script); out != "1\n0\n0\n" {
		t.Errorf("from a container: the public port, the host's own by the gateway, by 127.0.0.1: %q, want 1, 0, 0", out)
	}
}
