package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	selinux "github.com/opencontainers/selinux/go-selinux"
	"github.com/sirupsen/logrus"

	"github.com/wherry-run/wherry/cgroup"
)

const ociConfig = "config.json"

// initAnnotation asks for our init as the container's first process: it reaps
// orphans and forwards signals. Without it the program itself is the first process.
const initAnnotation = "run.wherry.init"

// readBundle makes dir the working directory, as libcontainer takes paths of a
// bundle from there, and reads its specification.
func readBundle(dir string) (*specs.Spec, error) {
	if dir != "" {
		if err := os.Chdir(dir); err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
	}
	b, err := os.ReadFile(ociConfig)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	var spec *specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("bundle: %s: %w", ociConfig, err)
	}
	if spec == nil {
		return nil, fmt.Errorf("bundle: %s: it is empty", ociConfig)
	}
	if spec.Root == nil {
		return nil, fmt.Errorf("bundle: %s: root must be set", ociConfig)
	}
	if err := checkOCIProcess(spec.Process); err != nil {
		return nil, fmt.Errorf("bundle: %s: %w", ociConfig, err)
	}
	return spec, nil
}

// checkOCIProcess refuses what we could only fail at half way.
func checkOCIProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errors.New("process must be set")
	case len(p.Args) == 0:
		return errors.New("process: args must not be empty")
	case !path.IsAbs(p.Cwd):
		return fmt.Errorf("process: cwd %q is not absolute", p.Cwd)
	case p.SelinuxLabel != "" && !selinux.GetEnabled():
		return errors.New("process: selinuxLabel is set, but SELinux is not enabled on this host")
	}
	return nil
}

// fitOCI takes from spec what this host cannot give. A value that is not set
// stays so: the specification wants it inherited.
func fitOCI(spec *specs.Spec) error {
	h, err := readHost()
	if err != nil {
		return err
	}
	log := slog.New(logrusHandler{})
	inherits := spec.Process.OOMScoreAdj == nil
	h.fit(spec, log)
	if inherits {
		spec.Process.OOMScoreAdj = nil
	}
	if spec.Linux == nil || spec.Linux.Resources == nil || spec.Linux.Resources.Memory == nil || spec.Linux.Resources.Memory.Swap == nil {
		return nil
	}
	if ok, err := cgroup.SwapAccounting(); err == nil && !ok {
		log.Warn("swap cannot be limited on this host: boot it with swapaccount=1")
		spec.Linux.Resources.Memory.Swap = nil
	}
	return nil
}

// logrusHandler passes our words on to where libcontainer's go.
type logrusHandler struct{ fields logrus.Fields }

func (h logrusHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h logrusHandler) WithGroup(string) slog.Handler            { return h }

func (h logrusHandler) WithAttrs(as []slog.Attr) slog.Handler {
	out := logrusHandler{logrus.Fields{}}
	for k, v := range h.fields {
		out.fields[k] = v
	}
	for _, a := range as {
		out.fields[a.Key] = a.Value.Any()
	}
	return out
}

func (h logrusHandler) Handle(_ context.Context, r slog.Record) error {
	e := logrus.WithFields(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		e = e.WithField(a.Key, a.Value.Any())
		return true
	})
	level := logrus.InfoLevel
	if r.Level >= slog.LevelWarn {
		level = logrus.WarnLevel
	}
	e.Log(level, r.Message)
	return nil
}

// wrappable says whether the first process may begin as our init, which takes a /proc to
// find it in. Labels of a security module change at the first exec: that has to be the program's own. Hooks
// inside the container run before it, and with the filter.
func wrappable(spec *specs.Spec) bool {
	if spec.Hooks != nil && len(spec.Hooks.StartContainer) > 0 {
		return false
	}
	return spec.Process.ApparmorProfile == "" && spec.Process.SelinuxLabel == "" &&
		slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return path.Clean(m.Destination) == "/proc" && m.Type == "proc" })
}

// ociLibcontainerConfig translates the spec; a filter that our init loads is kept from
// libcontainer.
func (o *oci) libcontainerConfig(id string, spec *specs.Spec, own bool, noPivot, noKeyring bool) (*configs.Config, error) {
	s := *spec
	if own {
		linux := *spec.Linux
		linux.Seccomp = nil
		s.Linux = &linux
	}
	rootless, err := o.rootlessGroups()
	if err != nil {
		return nil, err
	}
	return specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName: id, Spec: &s,
		UseSystemdCgroup: o.systemd, NoPivotRoot: noPivot, NoNewKeyring: noKeyring,
		RootlessEUID: os.Geteuid() != 0, RootlessCgroups: rootless,
	})
}

// rootlessGroups says whether it is no error that groups cannot be written.
func (o *oci) rootlessGroups() (bool, error) {
	switch strings.ToLower(o.rootless) {
	case "", "auto":
		return os.Geteuid() != 0 || inUserNamespace(), nil
	case "true", "t", "1":
		return true, nil
	case "false", "f", "0":
		return false, nil
	}
	return false, fmt.Errorf("--rootless %q: true, false or auto", o.rootless)
}

// inUserNamespace: in the host's, every id is mapped to itself.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && !slices.Equal(f, []string{"0", "0", "4294967295"})
}

// helpers is the folder of what is shared by all containers of a root: the
// init's binary and compiled filters. No container can have its name.
func (o *oci) helpers() string { return filepath.Join(o.root, ".wherry") }

// ociExtra is what we keep about a container beside libcontainer's state.
type ociExtra struct {
	Filter filterRef `json:"filter"`          // loaded by our init, unknown to libcontainer
	Group  string    `json:"group,omitempty"` // the container's alone: a create that was killed leaves it
}

func (o *oci) extraPath(id string) string { return filepath.Join(o.root, id, "wherry.json") }
