package keeper

import (
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// terminalWith is the master of a terminal to which somebody has written, and gone.
func terminalWith(t *testing.T, text string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Skipf("no TIOCGPTPEER: %v", errno)
	}
	unix.Write(int(peer), []byte(text))
	unix.Close(int(peer))
	master, err := masterFile(fd)
	if err != nil {
		t.Fatal(err)
	}
	return master
}

// TestTerminalAtTheEnd: whoever sees that an ended container has its terminal back stops the copying, which must have begun then.
func TestTerminalAtTheEnd(t *testing.T) {
	for range 200 {
		path := filepath.Join(t.TempDir(), "app.log")
		p, out := pumped(t, path, runtime.LogConfig{})
		out.Close()
		c := newContainer(state{Terminal: true, Status: runtime.Status{State: runtime.Running}})
		c.pump = p
		master := terminalWith(t, "last words\n")
		go new(Keeper).holdTerminal(c, master)
		for held := false; !held; goruntime.Gosched() {
			c.mu.Lock()
			held = c.master != nil
			c.mu.Unlock()
		}
		p.stop()
		c.closeIO()
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), "last words") {
			t.Fatalf("log: %q, %v", b, err)
		}
	}
}
