package spec

import (
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/cgroup"
)

// Image is what an image's config says; a plain copy, because this package
// does not know the image store.
type Image struct {
	Entrypoint, Cmd, Env []string
	User, WorkingDir     string
	StopSignal           string
	Volumes              []string
}

// Container is what the unit wants, on top of Image. Zero values mean the
// image's or Docker's default.
type Container struct {
	Hostname       string
	Entrypoint     []string // nil: the image's (then Cmd holds too); set: the image's Cmd is dropped
	Command        []string // nil: the image's Cmd
	Env            []string // KEY=VALUE, wins over the image's
	WorkingDir     string
	User           string
	StopSignal     string
	ReadOnly       bool
	Bounded        bool     // its writable layer has a quota
	CapAdd         []string // "NET_ADMIN" or "CAP_NET_ADMIN" or "ALL"
	CapDrop        []string
	Limits         cgroup.Limits
	Mounts         []specs.Mount // binds and tmpfs of the unit, later ones win
	ShmSize        int64         // bytes of /dev/shm; 0: 64 MiB
	Network        Network
	UserNS         bool   // it gets a user namespace of its own: the keeper fills in the mapping
	PID            string // "host", "shared" or empty
	IPC            string // "host" or empty
	Sysctls        map[string]string
	Devices        []Device
	CDI            []string
	Privileged     bool
	NewPrivileges  bool
	Seccomp        string          // "unconfined", or anything else with a profile
	SeccompProfile json.RawMessage // in Docker's or the specification's form
	AppArmor       string
	SELinux        string
	Ulimits        []Ulimit
	GroupAdd       []string // names or numbers; the names are the keeper's to look up
	OOMScoreAdj    int
	HostsPath      string // host files that become /etc/hosts, /etc/hostname, /etc/resolv.conf
	HostnamePath   string
	ResolvConfPath string
	Terminal       bool
	Machine        Machine
}

// Device is a device node of the host.
type Device struct{ Source, Target, Permissions string }

// Ulimit is a limit of each process; -1 is none.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Machine is what the spec depends on of the host.
type Machine struct {
	Arch   string // GOARCH; empty: that of this program
	Kernel Kernel // zero: new enough for all rules
	CPUs   int    // possible ones, whose thermal counters are masked; 0: none
}

// Unconfined takes a profile of seccomp or AppArmor away, NoLabel SELinux's.
const (
	Unconfined = "unconfined"
	NoLabel    = "disable"
)

// Network is the kind of network namespace.
type Network string

// Host shares the host's, Private joins one that somebody configured, None is
// a new one with loopback only.
const (
	Host    Network = "host"
	Private Network = "private"
	None    Network = "none"
)

// Result is the spec and what does not fit into it.
type Result struct {
	Spec       *specs.Spec
	User       string   // for runtime.Config.User
	StopSignal string   // "SIGTERM"
	Devices    []Device // for runtime.Config.Devices
	SELinux    string   // for runtime.Config.SELinux
	Volumes    []string // image volumes that no mount of the unit covers: the caller mounts a folder for each
}

// Build combines image and unit into an OCI runtime spec with Docker's defaults.
func Build(img Image, c Container) (Result, error) {
	user := img.User
	if c.User != "" {
		user = c.User
	}
	process, err := buildProcess(img, c, user)
	if err != nil {
		return Result{}, err
	}
	stop, err := stopSignal(img, c)
	if err != nil {
		return Result{}, err
	}
	mounts, err := buildMounts(c)
	if err != nil {
		return Result{}, err
	}
	resources, err := buildResources(c)
	if err != nil {
		return Result{}, err
	}
	namespaces, err := buildNamespaces(c)
	if err != nil {
		return Result{}, err
	}
	volumes, err := openVolumes(img.Volumes, c.Mounts)
	if err != nil {
		return Result{}, err
	}
	sysctl, err := buildSysctl(c)
	if err != nil {
		return Result{}, err
	}
	filter, err := buildSeccomp(c, process.Capabilities.Bounding)
	if err != nil {
		return Result{}, err
	}
	devices, err := checkDevices(c.Devices)
	if err != nil {
		return Result{}, err
	}
	label := c.SELinux
	if c.Privileged && label == "" {
		label = NoLabel
	}
	return Result{
		User:       user,
		Devices:    devices,
		SELinux:    label,
		StopSignal: stop,
		Volumes:    volumes,
		Spec: &specs.Spec{
			Version:  specs.Version,
			Process:  process,
			Root:     &specs.Root{Readonly: c.ReadOnly},
			Hostname: c.Hostname,
			Mounts:   mounts,
			Linux: &specs.Linux{
				Namespaces:        namespaces,
				Resources:         resources,
				Sysctl:            sysctl,
				Seccomp:           filter,
				MaskedPaths:       maskedPaths(c),
				ReadonlyPaths:     readonlyPaths(c),
				RootfsPropagation: "rprivate",
			},
		},
	}, nil
}

// nearMiss is the end of an error about an unknown word: a hint if one of the
// known ones is close to it.
func nearMiss(word string, known []string) string {
	best, least := "", 3 // two slips of the hand, no more
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the number of letters to insert, delete, replace or swap.
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j+1]+1, cur[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cur[j+1] = min(cur[j+1], before[j-1]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
