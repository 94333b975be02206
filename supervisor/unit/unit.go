package unit

import (
	"encoding/json"
	"time"

	"github.com/wherry-run/wherry/cgroup"
)

// Unit is the meaning of one unit file: all defaults filled in, all short
// forms resolved, env files read. It marshals to JSON with snake-case keys;
// that form is stored in revisions, and equal units have equal bytes.
type Unit struct {
	Kind       Kind              `json:"kind"`
	Name       string            `json:"name"`
	Replicas   int               `json:"replicas"`
	Network    string            `json:"network"`            // bridge, host, none
	Hostname   string            `json:"hostname,omitempty"` // empty: the instance's name
	UserNS     string            `json:"userns,omitempty"`   // auto, required, host; empty: the daemon's default
	PID        string            `json:"pid,omitempty"`      // shared (one for all containers of a run), host; empty: one for each container
	IPC        string            `json:"ipc,omitempty"`      // host; empty: one for each run
	Sysctls    map[string]string `json:"sysctls,omitempty"`
	Ports      []Port            `json:"ports,omitempty"`
	DependsOn  []Dependency      `json:"depends_on,omitempty"`
	Restart    RestartPolicy     `json:"restart_policy"`
	Labels     map[string]string `json:"labels,omitempty"`
	Containers []Container       `json:"containers"` // sorted by name; the one of a unit without the key containers is named "app"
}

// Kind of a unit.
type Kind string

// Service is kept running.
const Service Kind = "service"

// Container is one container of a unit.
type Container struct {
	Name            string            `json:"name"`
	Image           string            `json:"image"`
	PullPolicy      string            `json:"pull_policy"` // missing, always, never, newer
	RegistryAuth    RegistryAuth      `json:"registry_auth,omitzero"`
	Entrypoint      []string          `json:"entrypoint,omitempty"` // nil: the image's
	Command         []string          `json:"command,omitempty"`    // nil: the image's
	Environment     map[string]string `json:"environment,omitempty"`
	WorkingDir      string            `json:"working_dir,omitempty"`
	User            string            `json:"user,omitempty"`
	Limits          cgroup.Limits     `json:"limits,omitzero"`
	Volumes         []Volume          `json:"volumes,omitempty"`
	StopSignal      string            `json:"stop_signal,omitempty"` // "SIGTERM"; empty: the image's
	StopGracePeriod Duration          `json:"stop_grace_period"`     // default 10s
	Init            bool              `json:"init"`
	ReadOnly        bool              `json:"read_only,omitempty"`
	CapAdd          []string          `json:"cap_add,omitempty"`
	CapDrop         []string          `json:"cap_drop,omitempty"`
	StorageOpt      StorageOpt        `json:"storage_opt,omitzero"`
	Logging         Logging           `json:"logging"`

	Essential bool                  `json:"essential,omitempty"` // of several: when it ends, so do the others
	DependsOn []ContainerDependency `json:"depends_on,omitempty"`

	OOM            string          `json:"oom,omitempty"` // process; empty: group
	Devices        []Device        `json:"devices,omitempty"`
	CDI            []string        `json:"cdi,omitempty"` // "vendor.com/class=name"
	Privileged     bool            `json:"privileged,omitempty"`
	NewPrivileges  bool            `json:"new_privileges,omitempty"`  // no_new_privileges: false
	Seccomp        string          `json:"seccomp,omitempty"`         // unconfined, or the profile's path; empty: the default one
	SeccompProfile json.RawMessage `json:"seccomp_profile,omitempty"` // what stood in the file
	AppArmor       string          `json:"apparmor,omitempty"`        // a loaded profile, or unconfined; empty: the host's default, if it has one
	SELinux        string          `json:"selinux,omitempty"`         // disable, or parts of a label; empty: the host's default, if it has one
	Ulimits        []Ulimit        `json:"ulimits,omitempty"`
	GroupAdd       []string        `json:"group_add,omitempty"`
	OOMScoreAdj    int             `json:"oom_score_adj,omitempty"`
	ShmSize        int64           `json:"shm_size,omitempty"` // bytes; 0: 64 MiB
	TTY            bool            `json:"tty,omitempty"`
	StdinOpen      bool            `json:"stdin_open,omitempty"`
	PostStart      []Hook          `json:"post_start,omitempty"`
	PreStop        []Hook          `json:"pre_stop,omitempty"`
}

// ContainerDependency is another container of the unit that comes first.
type ContainerDependency struct {
	Container string `json:"container"`
	Condition string `json:"condition"` // started, completed_successfully
}

// Device is a device node of the host.
type Device struct {
	Source      string `json:"source"`
	Target      string `json:"target"`
	Permissions string `json:"permissions"` // some of "rwm"
}

// Ulimit is a limit of each process, as for setrlimit(2); -1 is no limit.
type Ulimit struct {
	Name string `json:"name"` // "nofile"
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Hook is a command that is run in the container.
type Hook struct {
	Command     []string          `json:"command"`
	User        string            `json:"user,omitempty"`
	WorkingDir  string            `json:"working_dir,omitempty"`
	Environment map[string]string `json:"environment,omitempty"`
	Privileged  bool              `json:"privileged,omitempty"`
	Timeout     Duration          `json:"timeout,omitempty"` // post_start: default 1m; pre_stop: within the grace period
}

// RegistryAuth says where the credentials for the image's registry come from;
// one of the kinds is set, or none. The secrets stay in their files, which are
// read at every pull: none is ever part of a unit.
type RegistryAuth struct {
	Username     string `json:"username,omitempty"`      // with PasswordFile
	PasswordFile string `json:"password_file,omitempty"` // paths are absolute
	TokenFile    string `json:"token_file,omitempty"`
	DockerConfig string `json:"docker_config,omitempty"`
	Helper       string `json:"helper,omitempty"` // X for docker-credential-X
}

// StorageOpt bounds what a container writes to its own root.
type StorageOpt struct {
	Size int64 `json:"size,omitempty"` // bytes; 0: no bound
}

// Port is a published port.
type Port struct {
	HostIP   string `json:"host_ip,omitempty"`
	HostPort int    `json:"host_port,omitempty"` // 0: a free one
	Port     int    `json:"port"`
	Protocol string `json:"protocol"` // tcp, udp
}

// Volume is a mount of a container.
type Volume struct {
	Type     string `json:"type"`             // bind, volume, tmpfs
	Source   string `json:"source,omitempty"` // absolute host path, or a volume's name
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Size     int64  `json:"size,omitempty"` // tmpfs, bytes
	Mode     uint32 `json:"mode,omitempty"` // tmpfs
}

// Dependency is a unit that must be up first.
type Dependency struct {
	Unit      string `json:"unit"`
	Condition string `json:"condition"` // started
	Required  bool   `json:"required"`
}

// RestartPolicy says what happens after a container's end or a failed start.
type RestartPolicy struct {
	Condition          Condition `json:"condition"`
	Delay              Duration  `json:"delay"`        // first wait; default 100ms
	Multiplier         float64   `json:"multiplier"`   // default 2
	MaxDelay           Duration  `json:"max_delay"`    // default 1m
	Jitter             float64   `json:"jitter"`       // share of the delay, 0 to 1; default 0.1
	MaxAttempts        int       `json:"max_attempts"` // restarts within Interval; 0: no limit
	Interval           Duration  `json:"interval"`     // default 10m
	ResetAfter         Duration  `json:"reset_after"`  // a run this long counts as good; default 1m
	NoRestartExitCodes []int     `json:"no_restart_exit_codes,omitempty"`
}

// Condition of a restart.
type Condition string

// Never runs once, OnFailure restarts what did not exit 0, Any restarts always.
// UnlessStopped differs from Any only for people: a manual stop is remembered
// across reboots with every condition.
const (
	Never     Condition = "none"
	OnFailure Condition = "on-failure"
	Any       Condition = "any"
)

// Logging bounds a container's log files.
type Logging struct {
	MaxSize int64 `json:"max_size"` // bytes; default 10 MiB
	MaxFile int   `json:"max_file"` // default 3

	Mode          string `json:"mode,omitempty"`            // non-blocking; empty: blocking
	MaxBufferSize int64  `json:"max_buffer_size,omitempty"` // bytes, of non-blocking; 0: 1 MiB
}

// Duration marshals as "1m30s".
type Duration time.Duration
