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

	// StopSignal and StopGracePeriod are remembered with the container, so
	// that whoever adopts it stops it rightly.
	StopSignal      string        `json:"stop_signal,omitempty"`
	StopGracePeriod time.Duration `json:"stop_grace_period,omitempty"`

	Log LogConfig `json:"log"`
}

// ID is the container's name for the keeper and in the cgroup tree,
// "web.1-7f3k.app".
func (c *Config) ID() string { return c.Run + "." + c.Container }

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
}

// Process is a further process for a running container (exec).
type Process struct {
	Args []string
	Env  []string // added to the container's own environment
	Cwd  string   // empty: the container's
	User string   // empty: the container's

	Stdin, Stdout, Stderr *os.File // nil: /dev/null
}
