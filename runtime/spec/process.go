package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is the PATH of an image that has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ErrNoCommand says that neither image nor unit names a program.
var ErrNoCommand = errors.New("command: neither the image nor the unit names one")

func buildProcess(img Image, c Container, user string) (*specs.Process, error) {
	args, err := command(img, c)
	if err != nil {
		return nil, err
	}
	env, err := environment(img, c)
	if err != nil {
		return nil, err
	}
	dir, err := workingDir(img, c)
	if err != nil {
		return nil, err
	}
	if c.Privileged {
		c.CapAdd = append(slices.Clone(c.CapAdd), allCaps)
	}
	caps, err := buildCaps(c.CapAdd, c.CapDrop, user)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(c.Ulimits)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:        c.Terminal,
		Args:            args,
		Env:             env,
		Cwd:             dir,
		Capabilities:    caps,
		NoNewPrivileges: !c.NewPrivileges,
		Rlimits:         limits,
		ApparmorProfile: c.AppArmor,
	}
	if c.OOMScoreAdj != 0 {
		p.OOMScoreAdj = &c.OOMScoreAdj
	}
	if c.Privileged && c.AppArmor == "" {
		p.ApparmorProfile = Unconfined
	}
	return p, nil
}

// command follows Docker: an entrypoint of the unit drops the image's command,
// and an empty one, [] or [""], clears the image's entrypoint.
func command(img Image, c Container) ([]string, error) {
	entrypoint, cmd := img.Entrypoint, img.Cmd
	if c.Entrypoint != nil {
		entrypoint, cmd = c.Entrypoint, nil
		if len(entrypoint) == 1 && entrypoint[0] == "" {
			entrypoint = nil
		}
	}
	if c.Command != nil {
		cmd = c.Command
	}
	args := slices.Concat(entrypoint, cmd)
	if len(args) == 0 {
		return nil, ErrNoCommand
	}
	if args[0] == "" {
		return nil, errors.New("command: its first word is empty")
	}
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("command: %q contains a zero byte", a)
		}
	}
	return args, nil
}

// environment is Docker's own variables, then the image's, then the unit's;
// a later one takes the place of an earlier one of the same name.
func environment(img Image, c Container) ([]string, error) {
	var env []string
	at := map[string]int{}
	set := func(entry string) bool {
		key, _, ok := strings.Cut(entry, "=")
		if !ok || key == "" || strings.ContainsRune(entry, 0) {
			return false
		}
		if i, ok := at[key]; ok {
			env[i] = entry
		} else {
			at[key] = len(env)
			env = append(env, entry)
		}
		return true
	}
	set("PATH=" + defaultPath)
	if c.Hostname != "" {
		set("HOSTNAME=" + c.Hostname)
	}
	if c.Terminal {
		set("TERM=xterm")
	}
	for _, e := range img.Env {
		set(e) // what no shell could read is nobody's to repair here
	}
	for _, e := range c.Env {
		if !set(e) {
			key, _, _ := strings.Cut(e, "=") // the value may be a secret
			return nil, fmt.Errorf("environment: %q is not KEY=VALUE", key)
		}
	}
	return env, nil
}

// workingDir need not exist: libcontainer makes it.
func workingDir(img Image, c Container) (string, error) {
	dir := path.Join("/", img.WorkingDir) // images with a relative one exist
	if c.WorkingDir != "" {
		if !path.IsAbs(c.WorkingDir) {
			return "", fmt.Errorf("working directory %q: not an absolute path", c.WorkingDir)
		}
		dir = path.Clean(c.WorkingDir)
	}
	if strings.ContainsRune(dir, 0) {
		return "", fmt.Errorf("working directory %q: contains a zero byte", dir)
	}
	return dir, nil
}
