package keeper

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// joinShared has the container join exactly those namespaces that its run has,
// and changes what a user namespace makes impossible or different.
func (l *launch) joinShared() error {
	if l.cfg.JoinContainer != "" {
		return l.joinContainer()
	}
	if !l.cfg.Join {
		if l.cfg.IDMap != nil {
			return errors.New("an id map without namespaces of the run to join")
		}
		dropIDMapOptions(l.cfg.Spec.Mounts)
		return nil
	}
	files, n, err := l.k.sharedOf(l.cfg.Run)
	if err != nil {
		return err
	}
	for _, f := range files {
		l.keep(f, nil)
	}
	for _, name := range kindsOf(&n) {
		if files[name] == nil {
			return fmt.Errorf("the run's %s namespace is lost", name)
		}
	}
	l.shared = files
	for name, t := range map[string]specs.LinuxNamespaceType{
		"net": specs.NetworkNamespace, "ipc": specs.IPCNamespace, "uts": specs.UTSNamespace, "pid": specs.PIDNamespace,
	} {
		if files[name] != nil {
			setNamespace(l.cfg.Spec.Linux, t, nsPath(files[name]))
		}
	}
	if err := l.shareMemory(&n); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	if n.IDMap == nil {
		dropIDMapOptions(l.cfg.Spec.Mounts)
		return nil
	}
	l.cfg.IDMap = n.IDMap
	l.cfg.Spec.Root.Path = l.k.layout.MappedRootfs()
	fitUserNS(l.cfg.Spec, n.IDMap)
	return passable(l.cfg.Spec.Root.Path)
}

// nsPath names a namespace for the process that becomes the container: not by
// /proc/self, as that process opens it.
func nsPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// setNamespace gives a namespace a path, or adds it.
func setNamespace(linux *specs.Linux, t specs.LinuxNamespaceType, path string) {
	i := slices.IndexFunc(linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == t })
	if i < 0 {
		linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
		return
	}
	linux.Namespaces[i].Path = path
}

func hasNamespace(linux *specs.Linux, t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == t })
}

// enterUserNS completes libcontainer's configuration. It is told the map, which it
// would otherwise find out with a process of its own.
func (l *launch) enterUserNS(conf *configs.Config) {
	user := l.shared["user"]
	if user == nil {
		return
	}
	m := l.cfg.IDMap
	ids := []configs.IDMap{{HostID: int64(m.HostID), Size: int64(m.Size)}}
	conf.Namespaces.Add(configs.NEWUSER, nsPath(user))
	conf.UIDMappings, conf.GIDMappings = ids, ids
	for _, mount := range conf.Mounts {
		if mount.IDMapping != nil && len(mount.IDMapping.UIDMappings) == 0 {
			mount.IDMapping.UserNSPath = nsPath(user)
		}
	}
}

// ownStdio lets the container's user open its own output by name, as in
// /dev/stdout: libcontainer cannot give away what belongs to an id that the
// user namespace does not have.
func (l *launch) ownStdio() error {
	if l.cfg.IDMap == nil {
		return nil
	}
	for _, f := range []*os.File{l.stdio[0], l.stdio[1], l.stdin} {
		if f == nil {
			continue
		}
		if err := f.Chown(hostID(l.cfg.IDMap, l.id.uid), -1); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	return nil
}

// idMapOptions ask for a bind mount whose owners are shifted.
var idMapOptions = []string{"idmap", "ridmap"}

// dropIDMapOptions is for containers that have the host's ids.
func dropIDMapOptions(mounts []specs.Mount) {
	for i := range mounts {
		mounts[i].Options = slices.DeleteFunc(slices.Clone(mounts[i].Options), func(o string) bool { return slices.Contains(idMapOptions, o) })
	}
}

// fitUserNS changes what the kernel refuses to root of a user namespace.
func fitUserNS(spec *specs.Spec, m *runtime.IDMap) {
	linux := spec.Linux
	if v, ok := linux.Sysctl[pingGroups]; ok {
		linux.Sysctl[pingGroups] = fitPingGroups(v, m)
	}
	for i := range spec.Mounts {
		mount := &spec.Mounts[i]
		// Those kernel file systems belong to a namespace; a mount of the host's is the host's to make.
		switch {
		case mount.Type == "sysfs" && !hasNamespace(linux, specs.NetworkNamespace),
			mount.Type == "mqueue" && !hasNamespace(linux, specs.IPCNamespace):
			mount.Source = map[string]string{"sysfs": "/sys", "mqueue": "/dev/mqueue"}[mount.Type]
			mount.Type = "bind"
			mount.Options = append([]string{"rbind", "rslave"}, mount.Options...)
		}
	}
}

const pingGroups = "net.ipv4.ping_group_range"

// fitPingGroups keeps to groups that exist inside: the kernel refuses others.
func fitPingGroups(v string, m *runtime.IDMap) string {
	f := strings.Fields(v)
	if len(f) != 2 {
		return v
	}
	if last, err := strconv.ParseUint(f[1], 10, 32); err == nil && last >= uint64(m.Size) {
		return f[0] + " " + strconv.FormatUint(uint64(m.Size)-1, 10)
	}
	return v
}

// passable makes the folder that root of a user namespace has to get to, and
// checks that it can.
func passable(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	for d := dir; d != "/"; d = path.Dir(d) {
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			return stepError(runtime.StepRootfs, &os.PathError{Op: "stat", Path: d, Err: err})
		}
		if st.Mode&0o001 == 0 {
			return stepError(runtime.StepRootfs, fmt.Errorf("a user namespace's root cannot pass through %s: it is closed to others (chmod o+x)", d))
		}
	}
	return nil
}

// shareMemory gives all containers of a run one /dev/shm: POSIX shared memory goes
// with the IPC namespace, as System V's does.
func (l *launch) shareMemory(n *runtime.Namespaces) error {
	if !n.IPC || !n.Pin {
		return nil
	}
	i := slices.IndexFunc(l.cfg.Spec.Mounts, func(m specs.Mount) bool {
		return path.Clean(m.Destination) == "/dev/shm" && m.Type == "tmpfs"
	})
	if i < 0 {
		return nil
	}
	m := &l.cfg.Spec.Mounts[i]
	dir, err := l.k.sharedMemory(n, m.Options)
	if err != nil {
		return fmt.Errorf("/dev/shm: %w", err)
	}
	*m = specs.Mount{Destination: m.Destination, Type: "bind", Source: dir,
		Options: append([]string{"bind", "rprivate"}, intersect(m.Options, "nosuid", "noexec", "nodev", "ro")...)}
	return nil
}

func intersect(options []string, words ...string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !slices.Contains(options, w) })
}

// sharedMemory mounts a run's /dev/shm beside its pins; the first container's
// options count.
func (k *Keeper) sharedMemory(n *runtime.Namespaces, options []string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.shared[n.Run]
	if s == nil {
		return "", runtime.ErrNotFound
	}
	dir := path.Join(k.layout.Pins(n.Run), "shm")
	if s.shm {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	flags, data := mountOptions(options)
	if n.IDMap != nil {
		root := strconv.Itoa(hostID(n.IDMap, 0))
		data = append(data, "uid="+root, "gid="+root)
	}
	if err := unix.Mount("shm", dir, "tmpfs", flags, strings.Join(data, ",")); err != nil {
		return "", err
	}
	s.shm = true
	return dir, nil
}
