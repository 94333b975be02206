package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestExitCodes is the contract of style: what went wrong has a code, and the
// message says what to do.
func TestExitCodes(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("web-1", sleeper(r.Ref("busybox")))
	h.Apply("web-2", sleeper(r.Ref("busybox")))
	for _, c := range []struct {
		code  int
		parts []string
		args  []string
	}{
		{2, []string{"lsit", "did you mean list"}, []string{"lsit"}},
		{2, []string{"--bogus", "wherry ctl status --help"}, []string{"status", "--bogus"}},
		{2, []string{"wherry ctl apply FILE"}, []string{"apply"}},
		{125, []string{"wherry ctl exec UNIT"}, []string{"exec", "web-1"}},
		{2, []string{"name a unit"}, []string{"stop"}},
		{2, []string{"/no/such/file.yaml"}, []string{"apply", "/no/such/file.yaml"}},
		{2, []string{"web-1", "web-2", "ambiguous"}, []string{"status", "web"}},
		{2, []string{"web-1", "web-2", "ambiguous"}, []string{"logs", "web"}},
		{4, []string{"nothing", "wherry ctl list"}, []string{"status", "nothing"}},
		{4, []string{"nothing"}, []string{"inspect", "nothing"}},
		{4, []string{"nothing"}, []string{"start", "nothing"}},
		{4, []string{"web-"}, []string{"rm", "-f", "web-"}}, // exact names only
		{2, []string{"--yes"}, []string{"rm", "web-1"}},
		{2, []string{"--yes"}, []string{"stop", "--all"}},
		{124, []string{"web-1"}, []string{"wait", "--timeout", "100ms", "web-1"}},
		{1, []string{"no-such"}, []string{"pull", r.Addr + "/no-such:1"}},
		{2, []string{"Not A Name"}, []string{"pull", "Not A Name"}},
		{125, []string{"no-such"}, []string{"run", "--rm", r.Addr + "/no-such:1"}},
	} {
		h.Fails(c.code, c.parts, c.args...)
	}
	h.OK("stop", "web-1")
	h.Fails(3, nil, "status", "web-1")
	h.OK("status", "web-2")
	h.Fails(125, []string{"web-1", "wherry ctl status web-1"}, "exec", "web-1", "true")
	for _, args := range [][]string{{"help"}, {"help", "apply"}, {"apply", "--help"}, {"help", "image", "pull"}, {}} {
		if out := h.OK(args...); !strings.Contains(out, "Usage: wherry ctl") {
			t.Errorf("%q prints\n%s", args, out)
		}
	}
	h.OK("rm", "--yes", "web-1")
	h.OK("rm", "-f", "--glob", "web-*")
	h.StopDaemon()
	h.Fails(5, []string{h.Socket, "wherry daemon"}, "status")
	h.Fails(5, nil, "apply", h.WriteUnit("x", "image: x\n"))
	h.Fails(125, nil, "exec", "x", "true")
	h.OK("validate", h.WriteUnit("x", "image: x\n"))
}

// TestApplyMany: several files, a folder and stdin, all or nothing.
func TestApplyMany(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	text := sleeper(r.Ref("busybox"))
	dir := filepath.Join(h.Dir, "many")
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		os.MkdirAll(dir, 0o755)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("a.yaml", text+"depends_on: [b]\n")
	write("b.yml", text)
	write("notes.txt", "not a unit")
	write(".hidden.yaml", "bad: [")
	if out := h.OK("validate", dir); !strings.Contains(out, "unit a is valid") || !strings.Contains(out, "unit b is valid") {
		t.Errorf("validate:\n%s", out)
	}
	if res := h.Fails(1, nil, "diff", dir); !strings.Contains(res.Stdout, "a: create") || !strings.Contains(res.Stdout, "b: create") {
		t.Errorf("diff:\n%s", res.Stdout)
	}
	if out := h.OK("list", "-q"); out != "" {
		t.Errorf("diff made units %q", out)
	}
	bad := write("c.yaml", text+"comand: [x]\n")
	h.Fails(2, []string{"c.yaml:6:1", "command"}, "apply", dir)
	if out := h.OK("list", "-q"); out != "" {
		t.Errorf("a bad file beside good ones made units %q", out)
	}
	h.Fails(2, []string{"c.yaml:6:1"}, "validate", dir)
	os.Remove(bad)
	h.OK("apply", dir)
	if out := h.OK("list", "-q"); out != "a\nb\n" {
		t.Errorf("units %q", out)
	}
	h.OK("diff", dir)
	res := h.Feed("name: c\n"+text, "apply", "-")
	if res.Code != 0 || !strings.Contains(res.Stdout, "c: create") {
		t.Errorf("apply -: %+v", res)
	}
	if res := h.Feed("name: c\n"+text, "diff", "-"); res.Code != 0 {
		t.Errorf("diff - of what is applied: %+v", res)
	}
	if res := h.Feed("name: c\n"+text+"replicas: x\n", "validate", "-"); res.Code != 2 || !strings.Contains(res.Stderr, "-:7:11") {
		t.Errorf("validate -: %+v", res)
	}
	twice := write("again.yaml", "name: b\n"+text)
	h.Fails(2, []string{"b.yml", "again.yaml", "stands in"}, "apply", dir)
	os.Remove(twice)
	h.Fails(2, []string{"no unit file"}, "apply", h.Units)
}

// TestImages: list, inspect and rm, also of what is in use.
func TestImages(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	ref := r.Ref("busybox")
	if res := h.Run("image", "pull", ref); res.Code != 0 || !strings.Contains(res.Stderr, "done") || strings.ContainsAny(res.Stderr, "\r\x1b") {
		t.Errorf("image pull: %+v", res)
	}
	h.OK("pull", ref)
	var list []struct {
		Names  []string
		Digest string
	}
	if err := json.Unmarshal([]byte(h.OK("image", "list", "--format", "json")), &list); err != nil || len(list) != 1 || !slices.Equal(list[0].Names, []string{ref}) {
		t.Fatalf("image list: %+v, %v", list, err)
	}
	for _, name := range []string{ref, r.Addr + "/busybox", list[0].Digest, r.Addr + "/busybox@" + list[0].Digest} {
		if out := h.OK("image", "inspect", name); !strings.Contains(out, list[0].Digest) {
			t.Errorf("image inspect %s:\n%s", name, out)
		}
	}
	h.Fails(1, []string{"no such image", "nothing:1"}, "image", "inspect", "nothing:1")
	h.Apply("user", sleeper(r.Addr+"/busybox@"+list[0].Digest))
	h.Fails(1, []string{"in use", "user.1"}, "image", "rm", "--yes", ref)
	h.OK("exec", "user", "true")
	h.OK("rm", "-f", "user")
	h.Fails(2, []string{"--yes"}, "image", "rm", ref)
	h.OK("image", "rm", "--yes", ref)
	h.Fails(1, []string{"no such image"}, "image", "rm", "--yes", ref)
}

// TestReload: a good file is applied, a bad one changes nothing and is named
// with line and column.
func TestReload(t *testing.T) {
	h := harness.NewHost(t)
	h.Config = "logging: {max_size: 1MiB}\n"
	h.Start()
	config := h.Dir + "/wherry.yaml"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("loging: {}\n")
	h.Fails(2, []string{config + ":1:1", `"logging"`}, "reload")
	write("logging: {max_size: 2MiB}\nregistries: {reg.example: {insecure: true}}\n")
	if out := h.OK("reload"); !strings.Contains(out, "logging") {
		t.Errorf("reload: %q", out)
	}
	if out := h.OK("reload"); !strings.Contains(out, "nothing") {
		t.Errorf("reload of the same: %q", out)
	}
	write("logging: {max_size: 2MiB}\nnetwork: {subnet: 10.254.0.0/20}\n")
	res := h.Run("reload")
	if res.Code != 0 || !strings.Contains(res.Stdout+res.Stderr, "restart") {
		t.Errorf("reload of what needs a restart: %+v", res)
	}
	h.OK("status")
}

// TestUnitsFolder: a file that appears is applied, one that changes is applied
// again, and one that breaks leaves what runs and says so in status.
func TestUnitsFolder(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	text := sleeper(r.Ref("busybox"))
	file := filepath.Join(h.Units, "w.yaml")
	drop := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	revision := func(n int) {
		t.Helper()
		harness.Eventually(t, 30*time.Second, fmt.Sprintf("w runs at revision %d", n), func() bool {
			if !strings.Contains(h.OK("list", "-q"), "w") {
				return false
			}
			in := instance(h, "w")
			return in.State == "running" && in.Revision == n
		})
	}
	drop(text)
	revision(1)
	drop(text + "environment: {A: b}\n")
	revision(2)
	pid := h.Running("w", 1).Pid
	drop(text + "comand: [x]\n")
	harness.Eventually(t, 30*time.Second, "status tells of the broken file", func() bool {
		res := h.Run("status", "w")
		return strings.Contains(res.Stdout+res.Stderr, file+":6:1")
	})
	if !strings.Contains(h.OK("status"), "is not applied") {
		t.Errorf("status:\n%s", h.OK("status"))
	}
	if in := h.Running("w", 1); in.Pid != pid || in.Revision != 2 {
		t.Errorf("the broken file changed what runs: %+v", in)
	}
	// A daemon that starts over a broken file keeps the revision too.
	h.KillDaemon()
	h.Start()
	if in := h.Running("w", 1); in.Pid != pid || in.Revision != 2 {
		t.Errorf("the daemon that found the broken file changed what runs: %+v", in)
	}
	drop(text + "environment: {A: c}\n")
	revision(3)
	if u := h.Unit("w"); u.Pending != nil {
		t.Errorf("still pending: %+v", u.Pending)
	}
	// A file made beside and renamed, as editors do.
	if err := os.WriteFile(file+".tmp", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
	revision(4)
}

// TestDaemonStops: containers do not notice that a daemon is stopped, nor that
// another one was refused meanwhile.
func TestDaemonStops(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	counter(h, r)
	in := h.Running("count", 1)
	n := growsBeyond(t, h, 5)
	if out, err := h.SecondDaemon(); err == nil || !strings.Contains(out, h.Root) {
		t.Errorf("a second daemon: %v\n%s", err, out)
	}
	h.OK("status") // the socket is still the first one's
	h.StopDaemon()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", in.Pid)); err != nil {
		t.Fatal("the container ended with the daemon")
	}
	h.Start()
	if got := h.Running("count", 1); got.Pid != in.Pid || got.Restarts != 0 {
		t.Errorf("pid %d after %d restarts, was %d", got.Pid, got.Restarts, in.Pid)
	}
	growsBeyond(t, h, n+20)
}
