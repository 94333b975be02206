package unit

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/wherry-run/wherry/cgroup"
)

// Change is one field that differs between two units.
type Change struct {
	Path string `json:"path"` // "containers.app.image"
	Old  string `json:"old"`  // empty: not there
	New  string `json:"new"`
}

// Equal tells whether two units mean the same.
func Equal(a, b Unit) bool { return bytesOf(a) == bytesOf(b) }

// SameRun tells whether a run of a is as good as one of b: the units differ at
// most in how many there are, what they wait for, when they are restarted, how they are
// labelled, who pulls their images, and in limits, which can be changed while they run.
func SameRun(a, b Unit) bool {
	for _, u := range []*Unit{&a, &b} {
		u.Replicas, u.Restart, u.DependsOn, u.Labels = 0, RestartPolicy{}, nil, nil
		u.Containers = slices.Clone(u.Containers)
		for i := range u.Containers {
			u.Containers[i].RegistryAuth = RegistryAuth{}
			u.Containers[i].Limits = cgroup.Limits{} // which can be changed while it runs
		}
	}
	return Equal(a, b)
}

// Digest names a unit's meaning: "sha256:" and the hash of its JSON form.
func (u Unit) Digest() string {
	sum := sha256.Sum256([]byte(bytesOf(u)))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// bytesOf is the JSON form. Fields stand in the order of the types and maps in
// the order of their keys, so that equal units have equal bytes.
func bytesOf(u Unit) string {
	b, err := json.Marshal(u)
	if err != nil {
		// Only a number that is not one (NaN) gets here, which Parse refuses.
		return fmt.Sprintf("%#v", u)
	}
	return string(b)
}

// Diff lists the fields that differ, in the order of the types.
func Diff(old, new Unit) []Change {
	before, after := fieldsOf(old), fieldsOf(new)
	was, is := map[string]string{}, map[string]string{}
	var paths []string
	for _, f := range before {
		was[f.path] = f.value
		paths = append(paths, f.path)
	}
	for i, f := range after {
		is[f.path] = f.value
		if _, ok := was[f.path]; ok {
			continue
		}
		// What is new comes after what stands before it in the new unit.
		at := 0
		if i > 0 {
			at = slices.Index(paths, after[i-1].path) + 1
		}
		paths = slices.Insert(paths, at, f.path)
	}
	var out []Change
	for _, path := range paths {
		if was[path] != is[path] {
			out = append(out, Change{Path: path, Old: was[path], New: is[path]})
		}
	}
	return out
}

// entry is a field with its value for people; empty means not there.
type entry struct{ path, value string }

// flat collects the fields of a unit.
type flat struct {
	prefix string
	out    []entry
}

func (f *flat) add(path, value string) { f.out = append(f.out, entry{f.prefix + path, value}) }

func (f *flat) number(path string, n int64) {
	if n != 0 {
		f.add(path, strconv.FormatInt(n, 10))
	}
}

func (f *flat) size(path string, n int64) {
	if n != 0 {
		f.add(path, Size(n).String())
	}
}

func (f *flat) float(path string, x float64) {
	if x != 0 {
		f.add(path, strconv.FormatFloat(x, 'g', -1, 64))
	}
}

func (f *flat) list(path string, words []string) {
	if len(words) > 0 {
		f.add(path, joinWords(words))
	}
}

func (f *flat) pairs(path string, values map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		// An empty value is not the same as none.
		f.add(path+"."+name, cmp.Or(values[name], `""`))
	}
}

func fieldsOf(u Unit) []entry {
	f := &flat{}
	f.add("kind", string(u.Kind))
	f.add("name", u.Name)
	f.add("replicas", strconv.Itoa(u.Replicas))
	f.add("network", u.Network)
	ports := make([]string, len(u.Ports))
	for i, p := range u.Ports {
		ports[i] = p.String()
	}
	f.add("ports", strings.Join(ports, ", "))
	for _, d := range u.DependsOn {
		value := d.Condition
		if !d.Required {
			value += ", not required"
		}
		f.add("depends_on."+d.Unit, value)
	}
	f.add("hostname", u.Hostname)
	f.add("userns", u.UserNS)
	f.add("pid", u.PID)
	f.add("ipc", u.IPC)
	f.pairs("sysctls", u.Sysctls)
	f.restart(u.Restart)
	f.pairs("labels", u.Labels)
	for i, c := range u.Containers {
		f.prefix = "containers." + cmp.Or(c.Name, strconv.Itoa(i)) + "."
		f.container(c)
	}
	return f.out
}

func (f *flat) restart(r RestartPolicy) {
	f.prefix = "restart_policy."
	f.add("condition", string(r.Condition))
	f.add("delay", r.Delay.String())
	f.float("multiplier", r.Multiplier)
	f.add("max_delay", r.MaxDelay.String())
	f.float("jitter", r.Jitter)
	f.number("max_attempts", int64(r.MaxAttempts))
	f.add("interval", r.Interval.String())
	f.add("reset_after", r.ResetAfter.String())
	codes := make([]string, len(r.NoRestartExitCodes))
	for i, code := range r.NoRestartExitCodes {
		codes[i] = strconv.Itoa(code)
	}
	f.add("no_restart_exit_codes", strings.Join(codes, ", "))
	f.prefix = ""
}

func (f *flat) container(c Container) {
	f.add("name", c.Name)
	f.add("image", c.Image)
	f.add("pull_policy", c.PullPolicy)
	f.add("registry_auth.username", c.RegistryAuth.Username)
	f.add("registry_auth.password_file", c.RegistryAuth.PasswordFile)
	f.add("registry_auth.token_file", c.RegistryAuth.TokenFile)
	f.add("registry_auth.docker_config", c.RegistryAuth.DockerConfig)
	f.add("registry_auth.helper", c.RegistryAuth.Helper)
	f.list("entrypoint", c.Entrypoint)
	f.list("command", c.Command)
	f.pairs("environment", c.Environment)
	f.add("working_dir", c.WorkingDir)
	f.add("user", c.User)
	f.limits(c.Limits)
	for _, v := range c.Volumes {
		f.add("volumes."+v.Target, v.Type+" "+strings.TrimPrefix(v.String(), "tmpfs "))
	}
	f.add("stop_signal", c.StopSignal)
	f.add("stop_grace_period", c.StopGracePeriod.String())
	f.add("init", strconv.FormatBool(c.Init))
	f.add("read_only", strconv.FormatBool(c.ReadOnly))
	f.list("cap_add", c.CapAdd)
	f.list("cap_drop", c.CapDrop)
	f.size("storage_opt.size", c.StorageOpt.Size)
	f.size("logging.max_size", c.Logging.MaxSize)
	f.number("logging.max_file", int64(c.Logging.MaxFile))
	f.add("logging.mode", c.Logging.Mode)
	f.size("logging.max_buffer_size", c.Logging.MaxBufferSize)
	f.flag("essential", c.Essential)
	for _, d := range c.DependsOn {
		f.add("depends_on."+d.Container, d.Condition)
	}
	f.add("oom", c.OOM)
	f.openings(c)
	f.flag("tty", c.TTY)
	f.flag("stdin_open", c.StdinOpen)
	f.hooks("post_start", c.PostStart)
	f.hooks("pre_stop", c.PreStop)
}

// openings are the keys that change how a container is isolated.
func (f *flat) openings(c Container) {
	for _, d := range c.Devices {
		f.add("devices."+d.Target, d.Source+" "+d.Permissions)
	}
	f.list("cdi", c.CDI)
	f.flag("privileged", c.Privileged)
	f.flag("new_privileges", c.NewPrivileges)
	f.add("seccomp", c.Seccomp)
	if len(c.SeccompProfile) > 0 {
		sum := sha256.Sum256(c.SeccompProfile)
		f.add("seccomp_profile", hex.EncodeToString(sum[:6]))
	}
	f.add("apparmor", c.AppArmor)
	f.add("selinux", c.SELinux)
	for _, u := range c.Ulimits {
		f.add("ulimits."+u.Name, fmt.Sprintf("%d:%d", u.Soft, u.Hard))
	}
	f.list("group_add", c.GroupAdd)
	f.number("oom_score_adj", int64(c.OOMScoreAdj))
	f.size("shm_size", c.ShmSize)
}

func (f *flat) hooks(path string, hooks []Hook) {
	for i, h := range hooks {
		at := path + "." + strconv.Itoa(i) + "."
		f.list(at+"command", h.Command)
		f.add(at+"user", h.User)
		f.add(at+"working_dir", h.WorkingDir)
		f.pairs(at+"environment", h.Environment)
		f.flag(at+"privileged", h.Privileged)
		f.add(at+"timeout", h.Timeout.String())
	}
}

func (f *flat) flag(path string, set bool) {
	if set {
		f.add(path, "true")
	}
}
