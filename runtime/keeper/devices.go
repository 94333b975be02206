package keeper

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// node is a device of the host as a container gets it.
type node struct {
	specs.LinuxDevice
	access string
}

// mostNodes bounds a folder of devices: /dev of a large host has some thousands.
const mostNodes = 10000

// addDevices puts the devices that the container asks for into its specification, with
// the numbers that they have on this host.
func (l *launch) addDevices() error {
	var nodes []node
	if l.cfg.Privileged {
		all, err := walkDevices(runtime.Device{Source: "/dev", Target: "/dev", Permissions: "rwm"})
		if err != nil {
			return err
		}
		nodes = all
	}
	for _, d := range l.cfg.Devices {
		more, err := lookUpDevice(d)
		if err != nil {
			return err
		}
		nodes = append(nodes, more...)
	}
	linux := l.cfg.Spec.Linux
	for _, n := range nodes {
		linux.Devices = slices.DeleteFunc(linux.Devices, func(o specs.LinuxDevice) bool { return o.Path == n.Path })
		linux.Devices = append(linux.Devices, n.LinuxDevice)
		if !l.cfg.Privileged {
			linux.Resources.Devices = append(linux.Resources.Devices,
				specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: n.access})
		}
	}
	return nil
}

// lookUpDevice reads what the host has at a device's source: a node, or a folder of them.
func lookUpDevice(d runtime.Device) ([]node, error) {
	real, err := filepath.EvalSymlinks(d.Source) // as in /dev/disk/by-id
	if err != nil {
		return nil, deviceError(d.Source, err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return nil, deviceError(d.Source, err)
	}
	if st.IsDir() {
		return walkDevices(d)
	}
	n, err := deviceNode(real, d)
	if err != nil {
		return nil, deviceError(d.Source, err)
	}
	return []node{n}, nil
}

// deviceError names the device once.
func deviceError(source string, err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("device %s: %w", source, err)
}

var errNoDevice = errors.New("neither a character nor a block device")

// deviceNode reads a node's numbers.
func deviceNode(file string, d runtime.Device) (node, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return node{}, err
	}
	return makeNode(&st, d)
}

// makeNode is the node that stat tells of, with what d changes.
func makeNode(st *unix.Stat_t, d runtime.Device) (node, error) {
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	if kind == "" {
		return node{}, errNoDevice
	}
	mode, uid, gid := os.FileMode(st.Mode&0o777), st.Uid, st.Gid
	if d.Mode != nil {
		mode = os.FileMode(*d.Mode & 0o777)
	}
	if d.UID != nil {
		uid = *d.UID
	}
	if d.GID != nil {
		gid = *d.GID
	}
	return node{access: d.Permissions, LinuxDevice: specs.LinuxDevice{
		Path: d.Target, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &uid, GID: &gid,
	}}, nil
}

// ownDevices are file systems and links that every container has its own of.
var ownDevices = []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/ptmx", "/dev/console", "/dev/core", "/dev/hugepages"}

// walkDevices reads the nodes below a folder; links in it are left out, as what they
// lead to is there by its own name.
func walkDevices(d runtime.Device) ([]node, error) {
	var nodes []node
	err := filepath.WalkDir(d.Source, func(file string, e os.DirEntry, err error) error {
		if err != nil {
			if file == d.Source {
				return deviceError(d.Source, err)
			}
			return nil // it went meanwhile
		}
		if slices.Contains(ownDevices, file) && file != d.Source {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if e.IsDir() || e.Type()&os.ModeDevice == 0 {
			return nil
		}
		one := d
		one.Target = path.Join(d.Target, strings.TrimPrefix(file, d.Source))
		n, err := deviceNode(file, one)
		if err == nil {
			nodes = append(nodes, n)
		}
		if len(nodes) > mostNodes {
			return fmt.Errorf("device %s: more than %d nodes", d.Source, mostNodes)
		}
		return nil
	})
	if err == nil && len(nodes) == 0 {
		err = fmt.Errorf("device %s: there is no device in the folder", d.Source)
	}
	return nodes, err
}

// closeTunnels takes away the permission to use /dev/net/tun, which libcontainer gives to
// everybody (runc 1.2.4 and newer), from those that could not make a tunnel anyway or have not asked for the device.
func closeTunnels(conf *configs.Config, spec *specs.Spec) {
	const major, minor = 10, 200
	if caps := spec.Process.Capabilities; caps == nil || slices.Contains(caps.Bounding, "CAP_NET_ADMIN") {
		return
	}
	if r := spec.Linux.Resources; r != nil && slices.ContainsFunc(r.Devices, func(d specs.LinuxDeviceCgroup) bool {
		return d.Allow && (d.Major == nil || *d.Major == major) && (d.Minor == nil || *d.Minor == minor) && strings.ContainsAny(d.Access, "rw")
	}) {
		return
	}
	resources := conf.Cgroups.Resources
	resources.Devices = slices.DeleteFunc(slices.Clone(resources.Devices), func(d *devices.Rule) bool {
		return d.Allow && d.Type == devices.CharDevice && d.Major == major && d.Minor == minor
	})
}

// mapDevices makes the nodes of a container in a user namespace, where neither it nor
// libcontainer can make any: libcontainer binds the host's nodes of the same names, whose
// owners do not exist inside. Ours lie in a file system that nobody else sees, belong to
// the container's ids and are bound to their places.
func (l *launch) mapDevices() error {
	linux := l.cfg.Spec.Linux
	if l.cfg.IDMap == nil || len(linux.Devices) == 0 {
		return nil
	}
	dir := filepath.Join(l.k.layout.Container(l.cfg.Run, l.cfg.Container), "dev")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("devices", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755"); err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	for i, d := range linux.Devices {
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := makeDevice(file, d, l.cfg.IDMap); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
		l.cfg.Spec.Mounts = append(l.cfg.Spec.Mounts, specs.Mount{Destination: d.Path, Type: "bind", Source: file,
			Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
	}
	linux.Devices = nil
	slices.SortStableFunc(l.cfg.Spec.Mounts, func(a, b specs.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	return nil
}

// makeDevice makes a node that belongs to the ids inside that the host's node has outside.
func makeDevice(file string, d specs.LinuxDevice, ids *runtime.IDMap) error {
	mode := uint32(unix.S_IFCHR)
	if d.Type == "b" {
		mode = unix.S_IFBLK
	}
	if err := unix.Mknod(file, mode, int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))); err != nil {
		return err
	}
	if err := os.Chmod(file, *d.FileMode); err != nil { // not by mknod: the umask
		return err
	}
	return os.Lchown(file, hostID(ids, int(*d.UID)), hostID(ids, int(*d.GID)))
}
