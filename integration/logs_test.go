package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// lastNumbers checks that the lines are "n 41", "n 42", ... without a gap, and
// returns the first and the last number.
func lastNumbers(t *testing.T, log string) (first, last int) {
	t.Helper()
	for line := range strings.Lines(log) {
		n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "n ")))
		switch {
		case err != nil:
			t.Fatalf("not a line of the counter: %q", line)
		case first == 0:
			first = n
		case n > last+1:
			t.Fatalf("lines %d to %d are missing", last+1, n-1)
		case n <= last:
			t.Fatalf("line %d comes after line %d", n, last)
		}
		last = n
	}
	return first, last
}

// TestLogRotation: a container that writes much more than its logs may take
// keeps within them, and its last lines are there, without a gap.
func TestLogRotation(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	const lines = 60000 // of some 40 bytes in the file
	h.Apply("loud", fmt.Sprintf(`
image: %s
network: none
restart: no
logging: {max_size: 256KiB, max_file: 2}
command: [sh, -c, "i=0; while [ $i -lt %d ]; do i=$((i+1)); echo n $i; done"]
`, r.Ref("busybox"), lines))
	h.OK("wait", "loud")
	files, err := filepath.Glob(h.Root + "/logs/loud/loud.1/*")
	if err != nil || len(files) < 2 {
		t.Fatalf("log files %q, %v", files, err)
	}
	var size int64
	segments := 0
	for _, f := range files {
		info, err := os.Lstat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().IsRegular() {
			segments++
			size += info.Size()
		}
	}
	if segments > 2 || size > 2*256<<10+4096 {
		t.Errorf("%d segments of %d bytes, the unit allows 2 of 256 KiB", segments, size)
	}
	first, last := lastNumbers(t, h.OK("logs", "loud"))
	if first == 1 || last != lines {
		t.Errorf("the log goes from %d to %d: nothing was rotated, or the end is missing", first, last)
	}
	if out := h.OK("logs", "--tail", "3", "loud"); out != fmt.Sprintf("n %d\nn %d\nn %d\n", lines-2, lines-1, lines) {
		t.Errorf("the last three lines are %q", out)
	}
}

// TestFollowThroughAll: who follows a log gets every line once: over rotations,
// and over kill -9 of the keeper, where lines may repeat but not vanish.
func TestFollowThroughAll(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	// Segments enough for what a pipe holds, which a keeper that comes late writes at one go: nobody could follow that.
	h.Apply("count", fmt.Sprintf(`
image: %s
network: none
restart: no
logging: {max_size: 64KiB, max_file: 8}
entrypoint: [sh, -c, "i=0; while :; do i=$((i+1)); echo n $i; [ $((i%%20)) -ne 0 ] || usleep 10000; done"]
`, r.Ref("busybox")))
	h.Running("count", 1)
	follow := exec.Command(h.Bin+"/wherry", "ctl", "--socket", h.Socket, "logs", "-f", "count")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer follow.Wait()
	defer follow.Process.Kill()

	var killed bool
	last, repeats := 0, 0
	lines := bufio.NewScanner(out)
	for last < 12000 && lines.Scan() {
		n, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "n "))
		switch {
		case err != nil:
			t.Fatalf("not a line of the counter: %q", lines.Text())
		case last > 0 && n > last+1:
			t.Fatalf("lines %d to %d are missing", last+1, n-1)
		case n <= last:
			repeats++
		}
		last = max(last, n)
		if last >= 5000 && !killed {
			killed = true
			h.KillKeeper()
		}
	}
	if last < 12000 {
		t.Fatalf("logs -f ended after %d lines: %v", last, lines.Err())
	}
	t.Logf("%d lines came twice around the kill", repeats)
}

// TestFloodOnFullDisk: a container that writes as fast as it can while the disk
// is full is not stopped by it, and neither are its neighbours or the daemon.
func TestFloodOnFullDisk(t *testing.T) {
	r := registry(t)
	h := harness.NewHost(t)
	h.SmallDisk(16 << 20)
	h.Start()
	h.OK("pull", "-q", r.Ref("busybox"))
	h.Apply("flood", fmt.Sprintf(`
image: %s
network: none
restart: no
logging: {max_size: 1MiB, max_file: 2}
command: [sh, -c, "yes 0123456789012345678901234567890123456789; echo over"]
`, r.Ref("busybox")))
	flood := h.Running("flood", 1)
	fill(t, h.Root+"/filler")
	yes := 0
	harness.Eventually(t, 30*time.Second, "the shell has started yes", func() bool {
		main := h.MainPid(flood)
		if all := children(main); main != flood.Pid && len(all) == 1 {
			yes = all[0]
		}
		return yes != 0
	})
	before := written(t, yes)
	harness.Eventually(t, 30*time.Second, "the flood goes on", func() bool { return written(t, yes) > before+(8<<20) })
	if got := h.Running("flood", 1); got.Pid != flood.Pid {
		t.Errorf("pid %d, was %d", got.Pid, flood.Pid)
	}
	h.OK("status")
	h.OK("exec", "flood", "true")
	if err := os.Remove(h.Root + "/filler"); err != nil {
		t.Fatal(err)
	}
	h.OK("stop", "flood")
	if l, _ := filepath.Glob(h.Root + "/logs/flood/flood.1/*"); len(l) == 0 {
		t.Error("no log is left")
	}
	if out := h.OK("run", "--rm", "--net", "none", r.Ref("busybox"), "echo", "neighbour"); out != "neighbour\n" {
		t.Errorf("a neighbour afterwards: %q", out)
	}
}
