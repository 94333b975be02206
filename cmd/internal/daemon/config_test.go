package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/supervisor/unit"
)

func noEnv(string) string { return "" }

func TestEveryKey(t *testing.T) {
	c := defaults(noEnv)
	err := parseConfig("wherry.yaml", []byte(`
root: /a/
run_dir: /b
units: /c
socket: /d/s
keeper: /e
auto_apply: false
cgroup_parent: f
network: {bridge: g, subnet: 10.1.0.0/16}
registries:
  r.example.com:5000: {insecure: true}
  "q.example.com":
    insecure: false
docker_config: /h.json
logging:
  max_size: 1MiB
  max_file: 7
  total: 5GiB
`), &c)
	if err != nil {
		t.Fatal(err)
	}
	o := c.Options("1.2.3")
	if o.Root != "/a" || o.RunDir != "/b" || o.Units != "/c" || o.Socket != "/d/s" || o.Keeper != "/e" || !o.NoAutoApply ||
		o.CgroupParent != "f" || o.Bridge != "g" || o.Subnet != netip.MustParsePrefix("10.1.0.0/16") || o.DockerConfig != "/h.json" ||
		o.Logging != (unit.Logging{MaxSize: 1 << 20, MaxFile: 7}) || o.LogTotal != 5<<30 || o.Version != "1.2.3" {
		t.Errorf("%+v", o)
	}
	if len(o.Registries) != 2 || !o.Registries["r.example.com:5000"].Insecure || o.Registries["q.example.com"].Insecure {
		t.Errorf("registries %+v", o.Registries)
	}
}

func TestDefaults(t *testing.T) {
	for _, empty := range []string{"", "# nothing\n", "---\n", "network:\n"} {
		c := defaults(noEnv)
		if err := parseConfig("wherry.yaml", []byte(empty), &c); err != nil {
			t.Fatalf("%q: %v", empty, err)
		}
		o := c.Options("")
		if o.Root != "/var/lib/wherry" || o.Socket != "/run/wherry/wherry.sock" || o.NoAutoApply || o.Bridge != "wherry0" || o.Subnet.IsValid() {
			t.Errorf("%q: %+v", empty, o)
		}
	}
	if c := (Config{RunDir: "/x"}); c.Options("").Socket != "/x/wherry.sock" {
		t.Error("the socket stands in the run folder")
	}
}

// The help names every key that exists, and its default.
func TestHelpNamesTheKeys(t *testing.T) {
	help := keysHelp()
	for _, want := range []string{"root ", "network.subnet ", "registries.HOST.insecure ", "logging.max_file ", "registries.HOST.credentials.password_file ", "gc.high ", "require ", "signers[].trusted_root ", "cgroup_driver ", "shutdown.budget ", "/var/lib/wherry", "10MiB"} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in\n%s", want, help)
		}
	}
	if strings.Contains(help, "metrics") {
		t.Error("the help names a key that does not exist yet")
	}
}

func TestFaultyFiles(t *testing.T) {
	for text, want := range map[string]string{
		"root: [":                                "w.yaml:1:7: ",
		"- a\n":                                  "w.yaml:1:1: want a map of keys and values",
		"root: /a\nroot: /b\n":                   "w.yaml:2:1: ",
		"root: ''\n":                             `w.yaml:1:7: want text, not nothing, leave the key out for its default`,
		"root:\n":                                "w.yaml:1:7: want text",
		"root: /a\n---\nb: 1":                    "w.yaml:3:",
		"auto_apply: on\n":                       `w.yaml:1:13: want true or false, not "on", write true`,
		"network:\n\tbridge: x\n":                `w.yaml:2:1: found character '\t' that cannot start any token, indent with blanks`,
		"netwrok: {}\n":                          `w.yaml:1:1: unknown key "netwrok", did you mean "network"?`,
		"zzzz: 1\n":                              `w.yaml:1:1: unknown key "zzzz"`,
		"network: 5\n":                           "w.yaml:1:10: want a map",
		"registries: {a: 5}\n":                   "w.yaml:1:17: want a map",
		"network: {bridge: [a:5]}\n":             "w.yaml:1:",
		"registries: {a: {mirrors: [b:5000]}}\n": "want text, a text with a colon in it needs quotes",
		"metrics: {}\n":                          "w.yaml:1:1: metrics: not supported yet",
		"cgroup_driver: crun\n":                  `w.yaml:1:16: "crun" is unknown, it is cgroupfs or systemd`,
		"shutdown: {budget: 0s}\n":               "w.yaml:1:20: a shutdown needs some time, such as 1m",
		"shutdown: {budget: 30}\n":               "w.yaml:1:20: ",
	} {
		c := defaults(noEnv)
		err := parseConfig("w.yaml", []byte(text), &c)
		var all unit.Errors
		if !errors.As(err, &all) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestFlagsWin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wherry.yaml")
	if err := os.WriteFile(file, []byte("root: /file\nrun_dir: /run-of-file\nnetwork: {subnet: 10.1.0.0/16}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, _, err := load(flags{config: file, root: "/flag", subnet: "10.2.0.0/16"}, "v")
	if err != nil || o.Root != "/flag" || o.RunDir != "/run-of-file" || o.Subnet.String() != "10.2.0.0/16" {
		t.Errorf("%+v, %v", o, err)
	}
	if _, _, err := load(flags{config: file + ".gone"}, "v"); err == nil {
		t.Error("a file that was named must be there")
	}
}

func TestDockerConfig(t *testing.T) {
	dir := t.TempDir()
	env := func(string) string { return dir }
	if c := defaults(env); c.DockerConfig != "" {
		t.Error("a file that is not there is used")
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := defaults(env); c.DockerConfig != file {
		t.Errorf("docker config %q", c.DockerConfig)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("root: /a\nnetwork: {bridge: b}\n")
	f.Add("registries: {a: {insecure: true}}\n&a x: *a\n")
	f.Add("registries: {a: {mirrors: [b], policy: [{require: signed, signers: [{key: /k}]}], credentials: {helper: x}}}\ngc: {high: 90%, low: 1}\n")
	f.Fuzz(func(_ *testing.T, text string) {
		c := defaults(noEnv)
		_ = parseConfig("w.yaml", []byte(text), &c)

	})
}
