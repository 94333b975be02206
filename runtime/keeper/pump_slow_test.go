package keeper

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// From linux/fs.h, _IOWR('X', 119, int) and _IOWR('X', 120, int).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozenDisk is a file system whose writes can be made to wait.
func frozenDisk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	base := t.TempDir()
	img := filepath.Join(base, "img")
	dir = filepath.Join(base, "mnt")
	for _, args := range [][]string{
		{"truncate", "-s", "64M", img}, {"mkfs.ext4", "-q", "-F", img}, {"mkdir", dir}, {"mount", "-o", "loop", img, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s", args, err, out)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	control := func(request uintptr) func() {
		return func() {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, 0); errno != 0 {
				t.Errorf("freeze or thaw: %v", errno)
			}
		}
	}
	freeze, thaw = control(fiFreeze), control(fiThaw)
	t.Cleanup(func() {
		f.Close()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, freeze, thaw
}

// pumped is a pump with one writer at its stdout.
func pumped(t *testing.T, path string, c runtime.LogConfig) (p *pump, out *os.File) {
	t.Helper()
	l := bundle.Layout{RunDir: t.TempDir()}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := openLog(runtime.LogConfig{Path: path, MaxSize: 64 << 20, MaxFile: 1}, "web.1-aaaa", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := makePipes(l, "id"); err != nil {
		t.Fatal(err)
	}
	if p, err = startPump(l, "id", log, c); err != nil {
		t.Fatal(err)
	}
	if out, err = openPipe(l.Pipe("id", "stdout"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return p, out
}

// TestFrozenDisk: a disk that stands still holds up neither the output of a container that logs
// elsewhere, nor one that would rather lose lines; and who waits for it loses none.
func TestFrozenDisk(t *testing.T) {
	dir, freeze, thaw := frozenDisk(t)
	elsewhere := filepath.Join(t.TempDir(), "c.log")
	waits, waitsOut := pumped(t, filepath.Join(dir, "a.log"), runtime.LogConfig{})
	drops, dropsOut := pumped(t, filepath.Join(dir, "b.log"), runtime.LogConfig{NonBlocking: true, Buffer: 128 << 10})
	other, otherOut := pumped(t, elsewhere, runtime.LogConfig{})
	line := strings.Repeat("x", 99) + "\n"
	for _, out := range []*os.File{waitsOut, dropsOut, otherOut} {
		out.WriteString(line)
	}
	for _, path := range []string{filepath.Join(dir, "a.log"), filepath.Join(dir, "b.log"), elsewhere} {
		awaitSize(t, path, 1)
	}
	freeze()
	all := bytes.Repeat([]byte(line), 80_000) // much more than pipe and queue hold
	began := make(chan struct{})
	waited := make(chan struct{})
	go func() {
		close(began)
		waitsOut.Write(all)
		close(waited)
	}()
	<-began
	flows := make(chan struct{})
	go func() {
		defer close(flows)
		dropsOut.Write(all)
		otherOut.Write(all)
		other.stop()
	}()
	select {
	case <-flows:
	case <-time.After(3 * time.Minute):
		t.Error("a disk that stands still holds up containers that need not wait for it")
	}
	select {
	case <-waited:
		t.Error("the frozen disk took 8 MB")
	default:
	}
	thaw()
	<-waited
	waits.stop()
	drops.stop()
	for _, c := range []struct {
		path string
		all  bool
	}{{filepath.Join(dir, "a.log"), true}, {filepath.Join(dir, "b.log"), false}, {elsewhere, true}} {
		raw, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Count(raw, []byte("x")) / 99; c.all && got != 80_001 || !c.all && got > 40_000 {
			t.Errorf("%s has %d lines", c.path, got)
		}
		if marked := bytes.Contains(raw, []byte(" dropped ")); marked == c.all {
			t.Errorf("%s: marked as incomplete: %v", c.path, marked)
		}
	}
}

func awaitSize(t *testing.T, path string, size int64) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if st, err := os.Stat(path); err == nil && st.Size() >= size {
			return
		}
	}
	t.Fatalf("%s does not grow", path)
}
