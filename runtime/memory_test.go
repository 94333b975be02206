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
	time.Sleep(4 * time.Second) // the keeper gives memory back when it has been idle for two
	before, _ := pss(w.rt.KeeperPid())
	const n = 50
	var inits, own int
	var started []runtime.Status
	for range n {
		started = append(started, w.start(w.config("sleep", "1000")))
	}
	time.Sleep(4 * time.Second)
	for _, st := range started {
		p, o := pss(st.Pid)
		inits += p
		own += o
	}
	after, _ := pss(w.rt.KeeperPid())
	each := (inits + after - before) / n
	t.Logf("init %d KiB (%d its own), keeper %d KiB, then %d KiB: %d KiB a container", inits/n, own/n, before, after, each)
	if each > 348 {
		t.Errorf("%d KiB a container, want at most 348", each)
	}
}
