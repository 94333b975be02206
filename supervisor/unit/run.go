package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// RunFlags are the flags of `ctl run` as they were typed, in Docker's forms.
// Empty means not given.
type RunFlags struct {
	Name        string // empty: the daemon makes one up
	Image       string
	Command     []string
	Entrypoint  string   // one program, not split
	Env         []string // -e NAME=value, or NAME to take it from Getenv
	EnvFiles    []string
	Volumes     []string // -v
	Tmpfs       []string // --tmpfs /target[:size=64m,mode=1777,ro]
	Ports       []string // -p
	Labels      []string // -l NAME=value or NAME
	Restart     string   // empty: no
	Network     string
	WorkingDir  string
	User        string
	Memory      string // "512m"; a bare number is bytes, as in Docker
	CPUs        string
	PidsLimit   string     // 0 or -1: no limit
	Limits      LimitFlags // the other ones
	OOM         string     // group (the default), process
	StopSignal  string
	StopTimeout string // seconds, or a duration
	Pull        string
	NoInit      bool
	TTY         bool // a terminal
	Stdin       bool // input, which ends with that of whoever starts it
	ReadOnly    bool
	CapAdd      []string
	CapDrop     []string
	Devices     []string // --device /dev/x[:/dev/y[:rwm]], or vendor/class=name
	Privileged  bool
	SecurityOpt []string // no-new-privileges, seccomp=FILE, apparmor=NAME, label=...
	Sysctls     []string // net.core.somaxconn=1024
	Ulimits     []string // nofile=1024:2048
	GroupAdd    []string
	ShmSize     string // "64m"; a bare number is bytes
	OOMScoreAdj string
	Hostname    string
	PID         string   // host
	IPC         string   // host
	UserNS      string   // auto, required or host
	LogOpts     []string // max-size=10m, max-file=3
	StorageOpts []string // size=10g; a bare number is bytes

	Dir      string                            // absolute; relative host paths start here
	Getenv   func(name string) (string, bool)  // nil: -e NAME is an error
	ReadFile func(name string) ([]byte, error) // nil: --env-file is an error
	Defaults Defaults
}

// FromRun gives the unit that flags describe. It differs from a file's unit in
// what is default: it is not restarted, and what neither flags nor Defaults say
// of its logging stays zero, for the daemon to fill in. All that is wrong is reported at once,
// each error beginning with its flag.
func FromRun(f RunFlags) (Unit, error) {
	r := &runner{unit: newUnit(f.Defaults), flags: f}
	r.app = &r.unit.Containers[0]
	r.app.Logging = f.Defaults.Logging
	r.unit.Name = f.Name
	if f.Name != "" {
		r.check("--name", CheckName(f.Name))
	}
	r.check("image", checkImage(f.Image))
	r.app.Image = f.Image
	if len(f.Command) > 0 {
		r.app.Command = slices.Clone(f.Command)
	}
	if f.Entrypoint != "" {
		r.app.Entrypoint = []string{f.Entrypoint}
	}
	restart := f.Restart
	if restart == "" {
		restart = "no"
	}
	take(r, "--restart", restart, &r.unit.Restart, func(text string) (RestartPolicy, error) {
		return parseRestart(text, r.unit.Restart)
	})
	take(r, "--network", f.Network, &r.unit.Network, parseNetwork)
	take(r, "--workdir", f.WorkingDir, &r.app.WorkingDir, parseTarget)
	take(r, "--user", f.User, &r.app.User, parseUser)
	take(r, "--stop-signal", f.StopSignal, &r.app.StopSignal, ParseSignal)
	take(r, "--stop-timeout", f.StopTimeout, &r.app.StopGracePeriod, parseSeconds)
	take(r, "--pull", f.Pull, &r.app.PullPolicy, parsePull)
	r.app.Init = !f.NoInit
	r.app.TTY, r.app.StdinOpen = f.TTY, f.Stdin
	r.app.ReadOnly = f.ReadOnly
	r.limits()
	r.lists()
	r.openings()
	r.environment()
	return r.unit, errors.Join(r.errs...)
}

// runner collects a unit made of flags.
type runner struct {
	flags RunFlags
	unit  Unit
	app   *Container
	errs  []error
}

func (r *runner) check(flag string, err error) {
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", flag, err))
	}
}

// take reads a flag that was given.
func take[T any](r *runner, flag, text string, to *T, parse func(string) (T, error)) {
	if text == "" {
		return
	}
	got, err := parse(text)
	r.check(flag, err)
	if err == nil {
		*to = got
	}
}

func (r *runner) limits() {
	f := r.flags
	r.limitFlags()
	for _, option := range f.LogOpts {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "max-size":
			take(r, "--log-opt max-size", value, &r.app.Logging.MaxSize, parseLogSize)
		case "max-file":
			take(r, "--log-opt max-file", value, &r.app.Logging.MaxFile, parseLogFiles)
		case "mode":
			take(r, "--log-opt mode", value, &r.app.Logging.Mode, parseLogMode)
		case "max-buffer-size":
			take(r, "--log-opt max-buffer-size", value, &r.app.Logging.MaxBufferSize, parseLogBuffer)
		default:
			r.check("--log-opt", faultf("they are max-size, max-file, mode and max-buffer-size", "unknown option %q", name))
		}
	}
	for _, option := range f.StorageOpts {
		name, value, _ := strings.Cut(option, "=")
		if name != "size" || value == "" {
			r.check("--storage-opt", faultf("write size=10GiB", "unknown option %q", option))
			continue
		}
		take(r, "--storage-opt size", value, &r.app.StorageOpt.Size, func(text string) (int64, error) {
			if strings.Trim(text, "0123456789") == "" {
				text += "B"
			}
			return parseQuota(text)
		})
	}
}

func (r *runner) lists() {
	f := r.flags
	for _, text := range f.Ports {
		ports, err := ParsePort(text)
		r.check("--publish", err)
		for _, p := range ports {
			if err := clash(r.unit.Ports, p); err != nil {
				r.check("--publish", err)
				break
			}
			r.unit.Ports = append(r.unit.Ports, p)
		}
	}
	if len(f.Ports) > 0 && r.unit.Network != "bridge" {
		r.check("--publish", faultf("leave one of them out", "there is nothing to publish with network %s", r.unit.Network))
	}
	for _, text := range f.Volumes {
		v, err := parseVolume(text, f.Dir)
		if err == nil {
			err = addVolume(r.app, v)
		}
		r.check("--volume", err)
	}
	for _, text := range f.Tmpfs {
		v, err := parseTmpfs(text)
		if err == nil {
			err = addVolume(r.app, v)
		}
		r.check("--tmpfs", err)
	}
	r.app.CapAdd = r.capabilities("--cap-add", f.CapAdd)
	r.app.CapDrop = r.capabilities("--cap-drop", f.CapDrop)
	for _, text := range f.Labels {
		name, value, _ := strings.Cut(text, "=")
		if err := checkVariable(name); err != nil {
			r.check("--label", err)
			continue
		}
		if r.unit.Labels == nil {
			r.unit.Labels = map[string]string{}
		}
		r.unit.Labels[name] = value
	}
}

func (r *runner) capabilities(flag string, texts []string) []string {
	var out []string
	for _, text := range texts {
		name, err := ParseCapability(text)
		r.check(flag, err)
		if err == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// environment reads the files first, then the flags over them.
func (r *runner) environment() {
	env := map[string]string{}
	for _, name := range r.flags.EnvFiles {
		r.envFile(name, env)
	}
	for _, text := range r.flags.Env {
		name, value, found := strings.Cut(text, "=")
		err := checkVariable(name)
		switch {
		case err != nil:
		case strings.ContainsRune(value, 0):
			err = faultf("", "%s holds a zero byte", name)
		case found:
			env[name] = value
		case r.flags.Getenv == nil:
			err = faultf("write "+name+"=value", "%q has no value", name)
		default:
			// As in Docker, one that is not set stays so.
			if value, ok := r.flags.Getenv(name); ok {
				env[name] = value
			}
		}
		r.check("--env", err)
	}
	if len(env) > 0 {
		r.app.Environment = env
	}
}

func (r *runner) envFile(name string, env map[string]string) {
	if r.flags.ReadFile == nil {
		r.check("--env-file", faultf("", "%s: files cannot be read here", name))
		return
	}
	data, err := r.flags.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = faultf("", "%s: there is no such file", name)
	}
	if err != nil {
		r.check("--env-file", err)
		return
	}
	got, errs, _ := parseEnvFile(name, data)
	for _, e := range errs {
		r.check("--env-file", e)
	}
	for k, v := range got {
		env[k] = v
	}
}

// parseTmpfs reads Docker's TARGET[:OPTIONS].
func parseTmpfs(text string) (Volume, error) {
	target, options, _ := strings.Cut(text, ":")
	v := Volume{Type: tmpfs}
	var err error
	if v.Target, err = parseMountPoint(target); err != nil || options == "" {
		return v, err
	}
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "size":
			v.Size, err = parseTmpfsSize(value)
		case "mode":
			v.Mode, err = parseMode(value)
		case "ro":
			v.ReadOnly = true
		case "rw", "noexec", "nosuid", "nodev": // what a tmpfs has anyway
		default:
			err = faultf("they are size, mode and ro", "unknown option %q", name)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

// parseSeconds reads a duration, or a number of seconds.
func parseSeconds(text string) (Duration, error) {
	if strings.Trim(text, "0123456789") == "" {
		text += "s"
	}
	return ParseDuration(text)
}
