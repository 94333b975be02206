package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// needs is what wherry uses of kernels that not all hosts have, the newest first.
var needs = []struct {
	major, minor int
	what         string
}{
	{6, 15, "the exit code of a process whose init was killed (PIDFD_GET_INFO)"},
	{6, 12, "layers as single EROFS images"},
	{6, 7, "overlays of more layers than fit into one page of options"},
	{5, 19, "user namespaces (layers with shifted ids)"},
	{5, 14, "bounded writable layers (quotactl_fd), and the kill of a whole group at once (cgroup.kill)"},
	{5, 12, "volumes with shifted ids (mount_setattr)"},
}

// The oldest kernel: paths below images and roots are opened with openat2, and
// descriptors come back by pidfd_getfd, both of Linux 5.6.
const oldestMajor, oldestMinor = 5, 6

func checkKernel(_ context.Context, e *exam) finding {
	var major, minor int
	if n, _ := fmt.Sscanf(e.h.release, "%d.%d", &major, &minor); n != 2 {
		return skip(fmt.Sprintf("the release %q cannot be read", e.h.release))
	}
	older := func(a, b int) bool { return major < a || major == a && minor < b }
	text := "Linux " + e.h.release
	upgrade := e.h.choose("apt update && apt full-upgrade && reboot", "dnf upgrade && reboot")
	if older(oldestMajor, oldestMinor) {
		return failed(fmt.Sprintf("%s is too old: containers need %d.%d", text, oldestMajor, oldestMinor), upgrade)
	}
	var lost []string
	for _, n := range needs {
		if older(n.major, n.minor) {
			lost = append(lost, fmt.Sprintf("%s need%s %d.%d", n.what, plural(n.what), n.major, n.minor))
		}
	}
	switch {
	case older(5, 19):
		return warning(text+": "+strings.Join(lost, "; "), upgrade)
	case len(lost) > 0:
		return fine(text + "; not there: " + strings.Join(lost, "; "))
	}
	return fine(text)
}

func plural(what string) string {
	if strings.HasPrefix(what, "the exit code") {
		return "s"
	}
	return ""
}

// checkSeccomp: every container has a filter unless its unit says otherwise.
func checkSeccomp(_ context.Context, e *exam) finding {
	const file = "/proc/sys/kernel/seccomp/actions_avail" // Linux 4.14
	if e.h.read(file) == "" {
		return failed("this kernel filters no system calls (CONFIG_SECCOMP_FILTER)", "boot a kernel of the distribution; or in each unit: seccomp: unconfined")
	}
	return fine("system calls can be filtered")
}

// checkLSM tells what confines containers besides.
func checkLSM(_ context.Context, e *exam) finding {
	switch e.h.read("/sys/fs/selinux/enforce") {
	case "1":
		if !e.h.containerPolicy() {
			if e.h.uid != 0 {
				return skip("SELinux enforces; only root sees whether its policy knows containers")
			}
			return warning("SELinux enforces, and its policy knows no containers: what they do may be denied", "dnf install container-selinux")
		}
		return fine("SELinux enforces, its policy knows containers")
	case "0":
		return fine("SELinux is permissive")
	}
	if e.h.read("/sys/module/apparmor/parameters/enabled") == "Y" {
		return fine("AppArmor is on")
	}
	return fine("neither SELinux nor AppArmor: containers are confined by namespaces, capabilities and seccomp")
}

// containerPolicy: container-selinux brings a module named container.
func (h *host) containerPolicy() bool {
	found, _ := filepath.Glob(h.path("/var/lib/selinux/*/active/modules/*/container"))
	more, _ := filepath.Glob(h.path("/usr/share/selinux/packages/container*"))
	return len(found)+len(more) > 0
}
