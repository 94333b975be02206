package daemon

import (
	"bufio"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSweepEnded: an orphan is reaped when it is seen for the second time, a child of our own is left to whoever waits for it.
func TestSweepEnded(t *testing.T) {
	// Orphans go to us, as to process 1 of a container.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	c := exec.Command("sh", "-c", "sleep 1000 & echo $!")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, c.Process.Pid) // without reaping it
	if seen := sweepEnded(nil); !seen[c.Process.Pid] || seen[orphan] {
		t.Errorf("at first: %v, not %d", seen, c.Process.Pid)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("our own child: %v", err)
	}
	if err := unix.Kill(orphan, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, orphan)
	seen := sweepEnded(nil)
	if !seen[orphan] || !hasEnded(orphan) {
		t.Errorf("the orphan at first: %v", seen)
	}
	if seen = sweepEnded(seen); len(seen) != 0 {
		t.Errorf("the second time: %v", seen)
	}
	if err := unix.Kill(orphan, 0); err != unix.ESRCH {
		t.Errorf("the orphan is still there: %v", err)
	}
}

// awaitEnd waits until pid has ended, and leaves it.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}
