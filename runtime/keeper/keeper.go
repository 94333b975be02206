package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// options configure a Keeper.
type options struct {
	root, runDir string
	cgroupParent string // absolute within a hierarchy
	logger       *slog.Logger
	replaced     bool // this binary has taken the place of another one that can come back
}

// Keeper holds all containers of one run folder.
type Keeper struct {
	options
	layout   bundle.Layout
	boot     string
	exe      *os.File // what containers run as their init
	groups   *os.File // holds the namespace that libcontainer's group files are opened in
	filters  *filters
	layers   *layers
	host     host
	scopes   *scopes
	appArmor *appArmor
	ooms     *cgroup.Watcher
	pace     sync.Mutex  // held while the next two change
	idle     *time.Timer // gives memory back after a burst of work
	atWork   bool

	heirlooms *heirlooms // descriptors that others hold for the next keeper

	// launching is held for reading while libcontainer forks: an upgrade must not exec in the middle of it.
	launching sync.RWMutex

	reaping atomic.Bool // reapStrays is at it

	mu         sync.Mutex
	containers map[string]*container
	orphans    map[string]*orphan // by execOwnerName
	execs      execKeys
	subs       map[*subscriber]struct{}
	shared     map[string]*shared       // namespaces by run
	making     map[string]chan struct{} // of runs whose namespaces are being made; closed afterwards
}

// container is one container in the keeper's memory. Everything that must
// outlive the keeper is in st, which is written before it takes effect.
type container struct {
	proc      *process      // nil before the start and after the end
	pump      *pump         // nil after the end
	master    *os.File      // of its terminal; nil: it has none, or it is lost
	input     *os.File      // of a stdin that nobody else holds open
	reporting sync.Mutex    // one report of a kill for lack of memory at a time
	reports   atomic.Int32  // at work or waiting
	leaving   atomic.Bool   // nothing of it is to stay
	swept     atomic.Bool   // its group is gone
	settled   chan struct{} // closed once the container has ended and its output is in the log
	failed    chan struct{} // closed if the start failed: the container never was
	begun     chan struct{} // closed once the start has worked or failed
	callOff   func()        // the start; nil if another keeper has done that

	handling sync.Mutex // held while its limits or its freezing change
	removing sync.Mutex // one removal at a time

	saving sync.Mutex // held while the state changes; taken before mu

	mu      sync.Mutex
	st      state
	retired bool // removed: its state file must not come back
}

func newContainer(st state) *container {
	c := &container{st: st, settled: make(chan struct{}), failed: make(chan struct{}), begun: make(chan struct{})}
	if st.State != runtime.Creating {
		close(c.begun)
	}
	return c
}

// awaitBegun waits until the start has worked or failed.
func (c *container) awaitBegun(ctx context.Context) error {
	select {
	case <-c.begun:
	case <-c.failed:
	case <-ctx.Done():
		return fmt.Errorf("its start is under way: %w", ctx.Err())
	}
	return nil
}

// hasFailed says whether the start failed. Such a container is only there if it
// could not be undone.
func (c *container) hasFailed() bool {
	select {
	case <-c.failed:
		return true
	default:
		return false
	}
}

// snapshot is a copy of the container's state.
func (c *container) snapshot() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.st
	if st.Exit != nil {
		exit := *st.Exit
		st.Exit = &exit
	}
	return st
}

// update changes the state, on disk first. Whoever only looks does not wait for the disk.
func (k *Keeper) update(c *container, change func(*state)) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	next, retired := c.st, c.retired
	c.mu.Unlock()
	change(&next)
	if retired {
		return nil
	}
	err := bundle.WriteJSON(k.layout.State(next.ID), &next)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st = next // also if the disk refused: memory is closer to the truth
	if err != nil {
		return fmt.Errorf("state of %s: %w", next.ID, err)
	}
	return nil
}

// open makes the folders and everything that is shared by all containers.
func open(o options) (*Keeper, error) {
	l, err := bundle.New(o.root, o.runDir)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{l.Root, l.RunDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	if l, err = bundle.New(l.Root, l.RunDir); err != nil { // once more, now that links can be followed
		return nil, err
	}
	for _, dir := range []string{l.Containers(), l.Libcontainer(), l.Seccomp(), l.Shared()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	k := &Keeper{
		options: o, layout: l,
		filters:    newFilters(l.Seccomp()),
		layers:     newLayers(),
		heirlooms:  newHeirlooms(),
		scopes:     newScopes(),
		containers: map[string]*container{},
		orphans:    map[string]*orphan{},
		subs:       map[*subscriber]struct{}{},
		shared:     map[string]*shared{},
		making:     map[string]chan struct{}{},
	}
	// Before all else that opens groups: libcontainer keeps the first handle it gets of their tree.
	if k.groups, err = k.prepareParent(); err != nil {
		// Containers that run need us all the same, and others may do without limits.
		o.logger.Warn("limits may not be to be had", "group", o.cgroupParent, "err", err)
		openGroupTree()
	}
	k.idle = time.AfterFunc(time.Second, k.calm)
	if k.boot, err = bootID(); err != nil {
		return nil, err
	}
	k.appArmor = newAppArmor()
	if k.host, err = readHost(); err != nil {
		return nil, err
	}
	if k.ooms, err = cgroup.NewWatcher(); err != nil {
		return nil, err
	}
	if k.exe, err = openInit(l.Keeper()); err != nil {
		return nil, err
	}
	return k, nil
}

// How much the heap may grow before garbage is collected, in percent. Idle, the keeper's memory counts
// against every container; at work, a heap this small would be collected for each start.
const (
	gcCalm = 50
	gcBusy = 400
)

// busy tells that there is work, and puts off the moment at which memory is given back.
func (k *Keeper) busy() {
	k.pace.Lock()
	defer k.pace.Unlock()
	if !k.atWork {
		k.atWork = true
		debug.SetGCPercent(gcBusy)
	}
	k.idle.Reset(2 * time.Second)
}

// calm gives back what a burst of work took.
func (k *Keeper) calm() {
	k.pace.Lock()
	defer k.pace.Unlock()
	k.atWork = false
	debug.SetGCPercent(gcCalm)
	k.layers.dropIdle()
	dropScratch()
	runtime.TrimMemory()
}

// find returns the container with the given id.
func (k *Keeper) find(id string) (*container, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.containers[id]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
}

// reserve enters a container that is about to be made. From here on its id is
// taken and a crash knows that there may be something to undo.
func (k *Keeper) reserve(st state, callOff func()) (*container, error) {
	c := newContainer(st)
	c.callOff = callOff
	k.mu.Lock()
	_, taken := k.containers[st.ID]
	if !taken {
		k.containers[st.ID] = c
	}
	k.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("container %s: %w", st.ID, runtime.ErrExists)
	}
	if err := bundle.WriteJSON(k.layout.State(st.ID), &c.st); err != nil {
		close(c.failed)
		return nil, errors.Join(fmt.Errorf("state of %s: %w", st.ID, err), k.forget(&st))
	}
	return c, nil
}

// retire keeps late changes from writing the state file again.
func (k *Keeper) retire(id string) *container {
	c, err := k.find(id)
	if err != nil {
		return nil
	}
	c.saving.Lock() // a write under way would come after the removal
	defer c.saving.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	return c
}

// forget drops a container of which nothing is left but its state file, which
// goes last. The run's group and folder go with its last container; the lock keeps a new one of the same run
// from being made in between.
func (k *Keeper) forget(st *state) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	last := true
	for _, c := range k.containers {
		if other := c.snapshot(); other.Run == st.Run && other.ID != st.ID {
			last = false
		}
	}
	if last {
		removeEmptyGroup(path.Dir(st.Cgroup))
		os.Remove(k.layout.Run(st.Run))
	}
	if err := k.reach(atSwept, nil); err != nil {
		return err
	}
	if err := os.Remove(k.layout.State(st.ID)); err != nil && !os.IsNotExist(err) {
		return err
	}
	delete(k.containers, st.ID)
	return nil
}

// inspect opens a keeper's folders for reading alone.
func inspect(o options) (*Keeper, error) {
	l, err := bundle.New(o.root, o.runDir)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	return &Keeper{options: o, layout: l, boot: boot, filters: newFilters(l.Seccomp())}, nil
}

// watchOOM passes the kernel's kills on.
func (k *Keeper) watchOOM() {
	for e := range k.ooms.Events() {
		k.oomKilled(e.Group)
	}
}
