package procs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func fake(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func stat(name, state string) string {
	return "7 (" + name + ") " + state + " 3 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 12345 1000000 10 18446744073709551615" + strings.Repeat(" 0", 27) + "\n"
}

func TestRead(t *testing.T) {
	dir := fake(t, map[string]string{
		"7/stat":    stat("evil) R (x", "S"),
		"7/status":  "Name:\tx\nUid:\t100000\t100033\t100000\t100000\nNSpid:\t7\t1\n",
		"7/uid_map": "         0     100000      65536\n",
		"7/cmdline": "nginx\x00-g\x00daemon\x1b[2Joff\x00",
		"8/stat":    stat("kworker", "D"),
		"8/wchan":   "io_schedule",
		"9/stat":    stat("stuck", "D"),
		"9/wchan":   "0",
		"9/stack":   "[<0>] nfs_wait+0x10/0x20\n[<0>] x+0x1/0x2\n",
		"10/stat":   "garbage",
	})
	got := Read(dir, []int{7, 8, 9, 10, 11})
	if len(got) != 3 {
		t.Fatalf("got %+v", got)
	}
	want := Process{Pid: 7, Inside: 1, Parent: 3, UID: 33, State: "S", CPU: 2 * time.Second, RSS: 10 * int64(os.Getpagesize()), Threads: 4,
		Command: "nginx -g daemon?[2Joff"}
	if got[0] != want {
		t.Errorf("got %+v", got[0])
	}
	if got[1].Wait != "io_schedule" || got[1].Command != "[kworker]" || got[1].UID != -1 || got[1].Inside != 8 {
		t.Errorf("got %+v", got[1])
	}
	if got[2].Wait != "nfs_wait" {
		t.Errorf("got %+v", got[2])
	}
}

func TestReadOfOurselves(t *testing.T) {
	got := Read("/proc", []int{os.Getpid()})
	if len(got) != 1 || got[0].RSS == 0 || got[0].Threads == 0 || !strings.Contains(got[0].Command, "procs") {
		t.Errorf("got %+v", got)
	}
}

func TestTraffic(t *testing.T) {
	dir := fake(t, map[string]string{"7/net/dev": `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  999       1    0    0    0     0          0         0      999       1    0    0    0     0       0          0
  eth0: 1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0
  eth1:    1      10    0    0    0     0          0         0        2      20    0    0    0     0       0          0
`})
	if in, out, ok := Traffic(dir, 7); in != 1001 || out != 2002 || !ok {
		t.Errorf("got %d, %d, %v", in, out, ok)
	}
	if _, _, ok := Traffic(dir, 8); ok {
		t.Error("a process that is gone has traffic")
	}
}
