package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/cgroup"
)

func checkCgroupMode(_ context.Context, e *exam) finding {
	mode, err := e.p.mode()
	switch {
	case err != nil:
		return failed(err.Error(), "mount -t cgroup2 cgroup2 /sys/fs/cgroup; in a container, run that with --privileged")
	case mode == cgroup.Legacy:
		return warning("cgroup v1: no memory_high, no io limits for buffered writes, no pressure of a container, starts wait 10 ms for each group",
			e.h.bootWith("systemd.unified_cgroup_hierarchy=1"))
	}
	return fine("cgroup v2")
}

func (e *exam) unified() bool {
	mode, err := e.p.mode()
	return err == nil && mode == cgroup.Unified
}

func checkDelegation(_ context.Context, e *exam) finding {
	d, err := e.p.delegation()
	if err != nil {
		return failed(err.Error(), "mount | grep cgroup; ls -ld /sys/fs/cgroup")
	}
	parent := strings.Trim(e.o.CgroupParent, "/")
	switch {
	case d.ReadOnly:
		return failed("/sys/fs/cgroup is mounted read-only: no group can be made", "mount -o remount,rw /sys/fs/cgroup; in a container, run that with --privileged --cgroupns=private")
	case !e.unified():
		return fine("cgroup v1 knows no delegation; groups stand below /" + parent)
	case e.o.CgroupDriver == "systemd":
		return fine("systemd makes the groups (cgroup_driver: systemd)")
	case d.Group == "" && e.h.systemd():
		return warning(fmt.Sprintf("systemd has delegated no group to us: it may change or remove what is below /%s", parent),
			"run the daemon by its services, which have Delegate=yes: systemctl enable --now wherry.service. Or "+e.setting("cgroup_driver: systemd"))
	case len(d.Occupied) > 0:
		return failed(fmt.Sprintf("processes stand in %s itself (pid %s), so that limits cannot be given to groups below", d.Group, strings.Join(first(d.Occupied, 5), ", ")),
			"stop them, or move them to a group below it: mkdir /sys/fs/cgroup"+d.Group+"/leaf && echo PID >/sys/fs/cgroup"+d.Group+"/leaf/cgroup.procs")
	case d.Group == "":
		return fine("groups stand below /" + parent + ", no systemd claims them")
	}
	return fine(fmt.Sprintf("groups stand below /%s, which systemd has delegated with %s", parent, d.Group))
}

// checkControllers: without one, units with its limits do not start.
func checkControllers(_ context.Context, e *exam) finding {
	d, err := e.p.delegation()
	if err != nil {
		return skip(err.Error())
	}
	io := "io"
	if !e.unified() {
		io = "blkio"
	}
	missing := func(names ...string) []string {
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(d.Controllers, n) })
	}
	needed, welcome := missing("memory", "cpu", "pids"), missing("cpuset", io)
	text := "there are " + strings.Join(d.Controllers, ", ")
	if len(d.Controllers) == 0 {
		text = "there are none"
	}
	switch {
	case len(needed) > 0:
		return failed(fmt.Sprintf("no %s for our groups (%s): units with limits of %s do not start", strings.Join(needed, ", "), text, "these"), e.missingController(needed))
	case len(welcome) > 0:
		return warning(fmt.Sprintf("no %s for our groups (%s): units with such limits do not start", strings.Join(welcome, ", "), text), e.missingController(welcome))
	}
	return fine(text)
}

// missingController: Debian's kernels for small boards switch memory off by
// cgroup_disable, others lack what the kernel was built without, or what is not handed down.
func (e *exam) missingController(names []string) string {
	cmdline := strings.Fields(e.h.read("/proc/cmdline"))
	root := strings.Fields(e.h.read("/sys/fs/cgroup/cgroup.controllers"))
	for _, n := range names {
		if slices.ContainsFunc(cmdline, func(w string) bool { return strings.HasPrefix(w, "cgroup_disable=") && strings.Contains(w, n) }) {
			return "take cgroup_disable=" + n + " off the kernel's command line and reboot (on a Raspberry Pi: cgroup_enable=" + n + " in /boot/firmware/cmdline.txt)"
		}
		if e.unified() && slices.Contains(root, n) {
			return fmt.Sprintf("the host has %s, a group above ours does not hand it down: echo +%s >/sys/fs/cgroup/cgroup.subtree_control; under systemd: Delegate=yes for the service", n, n)
		}
	}
	if !e.unified() {
		return e.h.bootWith("systemd.unified_cgroup_hierarchy=1")
	}
	return e.h.bootWith("cgroup_enable=" + names[0])
}

// checkSwap: a limit of memory that does not count swap only moves the trouble.
func checkSwap(_ context.Context, e *exam) finding {
	swap := strings.Count(e.h.read("/proc/swaps"), "\n") > 0
	if !swap {
		return fine("there is no swap")
	}
	if err := e.p.limits(cgroup.Limits{Memory: 64 << 20, Swap: 64 << 20}); err != nil && strings.Contains(err.Error(), "swap") {
		return warning("swap is not counted: a container may fill all of it", e.h.bootWith("swapaccount=1"))
	}
	return fine("swap is counted and limited with memory")
}

// checkPressure: Red Hat's kernels have PSI, switched off.
func checkPressure(_ context.Context, e *exam) finding {
	if e.h.read("/proc/pressure/memory") == "" {
		return warning("the kernel does not measure pressure (PSI): status and exit records lack it", e.h.bootWith("psi=1"))
	}
	return fine("pressure is measured")
}

// first is a list's beginning.
func first(list []string, n int) []string {
	if len(list) > n {
		return append(slices.Clone(list[:n]), "...")
	}
	return list
}
