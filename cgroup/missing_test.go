package cgroup

import "testing"

func TestWhyAControllerIsMissing(t *testing.T) {
	h := fakeTree(t, Unified, map[string]string{
		"cgroup.controllers":                       "cpu io memory pids\n",
		"a.slice/cgroup.controllers":               "cpu memory pids\n",
		"a.slice/cargo.service/cgroup.controllers": "cpu pids\n",
		"plain/cgroup.controllers":                 "pids\n",
	})
	for _, c := range []struct{ controller, parent, cmdline, want string }{
		{"memory", "/a.slice/cargo.service", "quiet cgroup_disable=memory,pids", "the kernel was booted with cgroup_disable=memory,pids: boot it without"},
		{"cpuset", "/a.slice/cargo.service", "quiet", "the kernel is built without it, or it is in use as one of cgroup v1"},
		{"memory", "/a.slice/cargo.service", "cgroup_disable=cpu", "the host has it, but group /a.slice/cargo.service does not get it: " +
			"set Delegate=yes, or Delegate= with it in the list, for cargo.service"},
		{"io", "/a.slice/cargo.service", "", "the host has it, but group /a.slice does not get it: set Delegate=yes, or Delegate= with it in the list, for a.slice"},
		{"cpu", "/plain/below", "", "the host has it, but group /plain does not get it: it must stand in " + h.unified + "/cgroup.subtree_control"},
		{"cpu", "/not/there", "", ""},
	} {
		if got := h.whyMissing(c.controller, c.parent, c.cmdline); got != c.want {
			t.Errorf("%s in %s, %q: %q, want %q", c.controller, c.parent, c.cmdline, got, c.want)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", -1: "-1B", 512: "512B", 1536: "1.5KiB", 6 << 20: "6MiB", 1 << 30: "1GiB", 99999999: "95.4MiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestLimitsInScopes(t *testing.T) {
	if mode, err := Detect(); err != nil || mode != Unified {
		t.Skip("needs cgroup v2 alone")
	}
	err := (Parent{Path: "/wherry.slice", Scopes: true}).Check(Limits{Hugepages: map[string]int64{"2MB": 2 << 20}})
	if err == nil {
		t.Error("a limit of hugepages that systemd does not hand out")
	}
	if err := (Parent{Path: "/wherry.slice", Scopes: true}).Check(Limits{Memory: 8 << 20, CPUs: 1, Pids: 5, CpusetCPUs: "0"}); err != nil {
		t.Error(err)
	}
}
