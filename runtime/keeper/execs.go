package keeper

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Processes that were exec'd survive the keeper that has begun them, and so
// does the wish to know how they end: their callers come back to the next
// keeper with AwaitExec. It knows them by a record of each, beside the
// container's state, for as long as they run.

// heirExec is the kind of their pidfds, whose owner is execOwnerName.
const heirExec = "exec"

// orphanPatience is how long a process may run that nobody asks for any more.
// Its caller has died with the keeper: it ends as it would have ended with its caller's connection.
const orphanPatience = 20 * time.Second

// execRecord is what the next keeper must know. Its fields are only ever added to.
type execRecord struct {
	Format    int    `json:"format"`
	BootID    string `json:"boot_id"`
	ID        string `json:"id"` // of the container
	Key       string `json:"key"`
	Pid       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
	OOMKills  uint64 `json:"oom_kills"` // the group's count when it began
	Detached  bool   `json:"detached,omitempty"`
}

// orphan is a process that an earlier keeper has exec'd.
type orphan struct {
	execRecord
	proc    *process      // nil: it had ended before we could hold it
	claimed chan struct{} // closed once somebody asks for it
	ended   chan struct{} // closed once exit is known
	exit    runtime.Exit
}

func execOwnerName(id, key string) string { return id + "=" + key }

// execOwner is the container of an owner, also of one made by execOwnerName.
func execOwner(owner string) string {
	id, _, _ := strings.Cut(owner, "=")
	return id
}

// noteExec keeps what the next keeper must know of a process that has begun. Without a
// key nobody would ask for it.
func (k *Keeper) noteExec(st *state, req *wire.ExecRequest, proc *process) {
	key := req.Key
	if key == "" || bundle.CheckName(key) != nil {
		return
	}
	log := k.logger.With("unit", st.Unit, "container", st.ID)
	ps, err := readStat(proc.pid)
	if err != nil {
		return // it has ended, and its caller learns it from us
	}
	r := execRecord{Format: stateFormat, BootID: k.boot, ID: st.ID, Key: key, Pid: proc.pid, StartTime: ps.startTime, Detached: req.Detach}
	r.OOMKills, _ = (cgroup.Group{Path: st.Cgroup}).OOMKills()
	k.execs.add(st.ID, key)
	if err := bundle.WriteJSON(k.layout.Exec(st.ID, key), &r); err != nil {
		k.execs.remove(st.ID, key)
		log.Warn("an exec would not survive the keeper", "err", err)
		return
	}
	if err := k.heirlooms.keep(heirExec, execOwnerName(st.ID, key), proc.file); err != nil {
		log.Warn("an exec may not survive the keeper", "err", err)
	}
}

// forgetExec removes what noteExec has kept.
func (k *Keeper) forgetExec(id, key string) {
	if key == "" || bundle.CheckName(key) != nil {
		return
	}
	k.heirlooms.drop(heirExec, execOwnerName(id, key))
	os.Remove(k.layout.Exec(id, key))
	k.execs.remove(id, key)
}

// forgetExecs is forgetExec for all of a container.
func (k *Keeper) forgetExecs(id string) {
	for _, key := range k.execs.of(id) {
		k.forgetExec(id, key)
	}
}

// execKeys are the records there are, by container: to look for those of one among the
// files of all would cost each removal more the more containers there are.
type execKeys struct {
	mu  sync.Mutex
	all map[string]map[string]bool
}

func (e *execKeys) add(id, key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[string]map[string]bool{}
	}
	if e.all[id] == nil {
		e.all[id] = map[string]bool{}
	}
	e.all[id][key] = true
}

func (e *execKeys) remove(id, key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if delete(e.all[id], key); len(e.all[id]) == 0 {
		delete(e.all, id)
	}
}

// has tells whether there is one of that execOwnerName.
func (e *execKeys) has(owner string) bool {
	id, key, _ := strings.Cut(owner, "=")
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[id][key]
}

func (e *execKeys) of(id string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.all[id]))
}

// adoptExecs takes over the processes that an earlier keeper has exec'd.
func (k *Keeper) adoptExecs() {
	files, _ := filepath.Glob(k.layout.Exec("*", "*"))
	for _, f := range files {
		var r execRecord
		err := bundle.ReadJSON(f, &r)
		if err != nil || r.BootID != k.boot || r.Format < 1 || r.Format > stateFormat {
			os.Remove(f)
			continue
		}
		if _, err := k.find(r.ID); err != nil {
			k.forgetExec(r.ID, r.Key)
			continue
		}
		k.execs.add(r.ID, r.Key)
		o := &orphan{execRecord: r, claimed: make(chan struct{}), ended: make(chan struct{})}
		if o.proc = holdSame(r.Pid, r.StartTime); o.proc != nil {
			k.heirlooms.keep(heirExec, execOwnerName(r.ID, r.Key), o.proc.file)
		}
		k.mu.Lock()
		k.orphans[execOwnerName(r.ID, r.Key)] = o
		k.mu.Unlock()
		go k.followOrphan(o)
		if r.Detached {
			go func() {
				<-o.ended
				k.dropOrphan(o)
			}()
			continue
		}
		go k.expectClaim(o)
	}
}

// followOrphan finds out how o ends.
func (k *Keeper) followOrphan(o *orphan) {
	if o.proc != nil {
		if err := o.proc.wait(context.Background()); err != nil {
			k.logger.Error("cannot wait for an exec", "container", o.ID, "err", err)
		}
	}
	o.exit = runtime.Exit{At: time.Now()}
	ws, ok := k.waitHeld(o.proc, o.StartTime, heirExec, execOwnerName(o.ID, o.Key))
	describe(&o.exit, ws, ok)
	if ok && ws.Signaled() && ws.Signal() == unix.SIGKILL {
		if c, err := k.find(o.ID); err == nil {
			kills, err := (cgroup.Group{Path: c.snapshot().Cgroup}).OOMKills()
			o.exit.OOM = err == nil && kills > o.OOMKills
		}
	}
	close(o.ended)
}

// expectClaim ends o if nobody asks for it any more, and forgets it in the end.
func (k *Keeper) expectClaim(o *orphan) {
	select {
	case <-o.claimed:
		return
	case <-time.After(orphanPatience):
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-o.claimed:
		return
	default:
	}
	k.logger.Warn("ending an exec whose caller has died", "container", o.ID, "pid", o.Pid)
	delete(k.orphans, execOwnerName(o.ID, o.Key))
	go k.endOrphan(o)
}

func (k *Keeper) endOrphan(o *orphan) {
	if o.proc != nil {
		o.proc.signal(unix.SIGKILL)
	}
	<-o.ended
	k.dropOrphan(o)
}

func (k *Keeper) dropOrphan(o *orphan) {
	k.mu.Lock()
	delete(k.orphans, execOwnerName(o.ID, o.Key))
	k.mu.Unlock()
	if o.proc != nil {
		o.proc.close()
	}
	k.forgetExec(o.ID, o.Key)
}

// awaitExec waits for the end of a process that an earlier keeper has exec'd. As
// with exec, it is killed if ctx ends first.
func (k *Keeper) awaitExec(ctx context.Context, req *wire.AwaitExecRequest) (runtime.Exit, error) {
	k.mu.Lock()
	o := k.orphans[execOwnerName(req.ID, req.Key)]
	if o != nil {
		select {
		case <-o.claimed:
			o = nil // one caller each
		default:
			close(o.claimed)
		}
	}
	k.mu.Unlock()
	if o == nil {
		return runtime.Exit{}, fmt.Errorf("container %s: exec %s: %w", req.ID, req.Key, runtime.ErrNotFound)
	}
	select {
	case <-o.ended:
		k.dropOrphan(o)
		return o.exit, nil
	case <-ctx.Done():
		k.endOrphan(o)
		return runtime.Exit{}, ctx.Err()
	}
}

// returnPatience is how long an end stays open of which only an heirloom may
// tell: whoever holds it has to find the new keeper first, on a host that may have as much to do as when it killed the last one.
// reapPatience is how long PID 1 may take to reap the process then.
const (
	returnPatience = 10 * time.Second
	reapPatience   = 3 * time.Second
)

// waitHeld is wait for a process that may have ended while no keeper was there:
// then whoever holds its pidfd for us can still ask the kernel (Linux 6.15).
func (k *Keeper) waitHeld(proc *process, startTime uint64, kind, owner string) (unix.WaitStatus, bool) {
	if ws, ok := wait(startTime, proc); ok {
		return ws, true
	}
	if proc != nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), returnPatience)
	defer cancel()
	f := k.heirlooms.await(ctx, kind, owner)
	if f == nil {
		return 0, false
	}
	held := &process{file: f}
	defer held.close()
	for end := time.Now().Add(reapPatience); time.Now().Before(end); { // known only once PID 1 has reaped it
		if ws, ok := held.info(); ok {
			return ws, true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0, false
}
