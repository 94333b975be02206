package security

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// container finds the openings of one container.
func (a *assessment) container(c *unit.Container) {
	if c.Privileged {
		a.add(9.5, "privileged", "all capabilities, all devices and the kernel's files: as good as root on the host", "leave privileged out; add what it needs by cap_add and devices")
	} else {
		a.capabilities(c)
		a.devices(c)
		a.profiles(c)
	}
	a.user(c)
	if c.NewPrivileges {
		a.add(1.5, "no_new_privileges", "set-user-id programs such as sudo to give their user more", "no_new_privileges: true")
	}
	for _, v := range c.Volumes {
		a.volume(v)
	}
	if !c.ReadOnly {
		a.add(0.3, "read_only", "an intruder to change the programs of its root file system", "read_only: true, with a tmpfs where it must write")
	}
	if c.Limits.Memory == 0 {
		a.add(0.4, "resources.limits.memory", "to take all of the host's memory", "resources: {limits: {memory: 512MiB}}")
	}
	if c.Limits.Pids == 0 {
		a.add(0.4, "resources.limits.pids", "to take all of the host's processes", "resources: {limits: {pids: 512}}")
	}
	if c.OOMScoreAdj < 0 {
		a.add(0.5, "oom_score_adj", "the kernel to kill others first when memory runs out", "leave oom_score_adj out")
	}
	a.differences(c)
}

// weights of capabilities; those that are not here have little to do with the host.
var capabilityWeights = map[string]struct {
	weight float64
	allows string
}{
	"ALL":             {9, "every capability"},
	"SYS_ADMIN":       {7, "mounts, namespaces and much else of the kernel's administration"},
	"SYS_MODULE":      {9, "to load code into the kernel"},
	"SYS_RAWIO":       {8, "the hardware's ports and memory"},
	"SYS_PTRACE":      {2, "to look into every process that it sees"},
	"DAC_READ_SEARCH": {4, "every file of the file systems that it is on, by its handle (the shocker exploit)"},
	"BPF":             {4, "programs of its own in the kernel"},
	"PERFMON":         {2, "to watch what the host does"},
	"NET_ADMIN":       {1.5, "to change the network it is in, its addresses and its firewall"},
	"SYS_BOOT":        {3, "to reboot, and to load another kernel"},
	"SYS_TIME":        {2, "to set the host's clock"},
	"SYSLOG":          {1, "the kernel's messages, with addresses in them"},
	"MAC_ADMIN":       {4, "to change the rules of the host's security module"},
	"MAC_OVERRIDE":    {4, "to go past the rules of the host's security module"},
	"AUDIT_CONTROL":   {1.5, "to switch off the host's audit"},
	"SYS_RESOURCE":    {1, "to go past limits and quotas"},
	"SYS_NICE":        {0.5, "to take the processors before others"},
	"IPC_LOCK":        {0.4, "to lock memory"},
	"LINUX_IMMUTABLE": {0.4, "to make files that only it can delete"},
}

// mappedShare is what is left of a capability that counts in a user namespace only.
const mappedShare = 0.3

func (a *assessment) capabilities(c *unit.Container) {
	for _, name := range c.CapAdd {
		w, ok := capabilityWeights[name]
		if !ok {
			w.weight, w.allows = 0.5, "what capabilities(7) says of it"
		}
		allows := name + ": " + w.allows
		if a.mapped() {
			w.weight *= mappedShare
			allows += ", as far as its user namespace goes"
		}
		a.add(w.weight, "cap_add", allows, "leave "+name+" out")
	}
	if !slices.Contains(c.CapDrop, "ALL") {
		a.add(0.4, "cap_drop", "Docker's default capabilities, of which most programs need none", "cap_drop: [ALL], and cap_add what it misses")
	}
}

// weighDevice says what a device leads to.
func weighDevice(source string) (weight float64, allows string) {
	name := strings.TrimPrefix(source, "/dev/")
	begins := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(name, w) })
	}
	switch {
	case name == "mem" || name == "kmem" || name == "port" || source == "/dev":
		return 9.5, "the host's memory and hardware"
	case begins("sd", "nvme", "vd", "xvd", "dm-", "mapper", "disk", "md", "loop", "mmcblk"):
		return 7, "the disk as a whole, past all permissions"
	case begins("input", "uinput", "tty", "snd", "video", "bus/usb"):
		return 2, "what people type, say or plug in"
	case begins("kmsg"):
		return 1.5, "the kernel's messages"
	}
	return 1, "a driver of the kernel"
}

func (a *assessment) devices(c *unit.Container) {
	for _, d := range c.Devices {
		weight, allows := weighDevice(d.Source)
		if !strings.Contains(d.Permissions, "w") {
			weight *= 0.6
		}
		a.add(weight, "devices", d.Source+" ("+d.Permissions+"): "+allows, "leave "+d.Source+" out")
	}
	for _, name := range c.CDI {
		a.add(1.5, "devices", name+": what its vendor's file of /etc/cdi says, with drivers and programs", "leave "+name+" out")
	}
}

func (a *assessment) profiles(c *unit.Container) {
	switch {
	case c.Seccomp == "unconfined":
		a.add(3, "seccomp", "every system call, also those that are known for holes", "leave seccomp out for Docker's profile")
	case c.Seccomp != "":
		a.add(0.5, "seccomp", "what its own profile "+c.Seccomp+" allows", "leave seccomp out for Docker's profile")
	}
	if c.AppArmor == "unconfined" {
		a.add(1, "apparmor", "what AppArmor would forbid", "leave apparmor out")
	}
	if c.SELinux == "disable" {
		a.add(1.5, "selinux", "what SELinux would forbid", "leave selinux out")
	}
}

// user: only root inside makes use of most other openings.
func (a *assessment) user(c *unit.Container) {
	name, _, _ := strings.Cut(c.User, ":")
	weight := 1.0
	if a.mapped() && !c.Privileged {
		weight = 0.4
	}
	const close = `user: "1000"`
	switch {
	case name == "root" || name == "0":
		a.add(weight, "user", "its program to run as root inside", close)
	case name == "":
		if f := a.seen(c.Name, func(f Fact) bool { return f.UID == 0 }); f != nil {
			a.add(weight, "user", "its program to run as root inside, as the image says", close)
			a.found[len(a.found)-1].Seen = f.Instance
		} else if a.seen(c.Name, func(Fact) bool { return true }) == nil {
			a.add(weight/2, "user", "its program to run as whoever the image says, often root", close)
		}
	}
}

// sockets of programs that start containers, or do other things as root.
var sockets = []string{"docker.sock", "containerd.sock", "podman.sock", "crio.sock", "wherry.sock", "keeper.sock", "buildkitd.sock", "dbus/system_bus_socket", "systemd/private"}

// folders of the host whose owner owns the host.
var folders = []string{"/etc", "/root", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/sys", "/run", "/var", "/var/run", "/var/lib",
	"/var/lib/docker", "/var/lib/containerd", "/var/lib/wherry", "/var/lib/kubelet", "/var/spool/cron", "/home", "/opt", "/mnt", "/srv"}

func (a *assessment) volume(v unit.Volume) {
	if v.Type != "bind" {
		return
	}
	source := path.Clean(v.Source)
	mode := "to read and write "
	if v.ReadOnly {
		mode = "to read "
	}
	inside := func(dir string) bool { return source == dir || strings.HasPrefix(source, dir+"/") }
	switch {
	case slices.ContainsFunc(sockets, func(s string) bool { return strings.HasSuffix(source, "/"+s) }):
		// Read-only or not: one connects to it all the same.
		a.add(9, "volumes", "to have "+source+" start anything as root on the host", "leave it out")
	case source == "/":
		a.add(pick(v.ReadOnly, 5, 9), "volumes", mode+"all of the host's files", "name the folders it needs")
	case slices.ContainsFunc([]string{"/etc", "/root", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/sys", "/var/lib/wherry", "/var/lib/docker",
		"/var/spool/cron"}, inside):
		a.add(pick(v.ReadOnly, 0.7, 5), "volumes", mode+source+", which is the system's", writable(v))
	case slices.Contains(folders, source):
		a.add(pick(v.ReadOnly, 1.5, 5), "volumes", mode+"all of "+source, "name the folders it needs")
	case v.ReadOnly:
		a.add(0.1, "volumes", mode+source, "use a named volume, or a config")
	default:
		a.add(0.5, "volumes", mode+source+" of the host", writable(v))
	}
}

func pick(readOnly bool, ro, rw float64) float64 {
	if readOnly {
		return ro
	}
	return rw
}

func writable(v unit.Volume) string {
	if v.ReadOnly {
		return "leave it out"
	}
	return fmt.Sprintf("write %s:%s:ro, or use a named volume", v.Source, v.Target)
}

// differences are what a running container has not, although its unit wants it.
func (a *assessment) differences(c *unit.Container) {
	note := func(f *Fact, weight float64, key, allows, close string) {
		if f != nil {
			a.add(weight, key, allows, close)
			a.found[len(a.found)-1].Seen = f.Instance
		}
	}
	if c.Seccomp != "unconfined" && !c.Privileged {
		note(a.seen(c.Name, func(f Fact) bool { return f.Seccomp == "none" }), 3, "seccomp", "every system call: it runs without a filter", "restart it")
	}
	if !c.NewPrivileges {
		note(a.seen(c.Name, func(f Fact) bool { return !f.NoNewPrivileges }), 1.5, "no_new_privileges", "set-user-id programs to give their user more: it runs so", "restart it")
	}
}
