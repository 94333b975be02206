package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultShmSize is Docker's, 64 MiB.
const defaultShmSize = 64 << 20

// buildMounts puts the kernel's file systems, the run's files in /etc and the
// unit's mounts together. A mount of the unit takes the place of ours with the
// same target, and of the kernel's below its target; every mount comes after
// those above it.
func buildMounts(c Container) ([]specs.Mount, error) {
	wanted, err := unitMounts(c.Mounts)
	if err != nil {
		return nil, err
	}
	covered := func(target string) bool {
		return slices.ContainsFunc(wanted, func(m specs.Mount) bool { return m.Destination == target })
	}
	var mounts []specs.Mount
	for _, m := range kernelMounts(c) {
		hidden := covered(m.Destination)
		for dir := path.Dir(m.Destination); dir != "/"; dir = path.Dir(dir) {
			hidden = hidden || covered(dir)
		}
		if !hidden {
			mounts = append(mounts, m)
		}
	}
	for _, m := range etcMounts(c) {
		if !covered(m.Destination) {
			mounts = append(mounts, m)
		}
	}
	mounts = append(mounts, wanted...)
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return mounts, nil
}

func depth(p string) int { return strings.Count(p, "/") }

func kernelMounts(c Container) []specs.Mount {
	shm := c.ShmSize
	if shm <= 0 {
		shm = defaultShmSize
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{
			"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
		}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{
			"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10),
		}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
	}
	for i := range mounts {
		m := &mounts[i]
		switch {
		case m.Destination == "/dev/shm" && c.IPC == hostNamespace:
			m.Type, m.Source, m.Options = "bind", "/dev/shm", []string{"bind", "nosuid", "noexec", "nodev"}
		case m.Destination == "/sys" && c.UserNS && c.Network == Host:
			// The kernel mounts a new sysfs only for who owns the network namespace. Of the host's all is read-only,
			// what is mounted below it too (mount_setattr, Linux 5.12, which idmapped mounts need anyway).
			m.Type, m.Source, m.Options = "bind", "/sys", []string{"rbind", "nosuid", "noexec", "nodev", "rro"}
		case c.Privileged && strings.HasPrefix(m.Destination, "/sys"):
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
	return mounts
}

// etcMounts are files of the run's, one for each container, so that the program may write them.
func etcMounts(c Container) []specs.Mount {
	var mounts []specs.Mount
	for _, f := range []struct{ target, source string }{
		{"/etc/resolv.conf", c.ResolvConfPath}, {"/etc/hostname", c.HostnamePath}, {"/etc/hosts", c.HostsPath},
	} {
		if f.source == "" {
			continue
		}
		m := specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: []string{"rbind", "rprivate"}}
		if c.UserNS {
			m.Options = append(m.Options, "idmap") // they belong to the host's root
		}
		if c.ReadOnly {
			m.Options = append(m.Options, "ro")
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unitMounts checks the unit's mounts and completes their options. Of two with
// one target the later wins.
func unitMounts(in []specs.Mount) ([]specs.Mount, error) {
	var out []specs.Mount
	for _, m := range in {
		m.Options = slices.Clone(m.Options)
		if err := checkMount(m); err != nil {
			return nil, fmt.Errorf("mount %q: %w", m.Destination, err)
		}
		m.Destination = path.Clean(m.Destination)
		switch m.Type {
		case "bind":
			m.Options = completeBind(m.Options)
		case "tmpfs":
			m.Options = completeTmpfs(m.Options)
		}
		out = slices.DeleteFunc(out, func(old specs.Mount) bool { return old.Destination == m.Destination })
		out = append(out, m)
	}
	return out, nil
}

func checkMount(m specs.Mount) error {
	switch {
	case !path.IsAbs(m.Destination):
		return errors.New("the target is not an absolute path")
	case path.Clean(m.Destination) == "/":
		return errors.New("the root file system cannot be mounted over")
	case strings.ContainsRune(m.Destination+m.Source, 0):
		return errors.New("a path contains a zero byte")
	case m.Type == "bind" && !path.IsAbs(m.Source):
		return fmt.Errorf("the source %q is not an absolute path", m.Source)
	case m.Type != "bind" && m.Type != "tmpfs":
		return fmt.Errorf("type %q is neither bind nor tmpfs", m.Type)
	}
	return nil
}

// completeBind adds what makes it a bind, and keeps mounts made inside inside.
func completeBind(options []string) []string {
	if !containsAny(options, "bind", "rbind") {
		options = append(options, "rbind")
	}
	if !containsAny(options, "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable") {
		options = append(options, "rprivate")
	}
	return options
}

// completeTmpfs takes away, as Docker does, what the options do not ask for.
func completeTmpfs(options []string) []string {
	for _, o := range []struct{ give, take string }{{"exec", "noexec"}, {"suid", "nosuid"}, {"dev", "nodev"}} {
		if !containsAny(options, o.give, o.take) {
			options = append(options, o.take)
		}
	}
	return options
}

func containsAny(list []string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) })
}

// openVolumes are the image's volumes that the unit does not mount, sorted.
func openVolumes(volumes []string, mounts []specs.Mount) ([]string, error) {
	var open []string
	for _, v := range volumes {
		if !path.IsAbs(v) || path.Clean(v) == "/" {
			return nil, fmt.Errorf("image volume %q: not an absolute path below /", v)
		}
		v = path.Clean(v)
		if !slices.ContainsFunc(mounts, func(m specs.Mount) bool { return path.Clean(m.Destination) == v }) {
			open = append(open, v)
		}
	}
	slices.Sort(open)
	return slices.Compact(open), nil
}
