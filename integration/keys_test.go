package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// told is what a unit that prints and sleeps has told, once it has told "end".
func told(t *testing.T, h *harness.Host, unit string) string {
	t.Helper()
	var out string
	harness.Eventually(t, 30*time.Second, unit+" has told all", func() bool {
		out = h.Run("logs", unit).Stdout
		return strings.HasSuffix(out, "end\n")
	})
	return strings.TrimSuffix(out, "end\n")
}

// TestProcessKeys: what a unit and its image say about the process is what the
// process finds.
func TestProcessKeys(t *testing.T) {
	r := liar(t)
	h := harness.StartHost(t)
	image := imagetest.Image{
		Layers: []imagetest.Layer{tools(t), imagetest.NewLayer(
			imagetest.Entry{Name: "etc/passwd", Body: "root:x:0:0::/root:/bin/sh\napp:x:1234:2345::/home/app:/bin/sh\n"},
			imagetest.Entry{Name: "etc/group", Body: "root:x:0:\napps:x:2345:\nextra:x:3456:app\n"},
			imagetest.Entry{Name: "srv/", Mode: 0o755}, imagetest.Entry{Name: "home/app/", UID: 1234, GID: 2345},
		)},
		Config: v1.Config{
			Entrypoint: []string{"/bin/busybox", "sh", "-c", `echo default $0 $*; echo end; sleep 1000`},
			Cmd:        []string{"one", "two"}, Env: []string{"PATH=/bin", "FROM=image", "KEPT=image"}, WorkingDir: "/srv",
		},
	}
	if _, err := r.Push("keys:1", image); err != nil {
		t.Fatal(err)
	}
	ref := r.Host + "/keys:1"
	if err := os.WriteFile(filepath.Join(h.Dir, "one.env"), []byte("# words\nFROM=file\nFILE=one\nTWICE=one\nSPACES=a  b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "two.env"), []byte("TWICE=two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	show := func(script string) string { return `[/bin/sh, -c, '` + script + `; echo end; sleep 1000']` }
	for _, c := range []struct{ name, keys, want string }{
		{"image", "", "default one two\n"},
		{"command", "command: [three]", "default three\n"},
		{"emptied", "entrypoint: " + show("echo own $0"), "own /bin/sh\n"},
		{"both", "entrypoint: [/bin/busybox]\ncommand: [sh, -c, 'echo \"$0\"; echo end; sleep 1000', word]", "word\n"},
		{"env", "env_file: [one.env, {path: two.env}, {path: none.env, required: false}]\nenvironment: {OWN: 'a $x', FILE: unit}\nentrypoint: " +
			show(`echo $FROM $KEPT $FILE $TWICE "$SPACES" "$OWN"`), "file image unit two a  b a $x\n"},
		{"list", "environment: [A=1, B=]\nentrypoint: " + show(`echo "$A,$B,$${C-unset}"`), "1,,unset\n"},
		{"workdir", "working_dir: /home/app\nentrypoint: " + show("pwd"), "/home/app\n"},
		{"newdir", "working_dir: /not/there/yet\nentrypoint: " + show("pwd"), "/not/there/yet\n"},
		{"byname", "user: app\nentrypoint: " + show("/bin/busybox id -u; /bin/busybox id -G; echo $HOME; pwd"), "1234\n2345 3456\n/home/app\n/srv\n"},
		{"group", "user: app:extra\nentrypoint: " + show("/bin/busybox id -u; /bin/busybox id -g"), "1234\n3456\n"},
		{"number", "user: \"77:88\"\nentrypoint: " + show("/bin/busybox id -u; /bin/busybox id -g"), "77\n88\n"},
		{"initless", "init: false\nentrypoint: " + show("echo $$"), "1\n"},
		{"readonly", "read_only: true\nvolumes: [{type: tmpfs, target: /tmp}, 'data:/data']\nentrypoint: " +
			show("for d in / /etc /tmp /data; do echo x >$d/x 2>/dev/null && echo $d; done"), "/tmp\n/data\n"},
		{"capadd", "cap_add: [NET_ADMIN]\ncap_drop: [CHOWN]\nentrypoint: " + show("/bin/busybox grep CapEff /proc/self/status | /bin/busybox cut -f2"), "00000000a80435fa\n"},
		{"capnone", "cap_drop: [ALL]\nentrypoint: " + show("/bin/busybox grep CapEff /proc/self/status | /bin/busybox cut -f2"), "0000000000000000\n"},
		{"capone", "cap_drop: [all]\ncap_add: [CAP_NET_BIND_SERVICE]\nentrypoint: " + show("/bin/busybox grep CapEff /proc/self/status | /bin/busybox cut -f2"), "0000000000000400\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.Apply(c.name, "image: "+ref+"\nnetwork: none\nstop_grace_period: 1s\n"+c.keys+"\n")
			if got := told(t, h, c.name); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			h.OK("rm", "-f", c.name)
		})
	}
}

// TestLabels stand in inspect, and in the list of Docker's shape.
func TestLabels(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("l", sleeper(r.Ref("busybox"))+"labels: {team: payments, a.b/c: \"1\"}\n")
	if got := h.OK("inspect", "-f", `{{index .Config.Labels "team"}} {{index .Config.Labels "a.b/c"}}`, "l"); got != "payments 1\n" {
		t.Errorf("inspect: %q", got)
	}
	if u := h.Unit("l"); u.Labels["team"] != "payments" {
		t.Errorf("labels %v", u.Labels)
	}
}

// TestStopping: the signal and the patience that a unit asks for.
func TestStopping(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	for _, c := range []struct {
		name, keys, script string
		code               int
		signal             string
	}{
		{"own", "stop_signal: SIGUSR1\nstop_grace_period: 1m", "trap 'exit 42' USR1; trap '' TERM; echo end; while :; do sleep 0.1; done", 42, ""},
		{"number", "stop_signal: 12\nstop_grace_period: 1m", "trap 'exit 43' USR2; echo end; while :; do sleep 0.1; done", 43, ""},
		{"deaf", "stop_grace_period: 300ms", "trap '' TERM; echo end; while :; do sleep 0.1; done", 0, "SIGKILL"},
		{"bare", "init: false\nstop_grace_period: 1m", "trap 'exit 44' TERM; echo end; while :; do sleep 0.1; done", 44, ""},
		{"plain", "stop_grace_period: 1m", "echo end; exec sleep 1000", 0, "SIGTERM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.Apply(c.name, fmt.Sprintf("image: %s\nnetwork: none\n%s\ncommand: [sh, -c, \"%s\"]\n", r.Ref("busybox"), c.keys, c.script))
			told(t, h, c.name)
			h.OK("stop", c.name)
			in := instance(h, c.name)
			if in.State != "stopped" || in.Exit == nil || in.Exit.Signal != c.signal || c.signal == "" && in.Exit.Code != c.code {
				t.Errorf("%s, exit %+v, want code %d, signal %q", in.State, in.Exit, c.code, c.signal)
			}
		})
	}
}

// TestReplicas: apply scales up, down and to nothing, and leaves alone what may stay.
func TestReplicas(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	before := map[string]string{} // the run of each instance
	for _, n := range []int{1, 4, 2, 0, 3} {
		h.Apply("s", sleeper(r.Ref("busybox"))+fmt.Sprintf("replicas: %d\n", n))
		harness.Eventually(t, 30*time.Second, fmt.Sprintf("%d replicas run", n), func() bool {
			u := h.Unit("s")
			for _, i := range u.Instances {
				if i.State != "running" {
					return false
				}
			}
			return u.Running == n && len(u.Instances) == n
		})
		u := h.Unit("s")
		if n == 0 && u.State != "stopped" {
			t.Errorf("state %s with no replicas", u.State)
		}
		now := map[string]string{}
		for _, i := range u.Instances {
			if now[i.Name] = i.Run; before[i.Name] != "" && before[i.Name] != i.Run {
				t.Errorf("%d replicas: %s was replaced, run %s by %s", n, i.Name, before[i.Name], i.Run)
			}
		}
		before = now
	}
}
