package keeper

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A profile is older than the kernel it runs on. Programs try new system calls
// and fall back if they get ENOSYS, but break on EPERM, which profiles answer
// by default. So a head in front of the filter gives ENOSYS to every call with
// a number above the largest one that the profile names, as runc does.

// Offsets in struct seccomp_data, and bits of x32 call numbers.
const (
	offsetNr   = 0
	offsetArch = 4
	x32Bit     = 0x40000000
)

// enosysHead is the head for profile, empty where it would be wrong: a profile
// that allows by default, or that answers ENOSYS itself.
func enosysHead(profile *specs.LinuxSeccomp) ([]bpf.RawInstruction, error) {
	switch profile.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return nil, nil
	}
	if profile.DefaultErrnoRet != nil && *profile.DefaultErrnoRet == uint(unix.ENOSYS) {
		return nil, nil
	}
	last, err := largestCalls(profile)
	if err != nil {
		return nil, err
	}
	var prog []bpf.Instruction
	for _, audit := range slices.Sorted(maps.Keys(last)) {
		prog = append(prog, archSection(audit, last[audit])...)
	}
	// From here on the filter proper follows; it loads what it needs itself.
	return bpf.Assemble(prog)
}

// callRange is the largest call number a profile names for an architecture.
type callRange struct {
	native uint32
	x32    uint32 // 0: not in the profile
	s390   bool
}

// archSection is what one architecture adds. It falls through to whatever
// follows if the call belongs to another one or is known.
func archSection(audit uint32, r callRange) []bpf.Instruction {
	ret := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	body := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetNr, Size: 4}}
	if r.s390 {
		// setup(2), number 0, stands for every call that is too large for the multiplexer.
		body = append(body, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1}, ret)
	}
	if audit == unix.AUDIT_ARCH_X86_64 {
		x32 := []bpf.Instruction{}
		if r.x32 != 0 {
			x32 = append(x32, bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: r.x32, SkipTrue: 1}, ret)
		}
		native := []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: r.native, SkipTrue: 1}, ret,
			bpf.Jump{Skip: uint32(len(x32))},
		}
		body = append(body, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: x32Bit, SkipTrue: uint8(len(native))})
		body = append(append(body, native...), x32...)
	} else {
		body = append(body, bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: r.native, SkipTrue: 1}, ret)
	}
	head := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: audit, SkipTrue: uint8(len(body))},
	}
	return append(head, body...)
}

// largestCalls finds the ranges by the kernel's name of each architecture. The
// native one is always there, as libseccomp adds it by itself.
func largestCalls(profile *specs.LinuxSeccomp) (map[uint32]callRange, error) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, err
	}
	archs := []libseccomp.ScmpArch{native}
	for _, a := range profile.Architectures {
		arch, err := scmpArch(a)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(archs, arch) {
			archs = append(archs, arch)
		}
	}
	ranges := map[uint32]callRange{}
	for _, arch := range archs {
		audit, ok := auditArchs[arch]
		largest := largestCall(profile, arch)
		if !ok || largest == 0 {
			continue
		}
		r := ranges[audit]
		if arch == libseccomp.ArchX32 {
			r.x32 = largest
		} else {
			r.native = largest
		}
		r.s390 = arch == libseccomp.ArchS390 || arch == libseccomp.ArchS390X
		ranges[audit] = r
	}
	maps.DeleteFunc(ranges, func(_ uint32, r callRange) bool { return r.native == 0 })
	return ranges, nil
}

func largestCall(profile *specs.LinuxSeccomp, arch libseccomp.ScmpArch) uint32 {
	var largest libseccomp.ScmpSyscall
	for _, s := range profile.Syscalls {
		for _, name := range s.Names {
			if nr, err := libseccomp.GetSyscallFromNameByArch(name, arch); err == nil && nr > largest {
				largest = nr
			}
		}
	}
	return uint32(largest)
}

// auditArchs are the kernel's names. x32 calls come under x86_64's.
var auditArchs = map[libseccomp.ScmpArch]uint32{
	libseccomp.ArchX86:         unix.AUDIT_ARCH_I386,
	libseccomp.ArchAMD64:       unix.AUDIT_ARCH_X86_64,
	libseccomp.ArchX32:         unix.AUDIT_ARCH_X86_64,
	libseccomp.ArchARM:         unix.AUDIT_ARCH_ARM,
	libseccomp.ArchARM64:       unix.AUDIT_ARCH_AARCH64,
	libseccomp.ArchMIPS:        unix.AUDIT_ARCH_MIPS,
	libseccomp.ArchMIPS64:      unix.AUDIT_ARCH_MIPS64,
	libseccomp.ArchMIPS64N32:   unix.AUDIT_ARCH_MIPS64N32,
	libseccomp.ArchMIPSEL:      unix.AUDIT_ARCH_MIPSEL,
	libseccomp.ArchMIPSEL64:    unix.AUDIT_ARCH_MIPSEL64,
	libseccomp.ArchMIPSEL64N32: unix.AUDIT_ARCH_MIPSEL64N32,
	libseccomp.ArchPPC:         unix.AUDIT_ARCH_PPC,
	libseccomp.ArchPPC64:       unix.AUDIT_ARCH_PPC64,
	libseccomp.ArchPPC64LE:     unix.AUDIT_ARCH_PPC64LE,
	libseccomp.ArchS390:        unix.AUDIT_ARCH_S390,
	libseccomp.ArchS390X:       unix.AUDIT_ARCH_S390X,
	libseccomp.ArchRISCV64:     unix.AUDIT_ARCH_RISCV64,
	libseccomp.ArchLOONGARCH64: unix.AUDIT_ARCH_LOONGARCH64,
}

// scmpArch knows "SCMP_ARCH_X86_64".
func scmpArch(a specs.Arch) (libseccomp.ScmpArch, error) {
	name := strings.ToLower(strings.TrimPrefix(string(a), "SCMP_ARCH_"))
	if name == "x86_64" {
		name = "amd64"
	}
	if name == "aarch64" {
		name = "arm64"
	}
	arch, err := libseccomp.GetArchFromString(name)
	if err != nil {
		return arch, fmt.Errorf("architecture %s: %w", a, err)
	}
	return arch, nil
}
