package supervisor

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/security"
)

// Security lists what a unit opens towards the host, as its definition says and as its
// containers run.
func (s *Supervisor) Security(_ context.Context, name string) (api.Security, error) {
	e := s.snap.Load().find(name)
	if e == nil {
		return api.Security{}, noSuchUnit(name)
	}
	def := e.rev.Definition
	if def.UserNS == "" {
		def.UserNS = s.opts.Load().Defaults.UserNS
	}
	var facts []security.Fact
	for _, i := range e.unit.Instances {
		pids := map[string]int{}
		for _, c := range i.Containers {
			pids[c.Name] = c.Pid
		}
		if len(pids) == 0 {
			pids[def.Leading().Name] = i.Pid
		}
		for _, c := range def.Containers {
			f, ok := readFact("/proc", pids[c.Name])
			if !ok {
				continue // it does not run
			}
			f.Instance, f.Container = i.Name, c.Name
			if why, none := strings.CutPrefix(i.UserNS, "none"); none && !f.UserNS {
				f.NoUserNS = strings.TrimLeft(why, ": ")
			}
			facts = append(facts, f)
		}
	}
	return security.Assess(def, facts), nil
}

// readFact reads how process pid is closed in.
func readFact(proc string, pid int) (f security.Fact, ok bool) {
	if pid <= 0 {
		return f, false
	}
	dir := filepath.Join(proc, strconv.Itoa(pid))
	status, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		return f, false
	}
	defer status.Close()
	f.Pid = pid
	uid := 0
	for lines := bufio.NewScanner(status); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Uid":
			first, _, _ := strings.Cut(value, "\t")
			uid, _ = strconv.Atoi(first)
		case "NoNewPrivs":
			f.NoNewPrivileges = value == "1"
		case "Seccomp":
			f.Seccomp = map[string]string{"0": "none", "1": "strict", "2": "filter"}[value]
		case "CapBnd":
			f.Capabilities = capabilitiesOf(value)
		}
	}
	f.UID, f.UserNS = insideID(filepath.Join(dir, "uid_map"), uid)
	f.AppArmor, f.SELinux = labelsOf(filepath.Join(dir, "attr"))
	return f, true
}

// insideID is what a user is called in the namespace with this map; a map of every id to
// itself is the host's.
func insideID(file string, uid int) (inside int, mapped bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return uid, false
	}
	for line := range strings.Lines(string(b)) {
		var n [3]int
		for i, field := range strings.Fields(line) {
			if i < 3 {
				n[i], _ = strconv.Atoi(field)
			}
		}
		if n == [3]int{0, 0, 1<<32 - 1} {
			return uid, false
		}
		if uid >= n[1] && uid < n[1]+n[2] {
			return uid - n[1] + n[0], true
		}
	}
	return uid, true
}

// capabilitiesOf names the bits of a set.
func capabilitiesOf(hex string) []string {
	bits, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return nil
	}
	names := []string{}
	for _, c := range capability.ListKnown() {
		if bits&(1<<uint(c)) != 0 {
			names = append(names, strings.ToUpper(c.String()))
		}
	}
	return names
}

// labelsOf reads the labels of the security modules. A kernel with SELinux and no policy
// calls everything "kernel".
func labelsOf(dir string) (appArmor, seLinux string) {
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimRight(string(b), "\n\x00")
	}
	appArmor = read("apparmor/current")
	if label := read("current"); label != appArmor && strings.Count(label, ":") >= 2 {
		seLinux = label
	}
	return appArmor, seLinux
}
