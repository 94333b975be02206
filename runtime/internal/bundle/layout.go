package bundle

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Layout knows where things are below the two folders of a runtime.
type Layout struct {
	Root   string // durable
	RunDir string // gone after a reboot
}

// New makes both folders absolute and free of symbolic links as far as they
// exist: libcontainer refuses a root file system behind a link.
func New(root, runDir string) (Layout, error) {
	var l Layout
	for _, p := range []struct {
		name string
		from string
		to   *string
	}{{"root", root, &l.Root}, {"run folder", runDir, &l.RunDir}} {
		if p.from == "" {
			return l, fmt.Errorf("%s: not set", p.name)
		}
		abs, err := filepath.Abs(p.from)
		if err != nil {
			return l, fmt.Errorf("%s: %w", p.name, err)
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		*p.to = abs
	}
	return l, nil
}

// Socket is the keeper's.
func (l Layout) Socket() string { return filepath.Join(l.RunDir, "keeper.sock") }

// Lock is held by the one keeper of the run folder.
func (l Layout) Lock() string { return filepath.Join(l.RunDir, "keeper.lock") }

// Log is the keeper's own.
func (l Layout) Log() string { return filepath.Join(l.RunDir, "keeper.log") }

// Containers holds a state file for each container.
func (l Layout) Containers() string { return filepath.Join(l.RunDir, "containers") }

// Libcontainer is libcontainer's state folder.
func (l Layout) Libcontainer() string { return filepath.Join(l.RunDir, "libcontainer") }

// Seccomp holds compiled filters.
func (l Layout) Seccomp() string { return filepath.Join(l.RunDir, "seccomp") }

// Keeper holds what the keeper needs on a disk that may execute.
func (l Layout) Keeper() string { return filepath.Join(l.Root, "keeper") }

// State is the keeper's state of container id.
func (l Layout) State(id string) string { return filepath.Join(l.Containers(), id+".json") }

// Record is where the container's init writes how its child ended.
func (l Layout) Record(id string) string { return filepath.Join(l.Containers(), id+".exit") }

// Exec is what the keeper knows of a process that was exec'd in container id.
func (l Layout) Exec(id, key string) string {
	return filepath.Join(l.Containers(), id+"="+key+".exec")
}

// Pipe is the named pipe of stream ("stdin", "stdout", "stderr").
func (l Layout) Pipe(id, stream string) string {
	return filepath.Join(l.Containers(), id+"."+stream)
}

// Shared holds what is known of the namespaces that the containers of a run share.
func (l Layout) Shared() string { return filepath.Join(l.RunDir, "ns") }

// SharedState is the keeper's state of a run's namespaces.
func (l Layout) SharedState(run string) string { return filepath.Join(l.Shared(), run+".json") }

// Pins is the folder in which a run's namespaces are mounted.
func (l Layout) Pins(run string) string { return filepath.Join(l.Shared(), run) }

// MappedRootfs is where root file systems are mounted for containers in a user
// namespace, each in a mount namespace of its own: root of such a container may
// not pass through folders that are closed to others, as runs/ is.
func (l Layout) MappedRootfs() string { return filepath.Join(l.RunDir, "rootfs") }

// Run is the folder of all containers of a run.
func (l Layout) Run(run string) string { return filepath.Join(l.Root, "runs", run) }

// Container is the folder of one container.
func (l Layout) Container(run, container string) string {
	return filepath.Join(l.Run(run), container)
}

// Rootfs is where a container's root file system is mounted, in a mount
// namespace of its own.
func (l Layout) Rootfs(run, container string) string {
	return filepath.Join(l.Container(run, container), "rootfs")
}

// CheckName says whether s may be part of paths, cgroup names and ids.
func CheckName(s string) error {
	if s == "" || len(s) > 100 || s[0] == '.' || s[0] == '-' {
		return fmt.Errorf("name %q: must begin with a letter or digit and have at most 100 characters", s)
	}
	if i := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.' || r == '+')
	}); i >= 0 {
		return fmt.Errorf("name %q: only letters, digits and _ - . + are allowed", s)
	}
	return nil
}
