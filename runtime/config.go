package runtime

import (
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config says everything about one container of one run. It is a plain value:
// runtime/spec builds the Spec, the image store gives the Rootfs, the
// supervisor puts them together.
type Config struct {
	Unit      string `json:"unit"`      // the unit it belongs to, for paths and messages
	Instance  string `json:"instance"`  // the slot, "web.1"
	Run       string `json:"run"`       // the run, "web.1-7f3k"
	Container string `json:"container"` // the container's name within the run, "app"

	// Spec is the OCI runtime spec, without rootfs and without namespaces'
	// paths: the keeper fills those in. Its Linux.Seccomp is compiled once per
	// profile and cached.
	Spec *specs.Spec `json:"spec"`

	// User is "name", "uid", "name:group" or "uid:gid", resolved inside the
	// rootfs by the keeper, which also sets HOME. Empty means root.
	User string `json:"user,omitempty"`

	// Rootfs are the mounts that make the root file system, in order, as
	// image.Store.Prepare returns them. One has the destination "/". Those after
	// it go inside. Those before it are what it is made of; the ones of type
	// "erofs" are layers in image files, of which each is mounted once for
	// all containers.
	Rootfs []specs.Mount `json:"rootfs"`

	// Populate copies folders of the rootfs into empty volumes before the
	// process starts, as Docker does for named volumes.
	Populate []Populate `json:"populate,omitempty"`

	// Init runs the process under wherry's small init, which reaps zombies,
	// forwards signals and records the true wait status. False execs the
	// process as PID 1; its end is then known only while a keeper parents it.
	Init bool `json:"init"`

	// NetNS is the network namespace to join, from Runtime.Namespaces; nil
	// means what Spec.Linux.Namespaces says (host, or a new empty one).
	NetNS *os.File `json:"-"`

	// Join has the container join the run's namespaces, which
	// [Runtime.MakeNamespaces] has made, instead of NetNS.
	Join bool `json:"join,omitempty"`

	// JoinContainer has the container join all namespaces but the mount namespace of
	// another one that runs, by its id, instead of Join and NetNS. It sees that one's files at
	// /target. IDMap is then that one's.
	JoinContainer string `json:"join_container,omitempty"`

	// IDMap is the user namespace's, the same for all containers of a run; nil:
	// the container has the host's. The root file system's layers are mounted with
	// the ids shifted, and so are those binds that say "idmap".
	IDMap *IDMap `json:"id_map,omitempty"`

	// GroupAdd are further groups of the user, by name or number, looked up in the rootfs.
	GroupAdd []string `json:"group_add,omitempty"`

	// Devices are further devices of the host: their nodes and the permission to use them.
	Devices []Device `json:"devices,omitempty"`

	// Privileged gives it every device of the host.
	Privileged bool `json:"privileged,omitempty"`

	// SELinux is "disable", or parts of a label ("type:container_init_t level:s0:c1,c2") that
	// differ from the default one, where the host has SELinux.
	SELinux string `json:"selinux,omitempty"`

	// OOM is "process" if the kernel may kill a single process for lack of memory;
	// otherwise it kills the whole container.
	OOM string `json:"oom,omitempty"`

	// Stdin opens a pipe for the container's input, see [Runtime.Attach]. With Spec.Process.Terminal
	// there is a terminal, of which this says that somebody may write to it.
	Stdin bool `json:"stdin,omitempty"`

	// Rows and Columns are the terminal's size at the start.
	Rows    uint16 `json:"rows,omitempty"`
	Columns uint16 `json:"columns,omitempty"`

	// StopSignal and StopGracePeriod are remembered with the container, so
	// that whoever adopts it stops it rightly.
	StopSignal      string        `json:"stop_signal,omitempty"`
	StopGracePeriod time.Duration `json:"stop_grace_period,omitempty"`

	Log LogConfig `json:"log"`

	// CgroupDriver is who makes the group of the run, if it has none yet. The Runtime fills
	// it in, from its Options.
	CgroupDriver string `json:"cgroup_driver,omitempty"`
}

// ID is the container's name for the keeper and in the cgroup tree,
// "web.1-7f3k.app".
func (c *Config) ID() string { return c.Run + "." + c.Container }

// Device is a device node of the host, or a folder with some of them. The node inside is
// like the host's but for what is set here.
type Device struct {
	Source      string  `json:"source"`
	Target      string  `json:"target"`
	Permissions string  `json:"permissions"` // some of "rwm"
	Mode        *uint32 `json:"mode,omitempty"`
	UID         *uint32 `json:"uid,omitempty"`
	GID         *uint32 `json:"gid,omitempty"`
}

// Populate copies Path of the rootfs (contents, modes, owners) into the host
// folder Into, if Into is empty.
type Populate struct {
	Path string `json:"path"`
	Into string `json:"into"`
}

// LogConfig says where the container's output goes.
type LogConfig struct {
	Path    string `json:"path"`     // the current segment; rotated ones stand beside it
	MaxSize int64  `json:"max_size"` // bytes of one segment; 0 means 10 MiB
	MaxFile int    `json:"max_file"` // number of segments kept; 0 means 3

	// NonBlocking has output dropped, and counted, rather than the container wait
	// for the disk: more than Buffer bytes (0 means 1 MiB) are not kept for it.
	NonBlocking bool  `json:"non_blocking,omitempty"`
	Buffer      int64 `json:"buffer,omitempty"`
}

// Process is a further process for a running container (exec).
type Process struct {
	Args []string
	Env  []string // added to the container's own environment
	Cwd  string   // empty: the container's
	User string   // empty: the container's

	Stdin, Stdout, Stderr *os.File // nil: /dev/null

	// Console is a socket on which the master of a new terminal is sent, which is
	// then the process's stdin, stdout and stderr.
	Console       *os.File
	Rows, Columns uint16

	Privileged bool // all capabilities, and no seccomp filter
	Detach     bool // Exec returns once it runs; the Exit then says nothing
}

// IDMap maps the ids 0 to Size-1 of a user namespace to the host's from HostID.
type IDMap struct {
	HostID uint32 `json:"host_id"`
	Size   uint32 `json:"size"`
}

// Namespaces are what the containers of one run share.
type Namespaces struct {
	Run      string `json:"run"`
	IDMap    *IDMap `json:"id_map,omitempty"` // a user namespace that owns the others; nil: the host's
	Net      bool   `json:"net,omitempty"`
	IPC      bool   `json:"ipc,omitempty"`
	UTS      bool   `json:"uts,omitempty"`
	PID      bool   `json:"pid,omitempty"` // with a holder process, which is PID 1 in it
	Hostname string `json:"hostname,omitempty"`

	// Pin keeps them by mounts in the run folder too, so that they outlive
	// a moment without keeper and without containers. Of one container alone nobody needs that.
	Pin bool `json:"pin,omitempty"`

	// CgroupDriver is as in [Config].
	CgroupDriver string `json:"cgroup_driver,omitempty"`
}
