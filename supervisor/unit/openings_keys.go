package unit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// containerOpenings are the keys of one container that change how it is isolated, and
// what else its process gets.
var containerOpenings = []field[Container]{
	withKeys(known("devices", "list of devices", "", "Devices of the host: \"/dev/fuse\", \"/dev/sda:/dev/disk:r\", a map, or vendor.com/class=name for CDI.",
		(*reader).setDevices), deviceTable.keys()),
	known("privileged", "boolean", "false", "No isolation from the host's devices and kernel: all capabilities, all devices, no masks, no seccomp filter.",
		func(p *reader, n *node, c *Container) { p.flag(n, &c.Privileged) }),
	known("no_new_privileges", "boolean", "true, with privileged false", "Whether set-user-id programs such as sudo gain nothing.", func(p *reader, n *node, c *Container) {
		if value, ok := p.boolean(n); ok {
			c.NewPrivileges = !value
		}
	}),
	known("seccomp", "path or word", "Docker's profile", "A profile, in Docker's form or the OCI specification's; or unconfined.", (*reader).setSeccomp),
	known("apparmor", "word", "wherry-default, where the host has AppArmor", "A loaded profile, or unconfined.",
		func(p *reader, n *node, c *Container) { c.AppArmor, _ = parsed(p, n, parseAppArmor) }),
	known("selinux", "text or list", "container_t, where the host has SELinux", "disable, or parts of a label: \"type:container_init_t level:s0:c1,c2\".",
		(*reader).setSELinux),
	known("security_opt", "list of texts", "", "Docker's words for the keys above: no-new-privileges:false, seccomp=FILE, apparmor=NAME, label=disable.",
		(*reader).setSecurityOpt),
	withKeys(known("ulimits", "map", "the daemon's", "Limits of each of its processes, by name: a number, unlimited, or {soft, hard}.", (*reader).setUlimits), ulimitTable.keys()),
	known("group_add", "list of groups", "", "Further groups of its user, by names in the image or numbers.", (*reader).setGroups),
	known("oom_score_adj", "number", "0", "How readily the kernel kills it when the host runs out of memory: -1000 to 1000.",
		func(p *reader, n *node, c *Container) { c.OOMScoreAdj, _ = parsed(p, n, parseOOMScore) }),
	known("shm_size", "size", "64MiB", "The size of /dev/shm.",
		func(p *reader, n *node, c *Container) { c.ShmSize, _ = parsed(p, n, parseShmSize) }),
	known("tty", "boolean", "false", "Whether it has a terminal.", func(p *reader, n *node, c *Container) { p.flag(n, &c.TTY) }),
	known("stdin_open", "boolean", "false", "Whether its input stays open for `ctl attach`.", func(p *reader, n *node, c *Container) { p.flag(n, &c.StdinOpen) }),
}

// unitOpenings are those of all containers of a run.
var unitOpenings = []field[Unit]{
	known("hostname", "name", "the instance's name", "Its host name.", func(p *reader, n *node, u *Unit) { u.Hostname, _ = parsed(p, n, ParseHostname) }),
	known("userns", "word", "auto", "Its user namespace: auto, required, or host for none. With auto a run goes without one, and its status says why, where the kernel, a volume's file system or an id of its user cannot be in one, and where the unit asks for what is the host's: network, pid or ipc: host, privileged, capabilities that act on the host, devices that belong to its users. With required that is refused, but for network: host (ports below 1024 and raw sockets of the host stay out of reach), capabilities and devices (they mean what they mean inside).",
		func(p *reader, n *node, u *Unit) { u.UserNS, _ = parsed(p, n, parseUserNS) }),
	known("pid", "word", "each container its own", "Whose processes it sees: shared (one for all containers of a run) or host.",
		func(p *reader, n *node, u *Unit) { u.PID, _ = parsed(p, n, parsePID) }),
	known("ipc", "word", "the run's own", "Whose System V IPC, message queues and /dev/shm it uses: host.",
		func(p *reader, n *node, u *Unit) { u.IPC, _ = parsed(p, n, parseIPC) }),
	known("sysctls", "map or list", "", "Kernel parameters of its namespaces: net.*, fs.mqueue.*, kernel.msg*, kernel.sem, kernel.shm*, kernel.domainname.", (*reader).setSysctls),
}

// openingsElsewhere are other systems' words for them.
var openingsElsewhere = map[string]string{
	"userns_mode": "write userns: host", "uts": "write hostname; the host's is not to be had", "gpus": "write devices: [nvidia.com/gpu=all]",
	"runtime": "wherry has one", "isolation": "leave it out", "cgroup_parent": "it is the daemon's, in wherry.yaml", "cgroup": "leave it out",
	"device_cgroup_rules": "write devices", "device": "write devices", "read_only_root": "write read_only", "pid_mode": "write pid", "ipc_mode": "write ipc",
	"domainname": "write hostname: name.domain", "mac_address": "not to be had", "capabilities": "write cap_add and cap_drop",
	"securityContext": "write user, privileged, cap_add, cap_drop, read_only", "hostNetwork": "write network: host", "hostPID": "write pid: host",
	"hostIPC": "write ipc: host", "hostUsers": "write userns: host", "allowPrivilegeEscalation": "write no_new_privileges", "sysctl": "write sysctls",
	"ulimit": "write ulimits", "no_new_privs": "write no_new_privileges", "stdin": "write stdin_open", "oom_kill_disable": "not to be had; write oom_score_adj",
}

// lift makes a table's keys those of what holds its value.
func lift[T, S any](fields []field[S], to func(*T) *S) []field[T] {
	var out []field[T]
	for _, f := range fields {
		out = append(out, field[T]{Key: f.Key, set: func(p *reader, n *node, t *T) { f.set(p, n, to(t)) }})
	}
	return out
}

// merged is a map of both.
func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// openings completes a container when all keys of root, which holds its keys, are known,
// and notes what contradicts itself.
func (p *reader) openings(root *node, u *Unit, c *Container) {
	if c.Privileged && !saysNewPrivileges(root) {
		c.NewPrivileges = true
	}
	for _, found := range contradictions(u, c) {
		at := root.get(found.key)
		if at == nil {
			at = &node{line: root.line, column: root.column, key: found.key} // set by a default, or at the top of the file
		}
		p.bad(at, found.err)
	}
}

func saysNewPrivileges(root *node) bool {
	opts := root.get("security_opt")
	return root.get("no_new_privileges") != nil || opts != nil && slices.ContainsFunc(opts.items, func(n *node) bool {
		return strings.HasPrefix(n.text, noNewPrivileges)
	})
}

// noNewPrivileges is Docker's word in security_opt.
const noNewPrivileges = "no-new-privileges"

var deviceTable = table[Device]{
	fields: []field[Device]{
		known("source", "path", "", "The host's device, or a folder of devices.", func(p *reader, n *node, d *Device) { d.Source, _ = p.word(n) }),
		known("target", "path", "the source", "Its name inside.", func(p *reader, n *node, d *Device) { d.Target, _ = p.word(n) }),
		known("permissions", "word", "rwm", "Some of r, w and m (make nodes of it).", func(p *reader, n *node, d *Device) { d.Permissions, _ = p.word(n) }),
	},
	elsewhere: map[string]string{"path": "write source", "PathOnHost": "write source", "hostPath": "write source", "containerPath": "write target"},
}

func (p *reader) setDevices(n *node, c *Container) {
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return
	}
	for _, item := range n.items {
		if err := p.device(item, c); err != nil {
			p.bad(item, err)
		}
	}
}

func (p *reader) device(n *node, c *Container) error {
	before := len(p.errs)
	if n.shape != mapping {
		text, ok := p.text(n)
		if !ok {
			return nil
		}
		return c.takeDevice(text)
	}
	var d Device
	deviceTable.fill(p, n, &d)
	if len(p.errs) > before {
		return nil
	}
	if isCDI(d.Source) && d.Permissions == "" && (d.Target == "" || d.Target == d.Source) {
		return c.addCDI(d.Source)
	}
	d, err := d.check()
	if err != nil {
		return err
	}
	return c.addDevice(d)
}

// takeDevice adds a device in its short form, or one of CDI.
func (c *Container) takeDevice(text string) error {
	if isCDI(text) {
		return c.addCDI(text)
	}
	d, err := ParseDevice(text)
	if err != nil {
		return err
	}
	return c.addDevice(d)
}

const unconfined = "unconfined"

func (p *reader) setSeccomp(n *node, c *Container) {
	if text, ok := p.word(n); ok {
		p.seccomp(n, text, c)
	}
}

// seccomp reads the profile too: the revision holds its content, as with env_file.
func (p *reader) seccomp(n *node, text string, c *Container) {
	if err := c.setSeccomp(text, p.o.ReadFile); err != nil {
		p.bad(n, err)
	}
}

func (c *Container) setSeccomp(text string, read func(string) ([]byte, error)) error {
	c.Seccomp, c.SeccompProfile = text, nil
	switch {
	case text == unconfined:
		return nil
	case text == "" || text == "default" || text == "builtin":
		return faultf("leave it out for Docker's profile, or write unconfined or the path of a profile", "%q is not a profile", text)
	case read == nil:
		return faultf("", "%s: files cannot be read here", text)
	}
	data, err := read(text)
	if errors.Is(err, fs.ErrNotExist) {
		return faultf("", "%s: there is no such file", text)
	}
	if err != nil {
		return faultf("", "%s: %s", text, err)
	}
	if c.SeccompProfile, err = readSeccomp(data); err != nil {
		return faultf("", "%s: %s", text, err)
	}
	return nil
}

// readSeccomp looks whether data is a profile at all; what its rules mean is for package
// spec. Without blanks equal profiles are equal bytes.
func readSeccomp(data []byte) (json.RawMessage, error) {
	var profile struct {
		Action string `json:"defaultAction"`
		Calls  []struct {
			Action string `json:"action"`
		} `json:"syscalls"`
	}
	var shape *json.UnmarshalTypeError
	switch err := json.Unmarshal(data, &profile); {
	case errors.As(err, &shape) && shape.Field != "":
		return nil, faultf("", "not a seccomp profile: %s: a %s is wrong there", shape.Field, shape.Value)
	case errors.As(err, &shape):
		return nil, faultf("", "not a seccomp profile: an %s", shape.Value)
	case err != nil:
		return nil, faultf("", "not a seccomp profile: %s", err)
	}
	if err := checkAction("defaultAction", profile.Action); err != nil {
		return nil, err
	}
	for _, call := range profile.Calls {
		if err := checkAction("action", call.Action); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	err := json.Compact(&out, data)
	return out.Bytes(), err
}

func checkAction(key, action string) error {
	known := []string{"SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE",
		"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"}
	switch {
	case action == "":
		return faultf("", "not a seccomp profile: it has no %s", key)
	case action == "SCMP_ACT_NOTIFY":
		return faultf("", "%s %s: there is nobody to notify", key, action)
	case !slices.Contains(known, action):
		return faultf("", "%s: %q is not an action", key, action)
	}
	return nil
}

func (p *reader) setSELinux(n *node, c *Container) {
	if n.shape != list {
		c.SELinux, _ = parsed(p, n, parseSELinux)
		return
	}
	if words, ok := p.strings(n); ok {
		var err error
		if c.SELinux, err = parseSELinux(strings.Join(words, " ")); err != nil {
			p.bad(n, err)
		}
	}
}

// setSecurityOpt translates Docker's words.
func (p *reader) setSecurityOpt(n *node, c *Container) {
	words, ok := p.strings(n)
	if !ok {
		return
	}
	for i, word := range words {
		if err := c.setSecurityOpt(word, p.o.ReadFile); err != nil {
			p.bad(n.items[i], err)
		}
	}
}

func (c *Container) setSecurityOpt(text string, read func(string) ([]byte, error)) (err error) {
	name, value := text, ""
	if i := strings.IndexAny(text, "=:"); i >= 0 {
		name, value = text[:i], text[i+1:]
	}
	switch name {
	case noNewPrivileges:
		if value != "" && value != "true" && value != "false" {
			return faultf("write true or false", "%s: %q is not a boolean", name, value)
		}
		c.NewPrivileges = value == "false"
	case "seccomp":
		return c.setSeccomp(value, read)
	case "apparmor":
		c.AppArmor, err = parseAppArmor(value)
	case "label":
		if c.SELinux != "" && c.SELinux != "disable" && value != "disable" {
			value = c.SELinux + " " + value
		}
		c.SELinux, err = parseSELinux(value)
	case "systempaths", "writable-cgroups":
		return faultf("only privileged opens them", "%s cannot be set", name)
	default:
		return faultf("write no_new_privileges, seccomp, apparmor or selinux", "unknown option %q", name)
	}
	return err
}

var ulimitTable = table[Ulimit]{fields: []field[Ulimit]{
	known("soft", "number", "hard", "What holds until the process raises it.", func(p *reader, n *node, u *Ulimit) { u.Soft, _ = parsed(p, n, parseRlimit) }),
	known("hard", "number", "soft", "What it may raise it to.", func(p *reader, n *node, u *Ulimit) { u.Hard, _ = parsed(p, n, parseRlimit) }),
}}

func (p *reader) setUlimits(n *node, c *Container) {
	if n.shape != mapping {
		p.badf(n, "write {nofile: 1024}", "wants a map, not %s", n.kind())
		return
	}
	for _, pr := range n.pairs {
		before := len(p.errs)
		u := Ulimit{Name: pr.name.text}
		if pr.value.shape == mapping {
			ulimitTable.fill(p, pr.value, &u)
			switch hard, soft := pr.value.get("hard"), pr.value.get("soft"); {
			case hard == nil && soft == nil:
				p.badf(pr.value, "write a number, or {soft, hard}", "has no value")
			case hard == nil:
				u.Hard = u.Soft
			case soft == nil:
				u.Soft = u.Hard
			}
		} else {
			u.Soft, _ = parsed(p, pr.value, parseRlimit)
			u.Hard = u.Soft
		}
		if len(p.errs) > before {
			continue
		}
		if err := u.check(); err != nil {
			p.fail(pr.name, n.key, err)
			continue
		}
		c.Ulimits = setUlimit(c.Ulimits, u)
	}
}

func (p *reader) setGroups(n *node, c *Container) {
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return
	}
	for _, item := range n.items {
		group, ok := parsed(p, item, parseGroup)
		if ok && !slices.Contains(c.GroupAdd, group) {
			c.GroupAdd = append(c.GroupAdd, group)
		}
	}
}

func (p *reader) setSysctls(n *node, u *Unit) {
	values := map[string]string{}
	p.assignments(n, values, func(name string) string { return "write " + name + "=value" })
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := u.setSysctl(name, values[name]); err != nil {
			p.bad(placeOf(n, name), err)
		}
	}
}

// placeOf is where n says name.
func placeOf(n *node, name string) *node {
	if value := n.get(name); value != nil {
		at := *value
		at.key = n.key
		return &at
	}
	for _, item := range n.items {
		if strings.HasPrefix(item.text, name+"=") {
			return item
		}
	}
	return n
}

func (u *Unit) setSysctl(name, value string) error {
	name, err := parseSysctl(name, value)
	if err != nil {
		return err
	}
	if u.Sysctls == nil {
		u.Sysctls = map[string]string{}
	}
	u.Sysctls[name] = value
	return nil
}
