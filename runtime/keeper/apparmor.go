package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// defaultProfile is the AppArmor profile of containers that name none.
const defaultProfile = "wherry-default"

// unconfined is no profile.
const unconfined = "unconfined"

// appArmor is the host's, if it has one.
type appArmor struct {
	enabled  string // files of the kernel
	profiles string
	parser   []string // where the program that loads profiles may be
	base     string   // rules that every profile begins with

	mu     sync.Mutex
	loaded bool
	failed error // of the one try
}

func newAppArmor() *appArmor {
	return &appArmor{
		enabled:  "/sys/module/apparmor/parameters/enabled",
		profiles: "/sys/kernel/security/apparmor/profiles",
		parser:   []string{"/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/usr/bin/apparmor_parser"},
		base:     "/etc/apparmor.d/abstractions/base",
	}
}

// choose gives the profile to set for the one that is wanted; none where the host has no AppArmor.
func (a *appArmor) choose(want string, log *slog.Logger) (string, error) {
	b, err := os.ReadFile(a.enabled)
	if err != nil || !bytes.HasPrefix(b, []byte("Y")) {
		if want != "" && want != unconfined && want != defaultProfile {
			return "", fmt.Errorf("apparmor %s: this host has no AppArmor", want)
		}
		return "", nil
	}
	switch want {
	case unconfined:
		return unconfined, nil
	case "", defaultProfile:
		if err := a.ensure(); err != nil {
			if want == defaultProfile {
				return "", fmt.Errorf("apparmor %s: %w", want, err)
			}
			log.Warn("the container runs without an AppArmor profile", "profile", defaultProfile, "err", err)
			return "", nil
		}
		return defaultProfile, nil
	}
	known, err := a.has(want)
	if err != nil {
		return "", fmt.Errorf("apparmor %s: %w", want, err)
	}
	if !known {
		return "", fmt.Errorf("apparmor %s: no such profile is loaded", want)
	}
	return want, nil
}

// has reads the kernel's list: a line is "NAME (MODE)".
func (a *appArmor) has(profile string) (bool, error) {
	b, err := os.ReadFile(a.profiles)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ("); ok && name == profile {
			return true, nil
		}
	}
	return false, nil
}

// ensure loads our profile, once: it may be of an older keeper, so not only if it is missing.
func (a *appArmor) ensure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.loaded || a.failed != nil {
		return a.failed
	}
	a.failed = a.load()
	a.loaded = a.failed == nil
	return a.failed
}

func (a *appArmor) load() error {
	for _, parser := range a.parser {
		if _, err := os.Stat(parser); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, parser, "-K", "-r")
		cmd.Stdin = strings.NewReader(profileText(defaultProfile, a.base))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", parser, err, bytes.TrimSpace(out))
		}
		return nil
	}
	// Somebody else may have loaded it.
	if known, err := a.has(defaultProfile); err == nil && known {
		return nil
	}
	return errors.New("apparmor_parser, which loads profiles, is not installed")
}

// profileText is a profile that allows what containers do and forbids what reaches
// the host: most of what the kernel shows in /proc and /sys, mounts, and tracing of anybody
// outside. It stands behind the masks and capabilities, for the day that one of these fails.
func profileText(name, base string) string {
	var b strings.Builder
	if _, err := os.Stat("/etc/apparmor.d/tunables/global"); err == nil {
		b.WriteString("#include <tunables/global>\n")
	} else {
		b.WriteString("@{PROC}=/proc/\n")
	}
	fmt.Fprintf(&b, "profile %s flags=(attach_disconnected,mediate_deleted) {\n", name)
	if _, err := os.Stat(base); err == nil {
		b.WriteString("  #include <abstractions/base>\n")
	}
	for _, rule := range append([]string{
		"network", "capability", "file", "umount",
		"signal (receive) peer=unconfined",
		fmt.Sprintf("signal (send, receive) peer=%s", name),
		fmt.Sprintf("ptrace (trace, read, tracedby, readby) peer=%s", name),
		"ptrace (tracedby, readby) peer=unconfined",
	}, profileDenials...) {
		b.WriteString("  " + rule + ",\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// profileDenials are paths of the kernel that would change the host, or tell of it.
var profileDenials = []string{
	"deny mount",
	"deny @{PROC}/* w", // files of /proc itself; those of processes lie deeper
	"deny @{PROC}/[^0-9s]*/** w",
	"deny @{PROC}/s[^y]*/** w",
	"deny @{PROC}/sys/[^knf]** w",
	"deny @{PROC}/sys/fs/{[^m],m[^q]}** w", // fs.mqueue is the container's
	"deny @{PROC}/sys/kernel/{?,??,[^sm]**,s[^he]**,s[he][^m]**} w", // as are kernel.shm* and kernel.sem
	"deny @{PROC}/sys/kernel/{m[^s]**,ms[^g]**} w",                  // and kernel.msg*
	"deny @{PROC}/{sysrq-trigger,kcore,mem,kmem} rwklx",
	"deny /sys/{[^f],f[^s],fs/[^c],fs/c[^g]}*/** wklx",
	"deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx",
}
