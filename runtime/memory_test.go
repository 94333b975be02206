package runtime_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
)

// pss is the memory of a process in KiB, shared pages counted by their share.
func pss(pid int) (total, own int) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.Atoi(fields[1])
		switch fields[0] {
		case "Pss:":
			total = n
		case "Private_Dirty:", "Private_Clean:":
			own += n
		}
	}
	return total, own
}

// idleMemory is the keeper's once it has come to rest: it gives memory back when it has been idle for two seconds, which takes
// its time on a loaded machine.
func (w *world) idleMemory() (least int) {
	least, _ = pss(w.rt.KeeperPid())
	end := time.Now().Add(patience)
	for since := time.Now(); time.Since(since) < 4*time.Second && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now, _ := pss(w.rt.KeeperPid()); now < least {
			least, since = now, time.Now()
		}
	}
	return least
}

// TestIdleMemory: an idle container costs less than podman's 0.34 MiB, its
// init and its share of the keeper taken together.
func TestIdleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 50 containers")
	}
	w := newWorld(t)
	first := w.config("true") // so that what is made once is made
	w.start(first)
	w.finish(first)
	before := w.idleMemory()
	const n = 50
	var started []runtime.Status
	for range n {
		started = append(started, w.start(w.config("sleep", "1000")))
	}
	after := w.idleMemory()
	var inits, own int
	for _, st := range started {
		p, o := pss(st.Pid)
		inits += p
		own += o
	}
	each := (inits + after - before) / n
	t.Logf("init %d KiB (%d its own), keeper %d KiB, then %d KiB: %d KiB a container", inits/n, own/n, before, after, each)
	if each > 348 {
		t.Errorf("%d KiB a container, want at most 348", each)
	}
}
