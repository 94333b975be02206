package unit

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The keys that open a container towards its host, or close it further: what their
// texts mean, for unit files and for the flags of `ctl run` alike.

// ParseDevice reads "/dev/x", "/dev/x:/dev/y", "/dev/x:rwm" and "/dev/x:/dev/y:r".
func ParseDevice(text string) (Device, error) {
	parts := strings.Split(text, ":")
	d := Device{Source: parts[0], Permissions: "rwm"}
	switch {
	case len(parts) > 3:
		return Device{}, faultf("write /dev/x, /dev/x:/dev/y or /dev/x:/dev/y:rw", "%q has too many parts", text)
	case len(parts) == 3:
		d.Target, d.Permissions = parts[1], parts[2]
	case len(parts) == 2 && strings.HasPrefix(parts[1], "/"):
		d.Target = parts[1]
	case len(parts) == 2:
		d.Permissions = parts[1]
	}
	return d.check()
}

// check completes a device; without a target it has the same name inside.
func (d Device) check() (Device, error) {
	d.Target = cmp.Or(d.Target, d.Source)
	d.Permissions = cmp.Or(d.Permissions, "rwm")
	for _, p := range []string{d.Source, d.Target} {
		if !path.IsAbs(p) || path.Clean(p) == "/" {
			return Device{}, faultf("write a path like /dev/fuse, or vendor.com/class=name for CDI", "%q is not a device's path", p)
		}
	}
	d.Source, d.Target = path.Clean(d.Source), path.Clean(d.Target)
	seen := ""
	for _, c := range d.Permissions {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(seen, c) {
			return Device{}, faultf("write some of r, w and m", "%q are not a device's permissions", d.Permissions)
		}
		seen += string(c)
	}
	return d, nil
}

// isCDI is VENDOR/CLASS=NAME, as the Container Device Interface names its devices.
func isCDI(text string) bool {
	kind, name, ok := strings.Cut(text, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	mark := func(c byte) bool { return isWord(c) || c == ':' }
	return ok && slash && all(vendor, isWord) && isAlnum(vendor[0]) && all(class, isWord) && isAlnum(class[0]) &&
		all(name, mark) && isAlnum(name[0]) && isAlnum(name[len(name)-1])
}

// addDevice adds one of either kind to the container.
func (c *Container) addDevice(d Device) error {
	if slices.ContainsFunc(c.Devices, func(o Device) bool { return o.Target == d.Target }) {
		return faultf("", "%s is there twice", d.Target)
	}
	c.Devices = append(c.Devices, d)
	return nil
}

func (c *Container) addCDI(name string) error {
	if slices.Contains(c.CDI, name) {
		return faultf("", "%s is there twice", name)
	}
	c.CDI = append(c.CDI, name)
	return nil
}

// ulimitNames are the limits of setrlimit(2), in lower case.
var ulimitNames = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack"}

// ParseUlimit reads "nofile=1024", "nofile=1024:2048" and "core=unlimited".
func ParseUlimit(text string) (Ulimit, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return Ulimit{}, faultf("write it like nofile=1024:2048", "%q has no value", text)
	}
	u := Ulimit{Name: name}
	soft, hard, two := strings.Cut(value, ":")
	var err error
	if u.Soft, err = parseRlimit(soft); err != nil {
		return Ulimit{}, err
	}
	u.Hard = u.Soft
	if two {
		if u.Hard, err = parseRlimit(hard); err != nil {
			return Ulimit{}, err
		}
	}
	return u, u.check()
}

func (u Ulimit) check() error {
	if !slices.Contains(ulimitNames, u.Name) {
		return faultf(cmp.Or(didYouMean(u.Name, ulimitNames), "they are "+strings.Join(ulimitNames, ", ")), "there is no limit %q", u.Name)
	}
	if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
		return faultf("", "%s: the soft limit is above the hard one", u.Name)
	}
	return nil
}

// parseRlimit reads a number, or unlimited.
func parseRlimit(text string) (int64, error) {
	if text == "unlimited" || text == "-1" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, faultf("write a number, or unlimited", "%q is not a limit", text)
	}
	return n, nil
}

// setUlimit puts u in its place: they are sorted by name.
func setUlimit(list []Ulimit, u Ulimit) []Ulimit {
	i, found := slices.BinarySearchFunc(list, u.Name, func(o Ulimit, name string) int { return strings.Compare(o.Name, name) })
	if found {
		list[i] = u
		return list
	}
	return slices.Insert(list, i, u)
}

// ParseHostname checks a host name: labels of letters, digits and hyphens, 64 characters
// at most (sethostname(2)).
func ParseHostname(text string) (string, error) {
	good := text != "" && len(text) <= 64
	for label := range strings.SplitSeq(text, ".") {
		good = good && len(label) <= 63 && all(label, func(c byte) bool { return isAlnum(c) || c == '-' || c == '_' }) &&
			label[0] != '-' && label[len(label)-1] != '-'
	}
	if !good {
		return "", faultf("it has letters, digits, - and dots, 64 at most", "%q is not a host name", text)
	}
	return text, nil
}

// parsePID reads whose processes a container sees; its own is the default.
func parsePID(text string) (string, error) {
	switch {
	case text == "private" || text == "container":
		return "", nil
	case text == "host" || text == "shared":
		return text, nil
	case strings.HasPrefix(text, "service:") || strings.HasPrefix(text, "container:"):
		return "", faultf("put both containers in one unit and write pid: shared", "%q: a unit has its own processes", text)
	}
	return "", faultf(cmp.Or(didYouMean(text, []string{"host", "shared"}), "it is host or shared"), "%q is unknown", text)
}

// parseIPC reads whose System V IPC and message queues it uses; the run's is the default.
func parseIPC(text string) (string, error) {
	switch {
	case text == "private" || text == "shareable":
		return "", nil
	case text == "host":
		return text, nil
	case strings.HasPrefix(text, "service:") || strings.HasPrefix(text, "container:"):
		return "", faultf("put both containers in one unit: they share it", "%q: a unit has its own IPC", text)
	}
	return "", faultf(cmp.Or(didYouMean(text, []string{"host"}), "it is host"), "%q is unknown", text)
}

// parseUserNS reads whether there is a user namespace.
func parseUserNS(text string) (string, error) {
	known := []string{"auto", "required", "host"}
	if slices.Contains(known, text) {
		return text, nil
	}
	return "", faultf(cmp.Or(didYouMean(text, known), "it is auto, required or host"), "%q is unknown", text)
}

// ipcSysctls are those that belong to an IPC namespace (sysctl(5)).
var ipcSysctls = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced"}

func isIPCSysctl(name string) bool {
	return slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue.")
}

// parseSysctl checks a kernel parameter: what belongs to no namespace would change the
// host and is refused. It gives the name with dots.
func parseSysctl(name, value string) (string, error) {
	if dot, slash := strings.IndexByte(name, '.'), strings.IndexByte(name, '/'); slash >= 0 && (dot < 0 || slash < dot) {
		name = strings.NewReplacer("/", ".", ".", "/").Replace(name) // as sysctl(8) takes them too
	}
	proper := all(name, isWord) && !strings.Contains(name, "..") && strings.Trim(name, ".") == name
	switch {
	case !proper:
		return "", faultf("write it like net.core.somaxconn", "%q is not a kernel parameter", name)
	case name == "kernel.hostname":
		return "", faultf("write hostname", "%s has a key of its own", name)
	case !strings.HasPrefix(name, "net.") && !isIPCSysctl(name) && name != "kernel.domainname":
		return "", faultf("net.*, fs.mqueue.*, "+strings.Join(ipcSysctls, ", ")+" and kernel.domainname belong to a container", "%s belongs to the whole host", name)
	case value == "" || strings.ContainsAny(value, "\x00\n"):
		return "", faultf("", "%s: %q is not a value", name, value)
	}
	return name, nil
}

// parseGroup reads a group, by name or number.
func parseGroup(text string) (string, error) {
	if !isUserName(text) {
		return "", faultf("write it like 44 or video", "%q is not a group", text)
	}
	return text, nil
}

func parseShmSize(text string) (int64, error) {
	size, err := ParseSize(text)
	if err == nil && size < 4<<10 {
		err = faultf("the least is 4KiB", "%s is too little", text)
	}
	return size, err
}

const leastOOMScore, mostOOMScore = -1000, 1000

func parseOOMScore(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < leastOOMScore || n > mostOOMScore {
		return 0, faultf("it goes from -1000 to 1000", "%q is not a score", text)
	}
	return n, nil
}

// parseAppArmor checks the name of a profile.
func parseAppArmor(text string) (string, error) {
	if text == "" || strings.ContainsAny(text, " \t\n\x00\"") {
		return "", faultf("write unconfined, or the name of a loaded profile", "%q is not a profile", text)
	}
	return text, nil
}

// selinuxParts are the parts of a label that can be set.
var selinuxParts = []string{"user", "role", "type", "level", "filetype"}

// parseSELinux reads "disable", or parts of a label: "type:container_init_t level:s0:c1,c2".
func parseSELinux(text string) (string, error) {
	if text == "disable" {
		return text, nil
	}
	var parts []string
	for part := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(part, ":")
		if !slices.Contains(selinuxParts, name) || value == "" || strings.ContainsRune(part, 0) {
			return "", faultf("write disable, or parts like type:container_init_t and level:s0:c1,c2", "%q is not a part of a label", part)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "", faultf("write disable, or parts like type:container_init_t", "is empty")
	}
	return strings.Join(parts, " "), nil
}

// contradiction is what two keys cannot have together.
type contradiction struct {
	key string
	err error
}

// contradictions are found when all keys are known; c is one of u's containers.
func contradictions(u *Unit, c *Container) (found []contradiction) {
	add := func(key, hint, format string, args ...any) {
		found = append(found, contradiction{key, faultf(hint, format, args...)})
	}
	const leave = "leave one of them out"
	if c.Privileged && len(c.CapDrop) > 0 {
		add("cap_drop", leave, "privileged gives every capability")
	}
	if u.UserNS == "required" {
		switch {
		case c.Privileged:
			add("privileged", "leave it out or write userns: host", "with a user namespace nobody is privileged, and it is required")
		case u.PID == "host":
			add("pid", "leave it out or write userns: host", "the host's processes are out of reach of a user namespace, which is required")
		case u.IPC == "host":
			add("ipc", "leave it out or write userns: host", "the host's IPC is out of reach of a user namespace, which is required")
		}
	}
	if u.PID == "shared" && len(u.Containers) < 2 {
		add("pid", "leave it out", "there is one container only, which shares with nobody")
	}
	for _, name := range slices.Sorted(maps.Keys(u.Sysctls)) {
		switch {
		case strings.HasPrefix(name, "net.") && u.Network == "host":
			add("sysctls", leave, "%s would change the host's network", name)
		case isIPCSysctl(name) && u.IPC == "host":
			add("sysctls", leave, "%s would change the host's IPC", name)
		}
	}
	return found
}
