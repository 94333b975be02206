package daemon

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reapEvery is how long a process that has ended may stay unreaped before it counts as nobody's: our own children are
// waited for as soon as they end.
const reapEvery = 5 * time.Second

// reapOrphans reaps what nobody else does, where we are process 1 as in a container without an init: all orphans of
// the container are ours, such as what a keeper that was killed has left.
func reapOrphans(ctx context.Context) {
	if os.Getpid() != 1 {
		return
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	again := time.After(reapEvery) // what ended before we listened
	var seen map[int]bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			if again != nil {
				continue
			}
			seen = nil
		case <-again:
			again = nil
		}
		if seen = sweepEnded(seen); len(seen) > 0 {
			again = time.After(reapEvery)
		}
	}
}

// sweepEnded reaps the children that have ended and were in seen already, and gives those that are new.
func sweepEnded(seen map[int]bool) map[int]bool {
	left := map[int]bool{}
	for _, pid := range endedChildren() {
		if !seen[pid] {
			left[pid] = true
			continue
		}
		var status unix.WaitStatus
		_, _ = unix.Wait4(pid, &status, unix.WNOHANG, nil) // somebody may just have done it
	}
	return left
}

// endedChildren are our children that have ended and are not reaped.
func endedChildren() []int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	var ended []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && hasEnded(pid) {
				ended = append(ended, pid)
			}
		}
	}
	return ended
}

// hasEnded reads the state in proc_pid_stat(5), behind a name in brackets that may have any characters.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return strings.HasPrefix(rest, "Z")
}
