package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKeepsAreReaped: the process of a scope ends with its run, which may be long after the binary that began it
// was replaced by another one in the same process. Nobody else can reap it.
func TestKeepsAreReaped(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	named := filepath.Join(t.TempDir(), scopeName)
	if err := os.Symlink(self, named); err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	var pids []int
	for _, lives := range []bool{false, true} {
		attr := &os.ProcAttr{Env: []string{}}
		if lives {
			attr.Env = []string{"WHERRY_TEST_STAY=1"}
			attr.Files = []*os.File{read}
		}
		child, err := os.StartProcess(named, []string{scopeName, "-test.run=^TestStay$"}, attr)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, child.Pid)
		child.Release()
	}
	read.Close()
	for len(children(scopeName)) < 2 { // it has its name once it is executed
		time.Sleep(time.Millisecond)
	}
	(&Keeper{}).reapKeeps()
	write.Close()
	for _, pid := range pids {
		for !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestStay is the process that stays until its input ends.
func TestStay(t *testing.T) {
	if os.Getenv("WHERRY_TEST_STAY") != "" {
		os.Stdin.Read(make([]byte, 1))
	}
}
