package spec

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Calls that move a file to another quota project, or keep what is made in a folder
// from belonging to the folder's (include/uapi/linux/fs.h). The kernel lets the owner of a
// file do so, without any capability, outside of user namespaces (fileattr_set_prepare
// in fs/file_attr.c), and overlayfs passes it on to the writable layer.
const (
	fsSetXattr   = 0x401c5820 // FS_IOC_FSSETXATTR
	fsSetFlags   = 0x40086602 // FS_IOC_SETFLAGS, for FS_PROJINHERIT_FL
	fsSetFlags32 = 0x40046602 // of 32-bit programs
)

// keepProject takes these calls away, so that a container can neither leave its own
// quota nor use up somebody else's. Changing flags (chattr) can do no harm where
// there is no quota to leave.
func keepProject(p *specs.LinuxSeccomp, caps []string, bounded bool) *specs.LinuxSeccomp {
	if slices.Contains(caps, "CAP_SYS_ADMIN") {
		return p // it has other ways
	}
	blocked := []uint32{fsSetXattr}
	if bounded {
		blocked = append(blocked, fsSetFlags, fsSetFlags32)
	}
	if !allows(p, "ioctl") {
		return p
	}
	if p.DefaultAction == specs.ActAllow || p.DefaultAction == specs.ActLog {
		for _, b := range blocked {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"ioctl"}, Action: specs.ActErrno,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: 1<<32 - 1, ValueTwo: uint64(b), Op: specs.OpMaskedEqual}}})
		}
		return p
	}
	for i, s := range p.Syscalls {
		if s.Action == specs.ActAllow && len(s.Args) == 0 {
			p.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return n == "ioctl" })
		}
	}
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"ioctl"}, Action: specs.ActAllow, Args: requestsExcept(blocked)})
	return p
}

// allows tells whether the profile lets the call pass whatever its arguments are.
func allows(p *specs.LinuxSeccomp, call string) bool {
	for _, s := range p.Syscalls {
		if slices.Contains(s.Names, call) && len(s.Args) == 0 {
			return s.Action == specs.ActAllow || s.Action == specs.ActLog
		}
	}
	return p.DefaultAction == specs.ActAllow || p.DefaultAction == specs.ActLog
}

// requestsExcept matches all requests but those: any of the checks may hold. It looks at the
// lower half of the argument only, which is all that the kernel takes; to compare the
// whole of it would let 1<<32 more than a blocked request pass (CVE-2019-7303).
func requestsExcept(blocked []uint32) (args []specs.LinuxSeccompArg) {
	var descend func(bit int, rest []uint32)
	descend = func(bit int, rest []uint32) {
		if bit < 0 {
			return
		}
		var sides [2][]uint32
		for _, b := range rest {
			sides[b>>bit&1] = append(sides[b>>bit&1], b)
		}
		for value, side := range sides {
			if len(side) > 0 {
				descend(bit-1, side)
				continue
			}
			// No blocked request begins like this one up to the bit.
			mask := ^uint32(0) << bit
			begin := rest[0]&(mask<<1) | uint32(value)<<bit
			args = append(args, specs.LinuxSeccompArg{Index: 1, Value: uint64(mask), ValueTwo: uint64(begin), Op: specs.OpMaskedEqual})
		}
	}
	descend(31, blocked)
	return args
}
