package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// privately runs f on a thread with private mounts, as a start does.
func privately(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		err := privateMounts()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// testLayer is the image of a layer with one file, and its mount point.
func testLayer(t *testing.T, text string) (image, mnt string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		t.Skip("no mkfs.erofs: apt-get install erofs-utils")
	}
	dir := t.TempDir()
	image, mnt = filepath.Join(dir, "layer.erofs"), filepath.Join(dir, "mnt")
	files := filepath.Join(dir, "files")
	for _, d := range []string{mnt, files} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(files, text), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.erofs", image, files).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	return image, mnt
}

func erofsOrSkip(t *testing.T) {
	t.Helper()
	if b, err := os.ReadFile("/proc/filesystems"); os.Geteuid() != 0 || err != nil || !strings.Contains(string(b), "\terofs\n") {
		t.Skip("needs root and a kernel with EROFS")
	}
}

func TestLayersAreHeldOnce(t *testing.T) {
	erofsOrSkip(t)
	image, _ := testLayer(t, "a")
	for _, detached := range []bool{true, false} {
		ls := newLayers()
		if detached && !ls.detached() {
			t.Log("no detached mounts here")
			continue
		}
		ls.detached = func() bool { return detached }
		a, err := ls.hold("a", image)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := ls.hold("b", image); err != nil || b != a {
			t.Error("a second mount", err)
		}
		ls.release("a")
		ls.release("a")
		if c, err := ls.hold("c", image); err != nil || c != a {
			t.Error("a mount of its own while another container uses it", err)
		}
		ls.release("b")
		ls.release("c")
		if !detached && len(ls.held) != 0 {
			t.Error("a loop device is kept:", ls.held)
		}
		if detached && a.loop == nil { // the next start of the same image mounts nothing
			if d, err := ls.hold("d", image); err != nil || d != a {
				t.Error("a mount of its own right after another container's end", err)
			}
			ls.dropIdle()
			if len(ls.held) != 1 {
				t.Error("unmounted under a container")
			}
			ls.release("d")
		}
		ls.dropIdle()
		if len(ls.held) != 0 || len(ls.users) != 0 {
			t.Error("kept:", ls.held, ls.users)
		}
		for _, f := range []*os.File{a.mount, a.loop} {
			if f != nil && f.Close() == nil {
				t.Error("not closed:", f.Name())
			}
		}
	}
}

// TestRootfsWays mounts one root in every way that some kernel needs.
func TestRootfsWays(t *testing.T) {
	erofsOrSkip(t)
	imageA, mntA := testLayer(t, "a")
	imageB, mntB := testLayer(t, "b")
	folder := t.TempDir()
	for _, detached := range []bool{true, false} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("detached %v, old overlay %v", detached, old), func(t *testing.T) {
				dir, ls := t.TempDir(), newLayers()
				if detached && !ls.detached() {
					t.Skip("this kernel's overlays take no detached mounts")
				}
				ls.detached = func() bool { return detached }
				privately(t, func() error {
					r := rootfs{dir: dir, container: "x", layers: ls, lower: map[string]*layer{}}
					mounts := []specs.Mount{
						{Destination: mntA, Type: "erofs", Source: imageA}, {Destination: mntB, Type: "erofs", Source: imageB},
						{Destination: "/", Type: "overlay", Options: []string{"lowerdir+=" + mntA, "lowerdir+=" + folder, "lowerdir+=" + mntB, "ro"}},
					}
					if !old {
						if err := r.mount(mounts); err != nil {
							return err
						}
					} else if err := r.mountOldWay(mounts); err != nil {
						return err
					}
					for _, name := range []string{"a", "b"} {
						if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != name {
							t.Errorf("%s: %q %v", name, b, err)
						}
					}
					return nil
				})
				ls.release("x")
				ls.dropIdle()
			})
		}
	}
}

// mountOldWay is mount as it goes where fsconfig knows no lowerdir+.
func (r *rootfs) mountOldWay(mounts []specs.Mount) error {
	for _, m := range mounts[:2] {
		if err := r.mountLower(m); err != nil {
			return err
		}
	}
	for dir, l := range r.lower {
		if err := l.attach(dir); err != nil {
			return err
		}
	}
	return mountOldOverlay(r.dir, mounts[2])
}

// TestManyLayers lays as many folders over each other as the kernel takes.
func TestManyLayers(t *testing.T) {
	base := t.TempDir()
	var options []string
	for i := range 500 {
		dir := filepath.Join(base, fmt.Sprintf("%064d", i), "diff")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		options = append(options, "lowerdir+="+dir)
	}
	upper, work := filepath.Join(base, "upper"), filepath.Join(base, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := specs.Mount{Destination: "/", Type: "overlay", Options: append(options, "upperdir="+upper, "workdir="+work)}
	for name, mount := range map[string]func(string) error{
		"one by one": func(dir string) error { return (&rootfs{}).mountNewOverlay(dir, m) },
		"in a page":  func(dir string) error { return mountOldOverlay(dir, m) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			privately(t, func() error {
				if err := mount(dir); err != nil {
					return err
				}
				names, err := os.ReadDir(dir)
				if len(names) != 500 {
					t.Errorf("%d names in the root", len(names))
				}
				return err
			})
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Error("left behind:", left, err)
			}
		})
	}
}

func TestLoopGoesWithItsUsers(t *testing.T) {
	erofsOrSkip(t)
	image, mnt := testLayer(t, "a")
	loop, err := openLoop(image)
	if err != nil {
		t.Skip("no loop devices:", err)
	}
	file := filepath.Join("/sys/block", filepath.Base(loop.Name()), "loop/backing_file")
	l := &layer{file: image, loop: loop}
	privately(t, func() error {
		if err := l.attach(mnt); err != nil {
			return err
		}
		loop.Close() // as if the keeper died
		if b, err := os.ReadFile(filepath.Join(mnt, "a")); err != nil || string(b) != "a" {
			t.Errorf("%q %v", b, err)
		}
		return unix.Unmount(mnt, 0)
	})
	// Whoever else of the host just looks at the device lets it stay for as long.
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), image) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the loop device is left")
		}
	}
}
