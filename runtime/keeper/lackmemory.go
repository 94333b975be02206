package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// oomProcess is the word for a container of which the kernel may kill a single process.
const oomProcess = "process"

// groupOOM says in a spec whether the kernel kills the whole container at once
// when memory runs out: half a container is worse than none. v1 cannot do it:
// see killRest. Without the controller there is nothing to say.
func groupOOM(r *specs.LinuxResources, word string, accounted bool) {
	if !cgroupUnified() || !accounted {
		return
	}
	if _, set := r.Unified["memory.oom.group"]; set {
		return
	}
	value := "1"
	if word == oomProcess {
		value = "0"
	}
	if r.Unified == nil {
		r.Unified = map[string]string{}
	}
	r.Unified["memory.oom.group"] = value
}

// memoryAccounted tells whether groups below parent have the controller for memory on v2.
func memoryAccounted(parent string) bool {
	b, err := os.ReadFile(filepath.Join(groupTree, parent, "cgroup.subtree_control"))
	return err == nil && slices.Contains(strings.Fields(string(b)), "memory")
}

// tellsAllOOMs says whether the kernel tells of kills in a container below parent whose own memory is
// not limited: the host has run out of it, or a group above. v1 counts such kills but tells nobody.
func tellsAllOOMs(parent string) bool { return cgroupUnified() && memoryAccounted(parent) }

// killRest ends what is left of a container of v1 that the kernel has killed a
// process of, as v2 does by itself. A container whose memory is not
// limited is not watched there: nothing tells of kills when the host runs out of it.
func (k *Keeper) killRest(c *container) {
	st := c.snapshot()
	if cgroupUnified() || st.OOM == oomProcess || st.State != runtime.Running {
		return
	}
	log := k.logger.With("unit", st.Unit, "container", st.ID)
	log.Info("the kernel killed a process for lack of memory: the rest of the container follows")
	k.noteKill(c)
	ctx, cancel := context.WithTimeout(context.Background(), groupDeadline)
	defer cancel()
	c.proc.signal(unix.SIGKILL)
	if err := (cgroup.Group{Path: st.Cgroup}).Kill(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Error("processes of a container that ran out of memory stay", "err", err)
	}
}

// killMissed does what killRest would have done while no keeper was there.
func (k *Keeper) killMissed(c *container) {
	st := c.snapshot()
	if kills, err := (cgroup.Group{Path: st.Cgroup}).OOMKills(); err == nil && kills > st.OOMKills {
		k.killRest(c)
	}
}
