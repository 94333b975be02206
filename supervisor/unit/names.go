package unit

import (
	"slices"
	"strconv"
	"strings"
)

// signals of Linux by number; those that hold on all architectures we build for.
var signals = [...]string{1: "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
	"ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
	"IO", "PWR", "SYS"}

// Real-time signals as C libraries number them.
const firstRT, lastRT = 34, 64

// ParseSignal reads "SIGTERM", "term" or "15" and gives "SIGTERM".
func ParseSignal(text string) (string, error) {
	if n, err := strconv.Atoi(text); err == nil {
		switch {
		case 0 < n && n < len(signals):
			return "SIG" + signals[n], nil
		case firstRT <= n && n <= lastRT:
			return realtime(n), nil
		}
		return "", faultf("they go from 1 to 64", "there is no signal %d", n)
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for _, rt := range []struct {
		name string
		base int
	}{{"RTMIN", firstRT}, {"RTMAX", lastRT}} {
		if rest, ok := strings.CutPrefix(name, rt.name); ok {
			n, err := strconv.Atoi("0" + strings.TrimLeft(rest, "+-"))
			if strings.HasPrefix(rest, "-") {
				n = -n
			}
			if at := rt.base + n; err == nil && firstRT <= at && at <= lastRT {
				return realtime(at), nil
			}
		}
	}
	known := signals[1:]
	if !slices.Contains(known, name) {
		hint := "names are like SIGTERM"
		if near := nearest(name, known); near != "" {
			hint = `did you mean "SIG` + near + `"?`
		}
		return "", faultf(hint, "unknown signal %q", text)
	}
	return "SIG" + name, nil
}

func realtime(n int) string {
	if n == firstRT {
		return "SIGRTMIN"
	}
	return "SIGRTMIN+" + strconv.Itoa(n-firstRT)
}

// capabilities of Linux, up to CAP_CHECKPOINT_RESTORE of 5.9.
var capabilities = []string{"AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
	"DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE",
	"MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP",
	"SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT",
	"SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"}

// ParseCapability reads "NET_ADMIN", "cap_net_admin" or "ALL" and gives
// "NET_ADMIN".
func ParseCapability(text string) (string, error) {
	name := strings.TrimPrefix(strings.ToUpper(text), "CAP_")
	if name != "ALL" && !slices.Contains(capabilities, name) {
		return "", faultf(didYouMean(name, capabilities), "unknown capability %q", text)
	}
	return name, nil
}
