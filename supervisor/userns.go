package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/usernamespace"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// What the key userns can say.
const (
	userNSAuto     = "auto"
	userNSRequired = "required"
	userNSHost     = "host"
)

// hostUsers are the ids of this host, and what its kernel can do with them.
type hostUsers struct{ *usernamespace.Pool }

func (hostUsers) Kernel() error                     { return usernamespace.Kernel() }
func (hostUsers) Probe(path string, all bool) error { return usernamespace.Probe(path, all) }
func (hostUsers) Decide(file, dir, run string) (usernamespace.Decision, error) {
	return usernamespace.Decide(file, dir, run)
}

// noUsers is a host that cannot have user namespaces.
type noUsers struct{ why error }

func (n noUsers) Kernel() error                                                     { return n.why }
func (n noUsers) Probe(string, bool) error                                          { return n.why }
func (n noUsers) Lease(string) (m runtime.IDMap, err error)                         { return m, n.why }
func (n noUsers) Hold(string, runtime.IDMap) error                                  { return n.why }
func (noUsers) Release(string) error                                                { return nil }
func (noUsers) Keep([]string) error                                                 { return nil }
func (noUsers) Decide(string, string, string) (d usernamespace.Decision, err error) { return d, nil }

// openUsers opens the leases of ids. A host that can have none runs without.
func (s *Supervisor) openUsers(o *Options) userRanges {
	if o.hooks.users != nil {
		return o.hooks.users
	}
	if o.hooks.containers != nil {
		return noUsers{errors.New("there is no kernel")}
	}
	p, err := usernamespace.Open(usernamespace.Options{Dir: filepath.Join(s.paths.runDir, "userns"), Logger: o.Logger})
	if err != nil {
		s.log.Warn("no user namespaces: ids cannot be leased", "err", err)
		return noUsers{err}
	}
	return hostUsers{p}
}

// userns decides whether the run gets a user namespace, and leases its ids. What
// was decided stands in the run's record.
func (st *start) userns(context.Context) error {
	def := &st.rec.Revision.Definition
	mode, from := def.UserNS, "the unit says userns: host"
	if mode == "" {
		mode, from = cmp.Or(st.s.opts.Load().Defaults.UserNS, userNSAuto), "the daemon's default is userns: host"
	}
	why := error(nil)
	if mode == userNSHost {
		st.rec.NoUserNS = from
		return writeRecord(st.s.paths, st.rec)
	}
	if mode == userNSAuto {
		why = wantsHost(def)
	}
	if why == nil {
		why = st.cannotMap(def)
	}
	if why == nil {
		var m runtime.IDMap
		if m, why = st.s.users.Lease(st.rec.Run); why == nil {
			st.idmap = &m
			st.rec.IDMap = &m
			return writeRecord(st.s.paths, st.rec)
		}
	}
	if mode == userNSRequired {
		return fmt.Errorf("required: %w", why)
	}
	st.rec.NoUserNS = why.Error()
	st.s.log.Info("runs without a user namespace", "unit", st.rec.Unit.Name, "container", st.rec.Instance, "err", why)
	return writeRecord(st.s.paths, st.rec)
}

// wantsHost tells what the unit opens that means nothing, or something else, in a
// user namespace. Whoever writes such a key expects it to work, so auto does without one.
func wantsHost(def *unit.Unit) error {
	switch {
	case def.Network == "host":
		// Ports below 1024 of the host, its raw sockets and its devices belong to the host's root.
		return errors.New("network: host")
	case def.PID == "host":
		return errors.New("pid: host")
	case def.IPC == "host":
		return errors.New("ipc: host")
	}
	for i := range def.Containers {
		if err := containerWantsHost(&def.Containers[i]); err != nil {
			return inContainer(def, i, err)
		}
	}
	return nil
}

func containerWantsHost(c *unit.Container) error {
	if c.Privileged {
		return errors.New("privileged")
	}
	for _, name := range c.CapAdd {
		name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if name == "ALL" || slices.Contains(hostCaps, name) {
			return fmt.Errorf("cap_add: %s acts on the host", name)
		}
	}
	for _, d := range c.Devices {
		info, err := os.Stat(d.Source)
		if err == nil && info.Mode().Perm()&0o006 != 0o006 {
			return fmt.Errorf("devices: %s belongs to users of the host", d.Source)
		}
	}
	if len(c.CDI) > 0 {
		return fmt.Errorf("devices: %s", c.CDI[0])
	}
	return nil
}

// hostCaps mean something only against the host: the kernel asks for them in the
// first user namespace (capabilities(7), user_namespaces(7)).
var hostCaps = []string{
	"AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "DAC_READ_SEARCH", "IPC_LOCK", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "PERFMON",
	"SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
}

// inContainer names the container of one of several.
func inContainer(def *unit.Unit, i int, err error) error {
	if err == nil || len(def.Containers) == 1 {
		return err
	}
	return fmt.Errorf("container %s: %w", def.Containers[i].Name, err)
}

// cannotMap tells why kernel, file systems or files do not allow a user namespace.
func (st *start) cannotMap(def *unit.Unit) error {
	u := st.s.users
	if err := u.Kernel(); err != nil {
		return err
	}
	if err := passable(st.s.paths.runDir); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(st.s.paths.root, "layers"), st.s.paths.run(st.rec.Run)} {
		if err := u.Probe(dir, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for i := range def.Containers {
		c := &def.Containers[i]
		if err := idsFit(c, st.images[c.Name].Config.User); err != nil {
			return inContainer(def, i, err)
		}
		for _, v := range c.Volumes {
			if err := st.cannotShift(v); err != nil {
				return inContainer(def, i, err)
			}
		}
	}
	return nil
}

// cannotShift tells why a volume cannot be mounted with the run's ids.
func (st *start) cannotShift(v unit.Volume) error {
	switch {
	case v.Type == "tmpfs", v.Type != "bind" && v.Source == "":
		return nil
	case v.Type == "bind":
		err := st.s.users.Probe(v.Source, true)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the step of the volumes says so
		}
		if err != nil {
			return fmt.Errorf("bind %s: %w", v.Target, err)
		}
		return nil
	}
	d, err := st.decide(v)
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Source, err)
	}
	if !d.Shifted {
		return fmt.Errorf("volume %s is used without shifted ids: %s", v.Source, d.Why)
	}
	return nil
}

// decide makes a named volume, and takes the decision on it if nobody has yet.
func (st *start) decide(v unit.Volume) (usernamespace.Decision, error) {
	dir := st.s.paths.volume(v.Source)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usernamespace.Decision{}, err
	}
	return st.s.users.Decide(filepath.Join(filepath.Dir(dir), decisionFile), dir, st.rec.Run)
}

// decisionFile stands beside a volume's data.
const decisionFile = "userns.json"

// idsFit: numbers of users that a user namespace does not have. Names are looked up too late, in the image.
func idsFit(c *unit.Container, imageUser string) error {
	user, group, _ := strings.Cut(cmp.Or(c.User, imageUser), ":")
	for _, id := range append([]string{user, group}, c.GroupAdd...) {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && n >= usernamespace.Size {
			return fmt.Errorf("user and group %d: a user namespace has ids up to %d", n, usernamespace.Size-1)
		}
	}
	return nil
}

// passable: root of a user namespace is anybody for the host's folders.
func passable(dir string) error {
	for d := dir; ; d = path.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("folder %s is closed to others (chmod o+x)", d)
		}
		if d == "/" || d == "." {
			return nil
		}
	}
}

// shift has a bind mount's owners be those that the container knows.
func (st *start) shift(options []string) []string {
	if st.idmap == nil {
		return options
	}
	return append(options, "ridmap")
}

// keepIDs frees the leases of runs that are gone. One that the run folder has lost
// is made anew, or another run would get the same ids.
func (l *loop) keepIDs(leftovers map[string]bool) {
	var live []string
	for id, r := range l.runs {
		live = append(live, id)
		if r.IDMap == nil || r.phase.Ended() {
			continue
		}
		if err := l.users.Hold(id, *r.IDMap); err != nil {
			l.log.Warn("lease of ids not renewed", "unit", r.Unit.Name, "run", id, "err", err)
		}
	}
	for id := range leftovers { // theirs go with the rest of them
		live = append(live, id)
	}
	if err := l.users.Keep(live); err != nil {
		l.log.Warn("leases of ids not freed", "err", err)
	}
}

// userNSWords says for people what user namespace a run has.
func (r *record) userNSWords() string {
	switch {
	case r.IDMap != nil:
		return fmt.Sprintf("ids from %d", r.IDMap.HostID)
	case r.NoUserNS != "":
		return "none: " + r.NoUserNS
	}
	return ""
}

// namespaces makes what the containers of the run share. One container alone makes
// most of its namespaces itself, which is faster.
func (st *start) namespaces(ctx context.Context) (err error) {
	def := &st.rec.Revision.Definition
	several := len(def.Containers) > 1
	n := runtime.Namespaces{
		Run: st.rec.Run, IDMap: st.idmap, Net: def.Network == "bridge" || def.Network != "host" && (several || st.idmap != nil),
		IPC: several && def.IPC != "host", UTS: several, PID: several && def.PID == "shared",
		Hostname: cmp.Or(def.Hostname, hostname(st.rec.Instance)), Pin: several,
	}
	if n.IDMap == nil && !n.Net && !n.IPC && !n.UTS && !n.PID {
		return nil
	}
	st.shared = true
	st.ns, err = st.s.rt.MakeNamespaces(ctx, n)
	return err
}
