package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/usernamespace"
)

// A unit as everybody writes it runs in a user namespace, and its volume has the
// owners that it knows, before and after.
func TestRealUserNamespace(t *testing.T) {
	h := newHost(t)
	if err := usernamespace.Kernel(); err != nil {
		t.Skip(err)
	}
	if err := usernamespace.Probe(filepath.Dir(h.opts.Root), false); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(filepath.Dir(h.opts.Root), 0o711); err != nil {
		t.Fatal(err)
	}
	h.begin()
	h.apply("name: web\nimage: " + h.image + "\nuserns: required\nvolumes: [\"data:/data\"]\n" +
		"command: [sh, -c, \"cat /proc/self/uid_map; touch /data/made; chown 7:8 /data/made; stat -c %u:%g /data/made /etc/hosts; " +
		"echo 10.0.0.1 x >>/etc/hosts && echo written; nc -l -p 80 & sleep 0.2; netstat -ltn | grep -c :80; exec sleep 1000\"]\n")
	h.state("web", "running")
	var out string
	h.until("the output", func() bool { out = h.logs("web"); return strings.Contains(out, "written") })
	if !strings.Contains(out, "7:8") || !strings.Contains(out, "0:0") {
		t.Errorf("it says:\n%s", out)
	}
	i := h.unit("web").Instances[0]
	if !strings.HasPrefix(i.UserNS, "ids from ") || !strings.Contains(out, strings.TrimPrefix(i.UserNS, "ids from ")) {
		t.Errorf("status says %q, the container:\n%s", i.UserNS, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(h.opts.Root, "volumes/data/data/made"), &st); err != nil || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("on the host: %d:%d, %v", st.Uid, st.Gid, err)
	}
	h.apply("name: again\nimage: " + h.image + "\nuserns: host\nvolumes: [\"data:/data\"]\ncommand: [sh, -c, \"stat -c %u:%g /data/made; exec sleep 1000\"]\n")
	h.state("again", "running")
	h.until("the owners", func() bool { return strings.Contains(h.logs("again"), "7:8") })
	if got := h.unit("again").Instances[0].UserNS; got != "none: the unit says userns: host" {
		t.Errorf("status says %q", got)
	}
	h.end()
}

// until waits for what a healthy host does soon.
func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.t.Fatalf("%s: not in time", what)
}
