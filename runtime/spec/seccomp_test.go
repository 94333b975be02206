package spec

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// allowed tells whether the profile allows the call whatever its arguments.
func allowed(p *specs.LinuxSeccomp, name string) bool {
	for _, s := range p.Syscalls {
		if s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, name) {
			return true
		}
	}
	return p.DefaultAction == specs.ActAllow
}

func profile(t *testing.T, m Machine, add ...string) *specs.LinuxSeccomp {
	t.Helper()
	caps, err := chooseCaps(add, nil)
	if err != nil {
		t.Fatal(err)
	}
	return defaultSeccomp(caps, m)
}

func TestSeccompFollowsCapabilities(t *testing.T) {
	plain := profile(t, Machine{Arch: "amd64"})
	if plain.DefaultAction != specs.ActErrno {
		t.Errorf("the default action is %s", plain.DefaultAction)
	}
	for _, name := range []string{"read", "write", "execve", "ptrace", "chroot"} {
		if !allowed(plain, name) {
			t.Errorf("%s is blocked", name)
		}
	}
	for name, capability := range map[string]string{
		"mount": "SYS_ADMIN", "umount2": "SYS_ADMIN", "unshare": "SYS_ADMIN", "clone": "SYS_ADMIN", "clone3": "SYS_ADMIN",
		"setns": "SYS_ADMIN", "pivot_root": "", "kexec_load": "", "reboot": "SYS_BOOT", "init_module": "SYS_MODULE",
		"open_by_handle_at": "DAC_READ_SEARCH", "settimeofday": "SYS_TIME", "bpf": "BPF", "keyctl": "", "userfaultfd": "",
	} {
		if allowed(plain, name) {
			t.Errorf("%s is allowed to everybody", name)
		}
		if capability != "" && !allowed(profile(t, Machine{Arch: "amd64"}, capability), name) {
			t.Errorf("%s is blocked with %s", name, capability)
		}
	}
	// clone3 says "not implemented", so that the C library falls back to clone.
	for _, s := range plain.Syscalls {
		if slices.Contains(s.Names, "clone3") && (s.Action != specs.ActErrno || s.ErrnoRet == nil || *s.ErrnoRet != 38) {
			t.Errorf("clone3: %+v", s)
		}
	}
	if all := profile(t, Machine{Arch: "amd64"}, "ALL"); !allowed(all, "mount") || !allowed(all, "clone") {
		t.Error("ALL does not allow mount and clone")
	}
}

func TestSeccompFollowsMachine(t *testing.T) {
	if allowed(profile(t, Machine{Arch: "amd64", Kernel: Kernel{4, 7}}), "ptrace") {
		t.Error("ptrace is allowed where it could leave the filter (before 4.8)")
	}
	if !allowed(profile(t, Machine{Arch: "amd64", Kernel: Kernel{4, 8}}), "ptrace") || !allowed(profile(t, Machine{Arch: "amd64", Kernel: Kernel{6, 1}}), "ptrace") {
		t.Error("ptrace is blocked on 4.8 or 6.1")
	}
	for arch, want := range map[string]struct {
		has, lacks string
		arches     []specs.Arch
	}{
		"amd64":   {"arch_prctl", "s390_pci_mmio_read", []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}},
		"arm64":   {"cacheflush", "arch_prctl", []specs.Arch{specs.ArchAARCH64, specs.ArchARM}},
		"riscv64": {"riscv_flush_icache", "arch_prctl", []specs.Arch{specs.ArchRISCV64}},
		"s390x":   {"s390_runtime_instr", "arch_prctl", []specs.Arch{specs.ArchS390X, specs.ArchS390}},
		"mystery": {"read", "arch_prctl", nil},
	} {
		p := profile(t, Machine{Arch: arch})
		if !allowed(p, want.has) || allowed(p, want.lacks) || !slices.Equal(p.Architectures, want.arches) {
			t.Errorf("%s: %v, %s %v, %s %v", arch, p.Architectures, want.has, allowed(p, want.has), want.lacks, allowed(p, want.lacks))
		}
	}
}

// On this machine our resolver agrees with the profile's own.
func TestSeccompAgreesWithUpstream(t *testing.T) {
	for _, add := range [][]string{nil, {"SYS_ADMIN"}, {"SYS_PTRACE", "BPF"}, {"ALL"}} {
		caps, err := chooseCaps(add, nil)
		if err != nil {
			t.Fatal(err)
		}
		upstream, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := json.Marshal(upstream)
		if got, _ := json.Marshal(defaultSeccomp(caps, Machine{})); string(got) != string(want) {
			t.Errorf("%v: got %s, want %s", add, got, want)
		}
	}
}

func TestParseKernel(t *testing.T) {
	for in, want := range map[string]Kernel{"6.12.9-amd64": {6, 12}, "4.8": {4, 8}, "3.12-rc5": {3, 12}, "x": {}, "": {}} {
		got, err := ParseKernel(in)
		if got != want || (err != nil) != (want == Kernel{}) {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		if _, err := Build(Image{Cmd: []string{"x"}}, Container{Network: Private}); err != nil {
			b.Fatal(err)
		}
	}
}
