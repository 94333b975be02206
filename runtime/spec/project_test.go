package spec

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mayRequest tells whether the profile lets an ioctl with the request pass.
func mayRequest(p *specs.LinuxSeccomp, request uint64) bool {
	for _, s := range p.Syscalls {
		if s.Action != specs.ActAllow || !slices.Contains(s.Names, "ioctl") {
			continue
		}
		if len(s.Args) == 0 || slices.ContainsFunc(s.Args, func(a specs.LinuxSeccompArg) bool {
			return a.Index == 1 && a.Op == specs.OpMaskedEqual && request&a.Value == a.ValueTwo
		}) {
			return true
		}
	}
	return false
}

func TestContainersKeepTheirQuotaProject(t *testing.T) {
	const tcgets, fioclex, negative = 0x5401, 0x5451, 0xffffffff80045430
	for _, c := range []struct {
		add            []string
		bounded        bool
		project, flags bool
	}{
		{nil, false, false, true}, {nil, true, false, false}, {[]string{"SYS_ADMIN"}, true, true, true},
	} {
		caps, err := chooseCaps(c.add, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := keepProject(defaultSeccomp(caps, Machine{Arch: "amd64"}), caps, c.bounded)
		for request, want := range map[uint64]bool{
			tcgets: true, fioclex: true, negative: true, 0: true, 1<<64 - 1: true, fsSetXattr - 1: true, fsSetXattr ^ 1<<31: true, fsSetFlags ^ 1: true,
			0x801c581f: true, 0x80086601: true, // to read them
			fsSetXattr: c.project, 1<<32 | fsSetXattr: c.project,
			fsSetFlags: c.flags, fsSetFlags32: c.flags, 0xffffffff<<32 | fsSetFlags: c.flags,
		} {
			if got := mayRequest(p, request); got != want {
				t.Errorf("%+v: request %#x: %v", c, request, got)
			}
		}
		if !allowed(p, "read") {
			t.Error("read is blocked")
		}
	}
	res, err := Build(Image{Cmd: []string{"x"}}, Container{Bounded: true, Network: Private, Machine: Machine{Arch: "amd64"}})
	if err != nil {
		t.Fatal(err)
	}
	if mayRequest(res.Spec.Linux.Seccomp, fsSetFlags) || !mayRequest(res.Spec.Linux.Seccomp, tcgets) {
		t.Error("Build does not bound the container")
	}
}
