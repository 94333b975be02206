package security

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func parse(t *testing.T, text string) unit.Unit {
	t.Helper()
	u, _, err := unit.Parse("/u/web.yaml", []byte(text), unit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// keys are the report's openings, the heaviest first.
func keys(r Report) string {
	var list []string
	for _, o := range r.Openings {
		list = append(list, o.Key)
	}
	return strings.Join(list, " ")
}

func TestAssess(t *testing.T) {
	const closed = "image: a\nuser: '1000'\nread_only: true\ncap_drop: [ALL]\nresources: {limits: {memory: 64MiB, pids: 50}}\n"
	for _, c := range []struct {
		name, text, keys, level string
		least, most             float64
	}{
		{"closed", closed, "", "closed", 0, 0},
		{"defaults", "image: a\n", "cap_drop resources.limits.memory resources.limits.pids read_only user", "closed", 1, 2},
		{"all", "image: a\nprivileged: true\nuserns: host\npid: host\nnetwork: host\nipc: host\n",
			"privileged pid network ipc userns no_new_privileges user resources.limits.memory resources.limits.pids read_only", "unsafe", 9.9, 10},
		{"socket", closed + "volumes: [\"/var/run/docker.sock:/var/run/docker.sock:ro\"]\n", "volumes", "unsafe", 9, 9},
		{"root", closed + "volumes: [\"/:/host:ro\"]\n", "volumes", "exposed", 5, 5},
		{"etc", closed + "volumes: [\"/etc/ssl:/etc/ssl:ro\"]\n", "volumes", "closed", 0.7, 0.7},
		{"volume", closed + "volumes: [\"data:/data\"]\n", "", "closed", 0, 0},
		{"published", closed + "ports: [\"80:80\", \"127.0.0.1:81:81\"]\n", "ports", "closed", 0.3, 0.3},
		{"disk", closed + "devices: [/dev/sda]\n", "devices", "exposed", 7, 7},
		{"gpu", closed + "devices: [nvidia.com/gpu=all]\n", "devices", "closed", 1.5, 1.5},
		{"profiles", closed + "seccomp: unconfined\napparmor: unconfined\nselinux: disable\n", "seccomp selinux apparmor", "ok", 4, 5},
		{"admin", closed + "cap_add: [SYS_ADMIN]\n", "cap_add", "ok", 2.1, 2.1},
		{"admin of the host", closed + "cap_add: [SYS_ADMIN]\nuserns: host\n", "cap_add userns", "exposed", 7, 8},
	} {
		r := Assess(parse(t, c.text), nil)
		if got := keys(r); got != c.keys || r.Level != c.level || r.Score < c.least || r.Score > c.most {
			t.Errorf("%s: %v %s: %s", c.name, r.Score, r.Level, got)
		}
		for _, o := range r.Openings {
			if o.Allows == "" || o.Close == "" || o.Weight <= 0 || o.Weight > 10 {
				t.Errorf("%s: %+v", c.name, o)
			}
		}
	}
}

// What runs counts more than what is written.
func TestAssessFacts(t *testing.T) {
	u := parse(t, "image: a\nread_only: true\ncap_drop: [ALL]\nresources: {limits: {memory: 64MiB, pids: 50}}\n")
	good := Fact{Instance: "web.1", Container: "app", UserNS: true, UID: 1000, Seccomp: "filter", NoNewPrivileges: true}
	if r := Assess(u, []Fact{good}); r.Score != 0 {
		t.Errorf("%+v", r)
	}
	bad := Fact{Instance: "web.2", Container: "app", NoUserNS: "the kernel has none", Seccomp: "none"}
	r := Assess(u, []Fact{good, bad})
	if got := keys(r); got != "seccomp userns no_new_privileges user" {
		t.Errorf("%s", got)
	}
	for _, o := range r.Openings {
		if o.Seen != "web.2" {
			t.Errorf("%+v", o)
		}
	}
	if !strings.Contains(r.Openings[1].Allows, "the kernel has none") {
		t.Errorf("%+v", r.Openings[1])
	}
}

// The weakest of several containers counts, and each opening names its own.
func TestAssessContainers(t *testing.T) {
	u := parse(t, "image: a\n")
	second := u.Containers[0]
	second.Name, second.CapAdd = "side", []string{"SYS_MODULE"}
	alone := Assess(unit.Unit{Name: "web", Containers: []unit.Container{second}}, nil).Score
	u.Containers = append(u.Containers, second)
	r := Assess(u, nil)
	if r.Score != alone || r.Openings[0].Key != "cap_add" || r.Openings[0].Container != "side" {
		t.Errorf("%v, alone %v: %+v", r.Score, alone, r.Openings[0])
	}
}

// One more opening never makes the score better, and equal input gives equal reports.
func TestAssessOnlyGrows(t *testing.T) {
	changes := []func(*unit.Unit){
		func(u *unit.Unit) { u.Containers[0].Privileged = true },
		func(u *unit.Unit) { u.UserNS = "host" },
		func(u *unit.Unit) { u.Network = "host" },
		func(u *unit.Unit) { u.PID = "host" },
		func(u *unit.Unit) { u.IPC = "host" },
		func(u *unit.Unit) { u.Containers[0].CapAdd = append(u.Containers[0].CapAdd, "SYS_PTRACE") },
		func(u *unit.Unit) { u.Containers[0].NewPrivileges = true },
		func(u *unit.Unit) { u.Containers[0].User = "root" },
		func(u *unit.Unit) { u.Containers[0].Limits = cgroup.Limits{} },
		func(u *unit.Unit) {
			u.Containers[0].Volumes = append(u.Containers[0].Volumes, unit.Volume{Type: "bind", Source: "/srv/a", Target: "/a"})
		},
	}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		u := parse(t, "image: a\nuser: '1'\nread_only: true\ncap_drop: [ALL]\nresources: {limits: {memory: 64MiB, pids: 50}}\n")
		last := 0.0
		for _, i := range random.Perm(len(changes)) {
			changes[i](&u)
			r := Assess(u, nil)
			if r.Score < last {
				t.Fatalf("seed %d: change %d takes the score from %v to %v", seed, i, last, r.Score)
			}
			last = r.Score
			if again := Assess(u, nil); !reflect.DeepEqual(r, again) {
				t.Fatal("two reports of one unit differ")
			}
			if !slices.IsSortedFunc(r.Openings, func(a, b Opening) int { return int((b.Weight - a.Weight) * 1000) }) {
				t.Fatal("not the heaviest first")
			}
		}
	}
}

func TestReportJSON(t *testing.T) {
	b, err := json.Marshal(Assess(parse(t, "image: a\nuser: '1'\nread_only: true\ncap_drop: [ALL]\nresources: {limits: {memory: 64MiB, pids: 50}}\n"), nil))
	if want := `{"unit":"web","score":0,"level":"closed","openings":[]}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}
