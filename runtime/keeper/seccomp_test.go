package keeper

import (
	"encoding/binary"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/spec"
)

// Results of a filter as the kernel reads them.
const (
	retAllow  = unix.SECCOMP_RET_ALLOW
	retKill   = unix.SECCOMP_RET_KILL_THREAD
	retEPERM  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// call is one struct seccomp_data.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// bytes are in network order, because that is how the test's interpreter loads
// words; the kernel loads them in its own.
func (c call) bytes() []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[0:], c.nr)
	binary.BigEndian.PutUint32(b[4:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(b[16+8*i:], uint32(a)) // the lower half comes first on little-endian machines
		binary.BigEndian.PutUint32(b[20+8*i:], uint32(a>>32))
	}
	return b
}

// interpret loads a compiled program. x/net's machine wants at least one
// return on every path, as the kernel does.
func interpret(t *testing.T, program []byte) *bpf.VM {
	t.Helper()
	var raw []bpf.RawInstruction
	for ; len(program) >= 8; program = program[8:] {
		raw = append(raw, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(program), Jt: program[2], Jf: program[3],
			K: binary.NativeEndian.Uint32(program[4:]),
		})
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program holds unknown instructions")
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestCompile(t *testing.T) {
	if unix.AUDIT_ARCH_X86_64 != nativeAudit(t) {
		t.Skip("the numbers in the table are those of x86_64")
	}
	one := uint(1)
	profile := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &one,
		Architectures:   []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "write", "openat", "no_such_call"}, Action: specs.ActAllow},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_VSOCK, Op: specs.OpNotEqual}}},
			{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
				{Index: 0, Value: 0, Op: specs.OpEqualTo}, {Index: 0, Value: 8, Op: specs.OpEqualTo},
			}},
			{Names: []string{"kexec_load"}, Action: specs.ActKillThread},
		},
	}
	program, err := compile(profile, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vm := interpret(t, program)
	const x64, x86 = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
	tests := []struct {
		name string
		call call
		want uint32
	}{
		{"allowed", call{arch: x64, nr: unix.SYS_READ}, retAllow},
		{"allowed, 32 bits", call{arch: x86, nr: 3}, retAllow},
		{"not in the profile", call{arch: x64, nr: unix.SYS_MOUNT}, retEPERM},
		{"killed", call{arch: x64, nr: unix.SYS_KEXEC_LOAD}, retKill},
		{"newer than the profile", call{arch: x64, nr: unix.SYS_OPENAT + 1}, retENOSYS},
		{"newer than the profile, 32 bits", call{arch: x86, nr: 360}, retENOSYS},
		{"newer than the profile, x32", call{arch: x64, nr: x32Bit + 1000}, retENOSYS},
		{"argument allowed", call{arch: x64, nr: unix.SYS_SOCKET, args: [6]uint64{unix.AF_INET}}, retAllow},
		{"argument refused", call{arch: x64, nr: unix.SYS_SOCKET, args: [6]uint64{unix.AF_VSOCK}}, retEPERM},
		{"one of two values", call{arch: x64, nr: unix.SYS_PERSONALITY, args: [6]uint64{8}}, retAllow},
		{"none of two values", call{arch: x64, nr: unix.SYS_PERSONALITY, args: [6]uint64{9}}, retEPERM},
		{"foreign architecture", call{arch: unix.AUDIT_ARCH_AARCH64, nr: 0}, retKill},
	}
	for _, tt := range tests {
		got, err := vm.Run(tt.call.bytes())
		if err != nil || uint32(got) != tt.want {
			t.Errorf("%s: %#x, %v, want %#x", tt.name, got, err, tt.want)
		}
	}
}

func nativeAudit(t *testing.T) uint32 {
	t.Helper()
	r, err := largestCalls(&specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}}}})
	if err != nil || len(r) != 1 {
		t.Fatalf("native architecture: %v, %v", r, err)
	}
	for audit := range r {
		return audit
	}
	return 0
}

// TestNoHead: a profile that allows by default, or answers ENOSYS itself, gets
// no head.
func TestNoHead(t *testing.T) {
	enosys := uint(unix.ENOSYS)
	for _, p := range []*specs.LinuxSeccomp{
		{DefaultAction: specs.ActAllow},
		{DefaultAction: specs.ActLog},
		{DefaultAction: specs.ActErrno, DefaultErrnoRet: &enosys},
	} {
		if head, err := enosysHead(p); err != nil || len(head) != 0 {
			t.Errorf("%s: %d instructions, %v", p.DefaultAction, len(head), err)
		}
	}
}

func TestFiltersCache(t *testing.T) {
	dir := t.TempDir()
	f := newFilters(dir)
	if ref, err := f.get(nil); err != nil || ref != (filterRef{}) {
		t.Errorf("no profile: %+v, %v", ref, err)
	}
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"unshare"}, Action: specs.ActErrno}}}
	ref, err := f.get(p)
	if err != nil {
		t.Fatal(err)
	}
	if ref.Flags != unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW {
		t.Errorf("flags = %d", ref.Flags)
	}
	// A second keeper finds the program on disk instead of compiling it again.
	if err := os.WriteFile(f.path(ref), []byte("cached"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := newFilters(dir)
	if ref2, err := again.get(p); err != nil || ref2 != ref {
		t.Errorf("again: %+v, %v, want %+v", ref2, err, ref)
	}
	file, err := again.open(ref)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 6)
	if file.Read(b); string(b) != "cached" {
		t.Error("compiled again")
	}
	p.Syscalls[0].Names[0] = "mount"
	if other, err := f.get(p); err != nil || other.Hash == ref.Hash {
		t.Errorf("another profile: %+v, %v", other, err)
	}
}

func TestFilterRefuses(t *testing.T) {
	for _, p := range []*specs.LinuxSeccomp{
		{DefaultAction: "SCMP_ACT_NONSENSE"},
		{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_PDP11"}},
		{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NONSENSE"}},
		{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_NONSENSE"}}}}},
	} {
		if _, err := newFilters(t.TempDir()).get(p); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
}

func TestSelfLoadable(t *testing.T) {
	filter := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	notify := &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Action: specs.ActNotify}}}
	tests := []struct {
		name   string
		filter *specs.LinuxSeccomp
		nnp    bool
		want   bool
	}{
		{"plain", filter, true, true},
		{"no filter", nil, true, false},
		{"may gain privileges", filter, false, false},
		{"notifies", notify, true, false},
	}
	for _, tt := range tests {
		spec := &specs.Spec{Process: &specs.Process{NoNewPrivileges: tt.nnp}, Linux: &specs.Linux{Seccomp: tt.filter}}
		if got := selfLoadable(spec); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestFilterKeepsProjects: the rules that keep a container in its quota project
// compile into what they say.
func TestFilterKeepsProjects(t *testing.T) {
	res, err := spec.Build(spec.Image{Cmd: []string{"x"}}, spec.Container{Bounded: true, Network: spec.Private, Machine: spec.Machine{Arch: "amd64"}})
	if err != nil {
		t.Fatal(err)
	}
	program, err := compile(res.Spec.Linux.Seccomp, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vm := interpret(t, program)
	for request, want := range map[uint64]uint32{
		unix.TCGETS: retAllow, 0x5421: retAllow, 0xffffffff80045430: retAllow,
		0x401c5820: retEPERM, 1<<32 | 0x401c5820: retEPERM, 0x40086602: retEPERM,
	} {
		got, err := vm.Run(call{arch: unix.AUDIT_ARCH_X86_64, nr: unix.SYS_IOCTL, args: [6]uint64{3, request}}.bytes())
		if err != nil || uint32(got) != want {
			t.Errorf("ioctl %#x: %#x, %v", request, got, err)
		}
	}
	if len(program)/8 > unix.BPF_MAXINSNS {
		t.Error("too long")
	}
	t.Log(len(program)/8, "instructions")
}
