package spec

import (
	"errors"

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
	CapAdd         []string // "NET_ADMIN" or "CAP_NET_ADMIN" or "ALL"
	CapDrop        []string
	Limits         cgroup.Limits
	Mounts         []specs.Mount // binds and tmpfs of the unit, later ones win
	ShmSize        int64         // bytes of /dev/shm; 0: 64 MiB
	Network        Network
	HostsPath      string // host files that become /etc/hosts, /etc/hostname, /etc/resolv.conf
	HostnamePath   string
	ResolvConfPath string
	Terminal       bool
}

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
	Volumes    []string // image volumes that no mount of the unit covers: the caller mounts a folder for each
}

// Build combines image and unit into an OCI runtime spec with Docker's defaults.
func Build(img Image, c Container) (Result, error) { return Result{}, errors.ErrUnsupported }
