package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// smallDisk mounts a tmpfs at dir, of so many bytes and inodes.
func (w *world) smallDisk(dir string, size, inodes int) {
	w.tb.Helper()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		w.tb.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d,mode=711", size, inodes)); err != nil {
		w.tb.Fatalf("tmpfs: %v", err)
	}
	w.tb.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) // if the test has not come so far
}

// fill takes up the disk of dir but for so many pages, or so many inodes.
func (w *world) fill(dir string, leave int, inodes bool) (free func()) {
	w.tb.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		w.tb.Fatal(err)
	}
	ballast := filepath.Join(dir, ".ballast")
	if !inodes {
		n := max(0, int(st.Bfree)-leave) * int(st.Bsize)
		if err := os.WriteFile(ballast, make([]byte, n), 0o600); err != nil {
			w.tb.Fatal(err)
		}
		return func() { os.Remove(ballast) }
	}
	if err := os.Mkdir(ballast, 0o700); err != nil {
		w.tb.Fatal(err)
	}
	for i := range int(st.Ffree) - 1 - leave {
		if err := os.WriteFile(filepath.Join(ballast, fmt.Sprint(i)), nil, 0o600); err != nil {
			break
		}
	}
	return func() { os.RemoveAll(ballast) }
}

// TestFullDisk: wherever in a start the disk of the run folder or of the root
// gets full, the error says so, nothing is left, and what runs does not notice.
func TestFullDisk(t *testing.T) {
	const pages, inodes = 200, 200
	for _, tt := range []struct {
		name   string
		folder string
		inodes bool
	}{
		{"run folder, bytes", "run", false}, {"run folder, inodes", "run", true},
		{"root", "root", true}, // a start makes folders there, and no files
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			pid := w.rt.KeeperPid()
			if err := w.rt.StopKeeper(w.ctx()); err != nil {
				t.Fatal(err)
			}
			w.gone(pid)
			// The images' folders stay where there is room: their disk is not what this is about.
			folder := map[string]string{"run": w.run, "root": w.root}[tt.folder]
			size := pages * os.Getpagesize()
			if tt.folder == "root" {
				size += 16 << 20 // the init's binary
			}
			overlays := filepath.Join(filepath.Dir(w.root), "overlays")
			v := *w
			v.root = overlays
			w.smallDisk(folder, size, inodes)
			w.rt = w.open(builtKeeper)
			conf := func(args ...string) runtime.Config {
				c := v.config(args...)
				c.Log.Path = filepath.Join(w.root, "logs", c.Run, "app.log")
				return c
			}
			neighbour := conf("sh", "-c", "while true; do sleep 0.02; done")
			st := w.start(neighbour)
			failed, started := 0, 0
			for leave := 0; leave < 30 && started < 3; leave++ {
				free := w.fill(folder, leave, tt.inodes)
				c := conf("sh", "-c", "exit 3")
				_, err := w.rt.Start(w.ctx(), c)
				switch {
				case err == nil:
					started++
					exit, err := w.rt.Wait(w.ctx(), c.ID())
					if err != nil || exit.Code != 3 || exit.Unknown {
						t.Errorf("%d left: exit %+v, %v", leave, exit, err)
					}
					if err := w.rt.Remove(w.ctx(), c.ID()); err != nil {
						t.Errorf("%d left: remove: %v", leave, err)
					}
				default:
					failed++
					var se *runtime.StepError
					if !errors.As(err, &se) || !strings.Contains(err.Error(), "no space left on device") {
						t.Errorf("%d left: %v, want a step and what is wrong", leave, err)
					}
				}
				if left := w.traces(c); len(left) > 0 {
					t.Errorf("%d left: left behind: %v (%v)", leave, left, err)
				}
				now, err := w.rt.Get(w.ctx(), neighbour.ID())
				if err != nil || now.Pid != st.Pid || now.State != runtime.Running {
					t.Fatalf("%d left: the neighbour: %+v, %v", leave, now, err)
				}
				if exit, err := w.rt.Exec(w.ctx(), neighbour.ID(), runtime.Process{Args: []string{"true"}}); err != nil || exit.Code != 0 {
					t.Errorf("%d left: exec: %+v, %v", leave, exit, err)
				}
				free()
			}
			if failed == 0 || started == 0 {
				t.Errorf("%d starts failed, %d did not", failed, started)
			}
			// A container that ends on a full disk has its true code.
			free := w.fill(folder, 0, tt.inodes)
			w.rt.Signal(w.ctx(), neighbour.ID(), "KILL")
			if exit, err := w.rt.Wait(w.ctx(), neighbour.ID()); err != nil || exit.Signal != "SIGKILL" {
				t.Errorf("exit = %+v, %v", exit, err)
			}
			free()
			if err := w.rt.Remove(w.ctx(), neighbour.ID()); err != nil {
				t.Error(err)
			}
			pid = w.rt.KeeperPid()
			if err := w.rt.StopKeeper(w.ctx()); err != nil {
				t.Error(err)
			}
			w.gone(pid)
			w.await("nobody to be in there", func() bool { return unix.Unmount(folder, 0) == nil })
			w.rt = w.open(builtKeeper) // for the harness
		})
	}
}

// traces are what is left of c in folders and groups.
func (w *world) traces(c runtime.Config) []string {
	var left []string
	for _, pattern := range []string{
		w.run + "/containers/*" + c.ID() + "*", w.run + "/libcontainer/*" + c.ID() + "*", w.root + "/runs/" + c.Run,
		"/sys/fs/cgroup/*" + w.group + "/" + c.Run, "/sys/fs/cgroup" + w.group + "/" + c.Run,
	} {
		found, _ := filepath.Glob(pattern)
		left = append(left, found...)
	}
	return left
}
