package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	cgsystemd "github.com/opencontainers/cgroups/systemd"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// scope is the group of a run that systemd has made for us. It is delegated:
// systemd sets nothing below it, so that no daemon-reload and no set-property
// ever takes a limit or a device rule of a container away (libcontainer's own
// driver has each container in a scope, whose limits are systemd's to
// rewrite). A process sleeps in it, see scope.c.
type scope struct {
	name        string // of the unit
	slice       string // the unit that it stands in
	group       string // path
	description string
}

// scopeKeep is the group of the sleeping process: one that shares out
// controllers can have none of its own. No container's name begins with a dot.
const scopeKeep = ".keep"

// scopeName is SCOPE of scope.c.
const scopeName = "wherry-scope"

// shutdownService stops units in order when the host goes down: a scope has to
// be there until it is through, or systemd would end all containers at once.
const shutdownService = "wherry-shutdown.service"

// newScope is the scope of a run.
func (k *Keeper) newScope(run string) (scope, error) {
	slice := bundle.SliceOf(k.cgroupParent)
	dir, err := cgsystemd.ExpandSlice(slice)
	if err != nil {
		return scope{}, fmt.Errorf("slice %s: %w", slice, err)
	}
	name := "wherry-" + bundle.UnitWord(run) + ".scope"
	return scope{name: name, slice: slice, group: path.Join(dir, name)}, nil
}

// isScope tells whether the group of a run is a scope.
func isScope(group string) bool {
	return strings.HasSuffix(group, ".scope") && strings.HasSuffix(path.Dir(group), ".slice")
}

func (s scope) properties(pid int) []systemd.Property {
	return []systemd.Property{
		systemd.PropDescription(s.description),
		systemd.PropSlice(s.slice),
		property("PIDs", []uint32{uint32(pid)}),
		property("Delegate", true), // with which a kill for lack of memory ends no scope: systemd.scope(5), OOMPolicy=
		property("TasksMax", uint64(1<<64-1)),
		property("Before", []string{shutdownService}),
		property("CollectMode", "inactive-or-failed"),
	}
}

// scopes is what a keeper needs for them.
type scopes struct {
	manager serviceManager
	locks   [64]sync.Mutex // by group: who makes a scope and who ends it do not meet

	sharing sync.Mutex // one at a time adds up what groups have

	mu     sync.Mutex
	fenced map[string]uint64 // groups above that libcontainer leaves alone, with their inodes
}

func newScopes() *scopes {
	return &scopes{manager: serviceManager{socket: systemdSocket, deadline: systemdDeadline}, fenced: map[string]uint64{}}
}

func (s *scopes) lock(group string) (unlock func()) {
	sum := 0
	for _, c := range []byte(group) {
		sum = 31*sum + int(c)
	}
	m := &s.locks[uint(sum)%uint(len(s.locks))]
	m.Lock()
	return m.Unlock
}

// openRun sees to it that the group of a run is there, if that takes more than making a folder.
func (k *Keeper) openRun(ctx context.Context, group, run, description string) error {
	if !isScope(group) {
		return nil
	}
	defer k.scopes.lock(group)()
	err := k.openScope(ctx, group, run, description)
	if err != nil {
		return fmt.Errorf("%s: %w", path.Base(group), err)
	}
	return nil
}

// closeRun ends the scope of a run in which nothing lives any more. It comes back
// if the run gets a further container.
func (k *Keeper) closeRun(run, group string) error {
	if !isScope(group) {
		return nil
	}
	defer k.scopes.lock(group)()
	k.mu.Lock()
	s := k.shared[run]
	needed := s != nil && s.st.PID || k.occupied(run)
	k.mu.Unlock()
	if needed {
		return nil
	}
	return endScope(group)
}

// runGroup is the group of a run: where its containers stand already, else where
// driver has it. So runs stay where they are if the driver changes.
func (k *Keeper) runGroup(run, driver string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.shared[run]; s != nil && s.st.Group != "" {
		return s.st.Group, nil
	}
	for _, c := range k.containers {
		if st := c.snapshot(); st.Run == run {
			return path.Dir(st.Cgroup), nil
		}
	}
	if driver != runtime.DriverSystemd {
		return path.Join(k.cgroupParent, run), nil
	}
	s, err := k.newScope(run)
	return s.group, err
}

// parentOf is where controllers for the containers of a run's group come from.
func (k *Keeper) parentOf(group string) cgroup.Parent {
	if isScope(group) {
		return scopeParent(group)
	}
	return k.parent()
}

func (k *Keeper) openScope(ctx context.Context, group, run, description string) error {
	s, err := k.newScope(run)
	if err != nil {
		return err
	}
	if s.group != group {
		return fmt.Errorf("group %s is not where its run would be, %s", group, s.group) // cgroup_parent was changed meanwhile
	}
	s.description = description
	if kept, err := scopeKept(group); err != nil || kept {
		return err
	}
	if err := runtime.CheckCgroupDriver(runtime.DriverSystemd); err != nil {
		return err
	}
	keep, release, err := k.startKeep()
	if err != nil {
		return fmt.Errorf("%s: %w", scopeName, err)
	}
	defer release.Close() // without a word before, it ends
	err = k.fillScope(ctx, s, keep.pid)
	if err == nil {
		_, err = release.Write([]byte("g"))
	}
	if err != nil {
		keep.signal(unix.SIGKILL)
		k.abandonScope(group, keep, errors.Is(err, errNoAnswer))
		return err
	}
	go reapHolder(keep)
	return nil
}

// scopeKept tells whether a scope is there with its process.
func scopeKept(group string) (bool, error) {
	pids, err := (cgroup.Group{Path: path.Join(group, scopeKeep)}).Procs()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return len(pids) > 0, err
}

// fillScope has the scope made around the process pid, and made fit for containers.
func (k *Keeper) fillScope(ctx context.Context, s scope, pid int) error {
	if err := k.scopes.manager.startScope(ctx, s, pid); err != nil {
		return err
	}
	now, err := groupOf(pid)
	if err != nil {
		return err
	}
	if now != s.group {
		return fmt.Errorf("systemd has put it at %s, not at %s", now, s.group)
	}
	if err := k.fenceAbove(s.group); err != nil {
		return err
	}
	return scopeParent(s.group).Prepare()
}

// scopeParent is a scope as the parent of containers' groups.
func scopeParent(group string) cgroup.Parent {
	return cgroup.Parent{Path: group, Delegated: group, Subgroup: scopeKeep}
}

// groupOf is a process's group of v2.
func groupOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(group, "\n"), nil
		}
	}
	return "", fmt.Errorf("process %d: no group of cgroup v2", pid)
}

// startKeep starts the process that a scope is made around. What is written to
// release lets it stay.
func (k *Keeper) startKeep() (p *process, release *os.File, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer read.Close()
	child, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", k.exe.Fd()), []string{"wherry-keeper", scopeName},
		&os.ProcAttr{Env: []string{}, Files: []*os.File{read}, Sys: &unix.SysProcAttr{Setsid: true}})
	if err != nil {
		write.Close()
		return nil, nil, err
	}
	defer child.Release()
	if p, err = openProcess(child.Pid); err != nil {
		write.Close()
		child.Kill()
		child.Wait()
		return nil, nil, err
	}
	return p, write, nil
}

// zombiePatience is how long a process id that systemd has been told of, and has
// not answered about, is kept from becoming another process's.
const zombiePatience = time.Hour

// abandonScope undoes what openScope has begun. The process is dead by now.
func (k *Keeper) abandonScope(group string, keep *process, unanswered bool) {
	if unanswered { // the request may still lie in its queue, and names the process by its number
		time.AfterFunc(zombiePatience, func() { reapHolder(keep) })
		return
	}
	go reapHolder(keep)
	endScope(group)
}

// endScope ends all that is left in a scope, which ends the scope: systemd
// removes the unit and the group. Its own group is not ours to remove: the kernel tells
// nobody that a group is empty once it is gone, and the unit would stay for ever.
func endScope(group string) error {
	keep := cgroup.Group{Path: path.Join(group, scopeKeep)}
	if err := emptyGroup(keep); err != nil {
		return err
	}
	return removeGroup(keep)
}
