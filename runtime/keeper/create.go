package keeper

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	_ "github.com/opencontainers/cgroups/devices" // device rules of a container's group

	"github.com/wherry-run/wherry/runtime"
)

// checkSpec refuses what we could only fail at half way.
func checkSpec(spec *specs.Spec) error {
	switch {
	case spec == nil || spec.Process == nil || spec.Linux == nil:
		return errors.New("spec: process and linux must be set")
	case len(spec.Process.Args) == 0:
		return errors.New("spec: no command")
	case !path.IsAbs(spec.Process.Cwd):
		return fmt.Errorf("spec: working directory %q is not absolute", spec.Process.Cwd)
	case !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return path.Clean(m.Destination) == "/proc" }):
		return errors.New("spec: no mount for /proc") // the init is run by its descriptor there
	}
	return nil
}

// complete fills in what only the keeper knows, and takes from the spec what
// it does itself.
func (k *Keeper) complete(cfg *runtime.Config, group string, netns *os.File) {
	spec := cfg.Spec
	readonly := spec.Root != nil && spec.Root.Readonly
	spec.Root = &specs.Root{Path: k.layout.Rootfs(cfg.Run, cfg.Container), Readonly: readonly}
	spec.Linux.CgroupsPath = group
	if spec.Linux.Resources == nil {
		spec.Linux.Resources = &specs.LinuxResources{}
	}
	groupOOM(spec.Linux.Resources, cfg.OOM, memoryAccounted(k.parentOf(path.Dir(group)).Path))
	if netns == nil {
		return
	}
	// Not /proc/self: the path is opened by the process that becomes the container.
	nsPath := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd())
	for i, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			spec.Linux.Namespaces[i].Path = nsPath
			return
		}
	}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: nsPath})
}

// libcontainerConfig translates the spec. A filter that our init loads is kept
// away from libcontainer, which would compile it at every start.
func libcontainerConfig(spec *specs.Spec, ownFilter bool) (*configs.Config, error) {
	s := *spec
	linux := *spec.Linux
	s.Linux = &linux
	if ownFilter {
		linux.Seccomp = nil
	}
	conf, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: "wherry", Spec: &s})
	if err != nil {
		return nil, err
	}
	conf.AppArmorProfile = spec.Process.ApparmorProfile // specconv leaves it to the process; so it holds for what is exec'd too
	closeTunnels(conf, spec)
	return conf, nil
}

// libcontainerProcess is a process with everything that the container's
// configuration does not carry.
func libcontainerProcess(d processDefaults) *libcontainer.Process {
	nnp := d.NoNewPrivileges
	p := &libcontainer.Process{
		Env: d.Env, Cwd: d.Cwd,
		UID: d.UID, GID: d.GID, AdditionalGroups: d.Groups,
		NoNewPrivileges: &nnp,
	}
	for _, r := range d.Rlimits {
		p.Rlimits = append(p.Rlimits, configs.Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	return p
}

// boilerplate is how libcontainer introduces its errors.
var boilerplate = []string{
	"unable to create new parent process: ", "unable to start container process: ", "error during container init: ",
	"unable to start init: ", "runc init error(s): ",
}

// translate makes one of our errors of libcontainer's, with the step that
// failed: its errors have no types, only words.
func translate(err error) error {
	text := err.Error()
	for _, b := range boilerplate {
		text = strings.TrimPrefix(text, b)
	}
	if dir, ok := strings.CutPrefix(text, "chdir to cwd ("); ok { // it names a file that our users have never seen
		text = "working directory " + strings.Replace(dir, ") set in config.json failed", "", 1)
		return &runtime.StepError{Step: runtime.StepProcess, Err: &wrongRequest{errors.New(text)}}
	}
	step := runtime.StepProcess
	switch {
	case strings.Contains(text, "error mounting") || strings.Contains(text, "mount request") || strings.Contains(text, "rootfs"):
		step = runtime.StepRootfs
	case strings.Contains(text, "cgroup"):
		step = runtime.StepCgroup
	}
	return &runtime.StepError{Step: step, Err: errors.New(text)}
}
