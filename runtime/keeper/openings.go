package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// addOpenings completes a specification with what only this host can tell: numbers of
// devices, and the profiles and labels of its security modules.
func (l *launch) addOpenings(log *slog.Logger) (err error) {
	if err := l.addDevices(); err != nil {
		return stepError(runtime.StepRootfs, err)
	}
	process := l.cfg.Spec.Process
	if process.ApparmorProfile, err = l.k.appArmor.choose(process.ApparmorProfile, log); err != nil {
		return err
	}
	return l.addLabels()
}

// initCalls are what our init needs while its program runs.
var initCalls = []string{"rt_sigtimedwait", "wait4", "kill", "close", "ioctl", "clock_gettime", "exit_group", "prctl", "rt_sigprocmask", "execve"}

// forbidsInit names a call that the filter takes away from our init; empty: none.
func forbidsInit(p *specs.LinuxSeccomp) string {
	if p == nil {
		return ""
	}
	passes := func(a specs.LinuxSeccompAction) bool { return a == specs.ActAllow || a == specs.ActLog }
	for _, call := range initCalls {
		allowed := passes(p.DefaultAction)
		for _, s := range p.Syscalls {
			if !slices.Contains(s.Names, call) {
				continue
			}
			// A rule with arguments lets some calls pass, or takes some away: our default profile has one for ioctl,
			// which takes none of the init's.
			if len(s.Args) == 0 || passes(s.Action) {
				allowed = passes(s.Action)
			}
		}
		if !allowed {
			return call
		}
	}
	return ""
}

// placeFilter decides who is under the seccomp filter from when on. A profile of the
// user's may forbid what an init needs: then the filter is the program's alone, and the init has a narrow one of its own.
func (l *launch) placeFilter() error {
	call := forbidsInit(l.cfg.Spec.Linux.Seccomp)
	switch {
	case call == "" || !l.cfg.Init:
	case l.ownFilter:
		l.job.late = true
	default: // libcontainer loads it, before our init runs: without no_new_privs that takes a capability
		return fmt.Errorf("seccomp: the profile forbids %s, which the container's init needs: allow it, or write no_new_privileges: true or init: false", call)
	}
	return nil
}

// addGroups looks up further groups of the container's user in the image.
func (l *launch) addGroups(root *os.File) error {
	if len(l.cfg.GroupAdd) == 0 {
		return nil
	}
	groups, err := accountFile(root, "/etc/group")
	if err != nil {
		return err
	}
	for _, name := range l.cfg.GroupAdd {
		gids, err := user.GetAdditionalGroups([]string{name}, strings.NewReader(groups))
		if err != nil || len(gids) == 0 {
			return fmt.Errorf("group_add %q: not in the image's /etc/group", name)
		}
		for _, gid := range gids {
			if !slices.Contains(l.id.groups, gid) {
				l.id.groups = append(l.id.groups, gid)
			}
		}
	}
	return nil
}

// giveBundle makes what hooks look for: a folder with the specification, which
// libcontainer names to them. Otherwise there is none.
func (l *launch) giveBundle(conf *configs.Config) error {
	if l.cfg.Spec.Hooks == nil {
		return nil
	}
	b, err := json.Marshal(l.cfg.Spec)
	if err != nil {
		return err
	}
	dir := l.k.layout.Container(l.cfg.Run, l.cfg.Container)
	if err := errors.Join(os.MkdirAll(dir, 0o711), bundle.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)); err != nil {
		return err
	}
	conf.Labels = slices.DeleteFunc(conf.Labels, func(label string) bool { return strings.HasPrefix(label, "bundle=") })
	conf.Labels = append(conf.Labels, "bundle="+dir)
	return nil
}
