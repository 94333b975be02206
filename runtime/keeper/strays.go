package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// strayName is how libcontainer's own processes are called until they become
// something else: "runc:[1:CHILD]", "runc:[2:INIT]".
const strayName = "runc:["

// reapStrays reaps what a start or an exec that failed has left of
// libcontainer's own processes, and goes on until none is left.
//
// A process enters a container in three stages, all of them our children. If
// the first is killed before it could say who the others are, as the end of the
// container does, or its root, then libcontainer does not know them. In runc they would pass
// to PID 1 of the host; with us they stay zombies, and as the kernel ends
// a PID namespace only once all in it are reaped, the container would never end.
func (k *Keeper) reapStrays() {
	if !k.reaping.CompareAndSwap(false, true) {
		return
	}
	go func() {
		var dead map[stray]bool
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
			found := strays()
			if len(found) == 0 {
				k.reaping.Store(false)
				if len(strays()) > 0 { // of one who came in between and relied on us
					k.reapStrays()
				}
				return
			}
			for s, zombie := range found {
				// Those of a start under way are reaped by libcontainer, at once.
				if zombie && dead[s] {
					unix.Wait4(s.pid, nil, unix.WNOHANG|unix.WALL, nil)
				}
			}
			dead = found
			time.Sleep(pause)
		}
	}()
}

// stray is a process that cannot be mistaken for another.
type stray struct {
	pid       int
	startTime uint64
}

// strays are our children of such a name, and whether they have ended.
func strays() map[stray]bool { return children(strayName) }

// reapKeeps waits for the processes of scopes that this process has begun when it was another binary.
func (k *Keeper) reapKeeps() {
	for s := range children(scopeName) {
		if p, err := openProcess(s.pid); err == nil {
			go reapHolder(p)
		}
	}
}

// children are those of ours whose names begin so, and whether they have ended.
func children(name string) map[stray]bool {
	found := map[stray]bool{}
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread has ended
		for _, f := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(f)
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || !strings.Contains(string(stat), "("+name) {
				continue
			}
			if ps, err := parseStat(stat); err == nil {
				found[stray{pid, ps.startTime}] = ps.state == 'Z'
			}
		}
	}
	return found
}
