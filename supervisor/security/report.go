package security

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// Report is what a unit opens.
type Report struct {
	Unit     string    `json:"unit"`
	Score    float64   `json:"score"` // 0 to 10, one digit behind the point
	Level    string    `json:"level"` // closed, ok, exposed, unsafe
	Openings []Opening `json:"openings"`
	Running  []Fact    `json:"running,omitempty"` // what was seen
}

// Opening is one way in which a container is less closed than it could be.
type Opening struct {
	Container string  `json:"container,omitempty"` // empty: all of the unit
	Key       string  `json:"key"`                 // of the unit file
	Weight    float64 `json:"weight"`
	Allows    string  `json:"allows"`
	Close     string  `json:"close"`          // what to write
	Seen      string  `json:"seen,omitempty"` // the instance that runs so, if the unit does not say it
}

// Fact is what was seen of a running container.
type Fact struct {
	Instance        string   `json:"instance"`
	Container       string   `json:"container"`
	Pid             int      `json:"pid"`
	UserNS          bool     `json:"userns"`
	NoUserNS        string   `json:"no_userns,omitempty"` // why it has none
	UID             int      `json:"uid"`                 // inside
	Seccomp         string   `json:"seccomp"`             // none, strict, filter
	NoNewPrivileges bool     `json:"no_new_privileges"`
	Capabilities    []string `json:"capabilities"` // that its processes can have at all
	AppArmor        string   `json:"apparmor,omitempty"`
	SELinux         string   `json:"selinux,omitempty"`
}

// Assess lists what the unit opens; facts are of its running containers, if any.
func Assess(u unit.Unit, facts []Fact) Report {
	r := Report{Unit: u.Name, Running: facts, Openings: []Opening{}}
	a := assessment{unit: &u, facts: facts}
	a.shared()
	common := a.found
	score := total(common)
	r.Openings = append(r.Openings, common...)
	for i := range u.Containers {
		c := &u.Containers[i]
		a.found = nil
		a.container(c)
		if len(u.Containers) > 1 {
			for n := range a.found {
				a.found[n].Container = c.Name
			}
		}
		r.Openings = append(r.Openings, a.found...)
		score = max(score, total(slices.Concat(common, a.found))) // the weakest counts
	}
	slices.SortStableFunc(r.Openings, func(a, b Opening) int { return cmp.Compare(b.Weight, a.Weight) })
	r.Score = math.Round(score*10) / 10
	r.Level = level(r.Score)
	return r
}

// total adds weights up so that many small openings approach a large one: each takes its
// share of what the others have left closed.
func total(list []Opening) float64 {
	closed := 1.0
	for _, o := range list {
		closed *= 1 - o.Weight/10
	}
	return 10 * (1 - closed)
}

// level says a score in a word.
func level(score float64) string {
	switch {
	case score < 2:
		return "closed"
	case score < 5:
		return "ok"
	case score < 8:
		return "exposed"
	}
	return "unsafe"
}

// assessment collects openings.
type assessment struct {
	unit  *unit.Unit
	facts []Fact
	found []Opening
}

func (a *assessment) add(weight float64, key, allows, close string) {
	a.found = append(a.found, Opening{Key: key, Weight: weight, Allows: allows, Close: close})
}

// seen is the first fact of the container that holds; nil: none.
func (a *assessment) seen(container string, holds func(Fact) bool) *Fact {
	for i, f := range a.facts {
		if (container == "" || f.Container == container) && holds(f) {
			return &a.facts[i]
		}
	}
	return nil
}

// shared are the openings of all containers of a run.
func (a *assessment) shared() {
	u := a.unit
	if u.Network == "host" {
		a.add(3, "network", "the host's network: every address and port of it, and services that listen on localhost", "network: bridge, with ports")
	}
	if u.PID == "host" {
		a.add(4, "pid", "to see the host's processes, and to signal those of the same user", "leave pid out")
	}
	if u.IPC == "host" {
		a.add(2.5, "ipc", "the host's shared memory, semaphores and message queues", "leave ipc out")
	}
	if len(u.Sysctls) > 0 {
		a.add(0.2, "sysctls", "kernel parameters of its own namespaces to differ", "leave sysctls out")
	}
	for _, p := range u.Ports {
		if p.HostIP == "" || p.HostIP == "0.0.0.0" || p.HostIP == "::" {
			a.add(0.3, "ports", p.String()+": everybody who reaches the host to connect", `write an address: "127.0.0.1:`+strings.TrimPrefix(p.String(), p.HostIP+":")+`"`)
		}
	}
	a.users()
}

// users: without a user namespace root inside is root, behind the other walls.
func (a *assessment) users() {
	const allows, close = "root inside to be the host's root, should another wall fail", "userns: required"
	if a.unit.UserNS == "host" {
		a.add(2, "userns", allows, close)
		return
	}
	if f := a.seen("", func(f Fact) bool { return !f.UserNS }); f != nil {
		why := ""
		if f.NoUserNS != "" {
			why = " (" + f.NoUserNS + ")"
		}
		a.add(2, "userns", allows+why, close)
		a.found[len(a.found)-1].Seen = f.Instance
	}
}

// mapped tells whether the containers are known to have a user namespace, or will.
func (a *assessment) mapped() bool {
	if len(a.facts) > 0 {
		return a.seen("", func(f Fact) bool { return !f.UserNS }) == nil
	}
	return a.unit.UserNS != "host"
}
