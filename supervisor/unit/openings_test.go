package unit

import (
	"encoding/json"
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

func TestRunOpenings(t *testing.T) {
	u, err := FromRun(RunFlags{
		Image: "nginx", Hostname: "box", UserNS: "host", PID: "host", IPC: "host", Privileged: true, ShmSize: "1048576", OOMScoreAdj: "5",
		Devices: []string{"/dev/fuse:r", "a.b/c=d"}, Sysctls: []string{"net.core.somaxconn=1024"}, Ulimits: []string{"nofile=1:2", "core=unlimited", "nofile=3"},
		GroupAdd: []string{"video", "44", "44"}, SecurityOpt: []string{"no-new-privileges", "seccomp=p.json", "apparmor:unconfined", "label=disable"},
		ReadFile: func(name string) ([]byte, error) { return []byte(`{"defaultAction": "SCMP_ACT_ALLOW"}`), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	c := u.Containers[0]
	want := Container{
		Devices: []Device{{"/dev/fuse", "/dev/fuse", "r"}}, CDI: []string{"a.b/c=d"}, Privileged: true,
		Seccomp: "p.json", SeccompProfile: json.RawMessage(`{"defaultAction":"SCMP_ACT_ALLOW"}`), AppArmor: "unconfined", SELinux: "disable",
		Ulimits: []Ulimit{{"core", -1, -1}, {"nofile", 3, 3}}, GroupAdd: []string{"video", "44"}, OOMScoreAdj: 5, ShmSize: 1 << 20,
	}
	want.Name, want.Image, want.PullPolicy, want.StopGracePeriod, want.Init = c.Name, c.Image, c.PullPolicy, c.StopGracePeriod, c.Init
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
	if u.Hostname != "box" || u.UserNS != "host" || u.PID != "host" || u.IPC != "host" || u.Sysctls["net.core.somaxconn"] != "1024" {
		t.Errorf("unit %+v", u)
	}
	if u, _ := FromRun(RunFlags{Image: "nginx", Privileged: true}); !u.Containers[0].NewPrivileges {
		t.Error("nobody gains privileges in a privileged container")
	}
}

func TestRunOpeningErrors(t *testing.T) {
	for want, f := range map[string]RunFlags{
		"--device":        {Devices: []string{"x"}},
		"--sysctl":        {Sysctls: []string{"net.core.somaxconn=1"}, Network: "host"},
		"--ulimit":        {Ulimits: []string{"nofile"}},
		"--group-add":     {GroupAdd: []string{" "}},
		"--shm-size":      {ShmSize: "12"},
		"--oom-score-adj": {OOMScoreAdj: "x"},
		"--hostname":      {Hostname: "a b"},
		"--pid":           {PID: "shared"},
		"--ipc":           {IPC: "mine"},
		"--userns":        {UserNS: "keep-id"},
		"--privileged":    {UserNS: "required", Privileged: true},
		"--cap-drop":      {Privileged: true, CapDrop: []string{"ALL"}},
		"--security-opt":  {SecurityOpt: []string{"seccomp=absent"}, ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist }},
	} {
		f.Image = "nginx"
		if _, err := FromRun(f); err == nil || !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// What the daemon gives to every container a unit may change.
func TestDefaultOpenings(t *testing.T) {
	d := Defaults{ShmSize: 1 << 20, Ulimits: []Ulimit{{"core", 0, 0}, {"nofile", 10, 20}}}
	for text, want := range map[string]Container{
		"image: a\n": {ShmSize: 1 << 20, Ulimits: d.Ulimits},
		"image: a\nshm_size: 2m\nulimits: {nofile: 5, as: 7}\n": {ShmSize: 2 << 20, Ulimits: []Ulimit{{"as", 7, 7}, {"core", 0, 0}, {"nofile", 5, 5}}},
	} {
		u, _, err := Parse("web.yaml", []byte(text), Options{Defaults: d})
		if err != nil {
			t.Fatal(err)
		}
		if c := u.Containers[0]; c.ShmSize != want.ShmSize || !reflect.DeepEqual(c.Ulimits, want.Ulimits) {
			t.Errorf("%q: %d %v", text, c.ShmSize, c.Ulimits)
		}
	}
	if d.Ulimits[1].Soft != 10 {
		t.Error("a unit changed the defaults")
	}
}

func TestParseDevice(t *testing.T) {
	for in, want := range map[string]Device{
		"/dev/a":           {"/dev/a", "/dev/a", "rwm"},
		"/dev/a:/dev/b":    {"/dev/a", "/dev/b", "rwm"},
		"/dev/a:rw":        {"/dev/a", "/dev/a", "rw"},
		"/dev//a:/dev/b:m": {"/dev/a", "/dev/b", "m"},
		"a":                {}, "": {}, "/": {}, "/dev/a:": {Source: "/dev/a", Target: "/dev/a", Permissions: "rwm"}, "/dev/a:rr": {}, "/dev/a:/dev/b:x": {},
	} {
		got, err := ParseDevice(in)
		if got != want || (err != nil) != (want == Device{}) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]bool{
		"nvidia.com/gpu=all": true, "v/c=0:1": true, "/dev/a": false, "v/c": false, "v/c=": false, "/c=a": false, "v/=a": false, "v/c=a/b": false, "=": false,
	} {
		if isCDI(in) != want {
			t.Errorf("%q: %v", in, !want)
		}
	}
}
