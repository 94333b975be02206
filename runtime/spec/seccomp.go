package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Kernel is a version, of which the first two numbers count.
type Kernel struct{ Version, Major uint64 }

// ParseKernel reads the release that uname shows, "6.12.9-amd64".
func ParseKernel(release string) (Kernel, error) {
	var k Kernel
	if _, err := fmt.Sscanf(release, "%d.%d", &k.Version, &k.Major); err != nil {
		return Kernel{}, fmt.Errorf("kernel release %q: does not begin with a version", release)
	}
	return k, nil
}

func (k Kernel) atLeast(v, major uint64) bool {
	return k == Kernel{} || k.Version > v || (k.Version == v && k.Major >= major)
}

// buildSeccomp is the container's filter; nil: none.
func buildSeccomp(c Container, caps []string) (*specs.LinuxSeccomp, error) {
	switch {
	case c.Seccomp == Unconfined || c.Privileged && c.Seccomp == "":
		return nil, nil
	case c.Seccomp == "":
		return keepProject(defaultSeccomp(caps, c.Machine), caps, c.Bounded), nil
	}
	profile, err := ParseSeccomp(c.SeccompProfile)
	if err != nil {
		return nil, fmt.Errorf("seccomp %s: %w", c.Seccomp, err)
	}
	return keepProject(resolveSeccomp(profile, caps, c.Machine), caps, c.Bounded), nil
}

// ParseSeccomp reads a profile in Docker's form, of which the OCI specification's is a
// part: the one knows conditions and a map of architectures besides.
func ParseSeccomp(text []byte) (*seccomp.Seccomp, error) {
	var p seccomp.Seccomp
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("not a profile: %w", err)
	}
	switch {
	case p.DefaultAction == "":
		return nil, errors.New("not a profile: it has no defaultAction")
	case len(p.Architectures) > 0 && len(p.ArchMap) > 0:
		return nil, errors.New("architectures and archMap exclude each other")
	case p.DefaultAction == specs.ActNotify || p.ListenerPath != "":
		return nil, errors.New("there is nobody to notify")
	}
	for i, call := range p.Syscalls {
		if call == nil {
			return nil, fmt.Errorf("rule %d names no system call", i+1)
		}
		//lint:ignore SA1019 old profiles have it
		name := call.Name
		switch {
		case name == "" && len(call.Names) == 0:
			return nil, fmt.Errorf("rule %d names no system call", i+1)
		case name != "" && len(call.Names) > 0:
			return nil, fmt.Errorf("rule %d: name and names exclude each other", i+1)
		case call.Action == specs.ActNotify:
			return nil, fmt.Errorf("rule %d: there is nobody to notify", i+1)
		case name != "":
			call.Names = []string{name}
		}
	}
	return &p, nil
}

// defaultSeccomp is Docker's default profile with its conditions resolved for
// the capabilities and the machine. The profile's own resolver asks the kernel
// it runs on, which would make the spec depend on where it is built.
func defaultSeccomp(caps []string, m Machine) *specs.LinuxSeccomp {
	profile := seccomp.DefaultProfile()
	profile.Architectures = nil
	return resolveSeccomp(profile, caps, m)
}

// resolveSeccomp drops the rules whose conditions do not hold.
func resolveSeccomp(profile *seccomp.Seccomp, caps []string, m Machine) *specs.LinuxSeccomp {
	out := profile.LinuxSeccomp
	out.Syscalls = nil
	arch := nativeArch(m.Arch)
	for _, a := range profile.ArchMap {
		if a.Arch == arch.spec {
			out.Architectures = append([]specs.Arch{a.Arch}, a.SubArches...)
		}
	}
	for _, call := range profile.Syscalls {
		if included(call.Includes, caps, arch.name, m.Kernel) && !excluded(call.Excludes, caps, arch.name, m.Kernel) {
			out.Syscalls = append(out.Syscalls, call.LinuxSyscall)
		}
	}
	return &out
}

// included holds if every condition does.
func included(f *seccomp.Filter, caps []string, arch string, k Kernel) bool {
	if f == nil {
		return true
	}
	for _, c := range f.Caps {
		if !slices.Contains(caps, c) {
			return false
		}
	}
	if len(f.Arches) > 0 && !slices.Contains(f.Arches, arch) {
		return false
	}
	return f.MinKernel == nil || k.atLeast(f.MinKernel.Kernel, f.MinKernel.Major)
}

// excluded holds if any condition does.
func excluded(f *seccomp.Filter, caps []string, arch string, k Kernel) bool {
	if f == nil {
		return false
	}
	for _, c := range f.Caps {
		if slices.Contains(caps, c) {
			return true
		}
	}
	if slices.Contains(f.Arches, arch) {
		return true
	}
	return f.MinKernel != nil && k.atLeast(f.MinKernel.Kernel, f.MinKernel.Major)
}

// archNames are the names of an architecture in profiles: libseccomp's short
// one in conditions, the specification's in the list of architectures.
type archNames struct {
	name string
	spec specs.Arch
}

func nativeArch(goarch string) archNames {
	if goarch == "" {
		goarch = runtime.GOARCH
	}
	switch goarch {
	case "386":
		return archNames{"x86", specs.ArchX86}
	case "amd64":
		return archNames{"amd64", specs.ArchX86_64}
	case "arm":
		return archNames{"arm", specs.ArchARM}
	case "arm64":
		return archNames{"arm64", specs.ArchAARCH64}
	case "loong64":
		return archNames{"loongarch64", specs.ArchLOONGARCH64}
	case "ppc64le":
		return archNames{"ppc64le", specs.ArchPPC64LE}
	case "riscv64":
		return archNames{"riscv64", specs.ArchRISCV64}
	case "s390x":
		return archNames{"s390x", specs.ArchS390X}
	}
	return archNames{name: goarch}
}
