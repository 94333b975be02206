package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// erofs makes the world's lower folder a layer in an image file.
func (w *world) erofs() (image, mnt string) {
	w.tb.Helper()
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		w.tb.Skip("no mkfs.erofs: apt-get install erofs-utils")
	}
	if b, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(b), "\terofs\n") {
		w.tb.Skip("this kernel has no EROFS")
	}
	dir := w.tb.TempDir()
	image, mnt = filepath.Join(dir, "layer.erofs"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		w.tb.Fatal(err)
	}
	if out, err := exec.Command("mkfs.erofs", image, w.lower).CombinedOutput(); err != nil {
		w.tb.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	return image, mnt
}

// onLayer is a container whose root is made of a layer in an image file.
func (w *world) onLayer(image, mnt string, args ...string) runtime.Config {
	c := w.config(args...)
	root := c.Rootfs[0]
	root.Options[0] = "lowerdir+=" + mnt
	root.Options = append(root.Options, "xino=on")
	c.Rootfs = []specs.Mount{{Destination: mnt, Type: "erofs", Source: image, Options: []string{"ro"}}, root}
	return c
}

const erofsMagic = 0xE0F5E1E2

// keeperLayers are the devices of the layers that the keeper holds mounted.
func (w *world) keeperLayers() []uint64 {
	w.tb.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.rt.KeeperPid()))
	if err != nil {
		w.tb.Fatal(err)
	}
	var devices []uint64
	for _, fd := range fds {
		var fs unix.Statfs_t
		var st unix.Stat_t
		if unix.Statfs(fd, &fs) == nil && fs.Type == erofsMagic && unix.Stat(fd, &st) == nil {
			devices = append(devices, st.Dev)
		}
	}
	return devices
}

// unused says whether nobody has the image open or mounted: the kernel gives a
// lease for writing only then.
func unused(image string) bool {
	f, err := os.Open(image)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	return err == nil
}

func TestLayerInImageFile(t *testing.T) {
	w := newWorld(t)
	image, mnt := w.erofs()
	script := `cat /data/sub/b; echo more >>/data/a; cat /data/a; stat -c %d / /data/a /data/sub/b /bin/busybox`
	var devices []string
	for range 2 {
		c := w.onLayer(image, mnt, "sh", "-c", script)
		w.start(c)
		if exit := w.finish(c); exit.Code != 0 {
			t.Fatalf("%+v: %s", exit, w.text(c))
		}
		lines := strings.Split(strings.TrimSpace(w.text(c)), "\n")
		if len(lines) != 7 || lines[0] != "content of b" || lines[2] != "more" {
			t.Fatalf("%q", lines)
		}
		if devices = slices.Compact(lines[3:]); len(devices) != 1 {
			t.Errorf("files of one root are on devices %v", devices)
		}
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), mnt) || strings.Contains(string(b), image) {
		t.Error("a layer is mounted on the host", err)
	}
	// They stay mounted until the keeper comes to rest.
	w.await("layers let go", func() bool { return len(w.keeperLayers()) == 0 })
}

// TestLayerIsShared: containers share one mount of a layer, until the last one is
// removed; neither a killed keeper nor another binary takes it from those that run.
func TestLayerIsShared(t *testing.T) {
	for name, replace := range map[string]func(*world){
		"none": func(*world) {},
		"kill": killKeeper,
		"upgrade": func(w *world) {
			keeper, err := buildKeeper()
			if err == nil {
				err = w.rt.Upgrade(t.Context(), keeper)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { testLayerIsShared(t, replace, name == "none") })
	}
}

func testLayerIsShared(t *testing.T, replace func(*world), same bool) {
	w := newWorld(t)
	image, mnt := w.erofs()
	first := w.onLayer(image, mnt, "sleep", "1000")
	w.start(first)
	held := w.keeperLayers()
	if len(held) == 0 {
		t.Skip("this kernel's overlays take no detached mounts")
	}
	if unused(image) {
		t.Fatal("nobody uses the layer")
	}
	replace(w)
	second := w.onLayer(image, mnt, "sleep", "1000")
	w.start(second)
	now := w.keeperLayers()
	if len(held) != 1 || len(now) != 1 || (held[0] == now[0]) != same {
		t.Errorf("layers held: %v, then %v", held, now)
	}
	if out, exit, err := w.exec(first.ID(), runtime.Process{Args: []string{"cat", "/data/sub/b"}}); err != nil || exit.Code != 0 || out != "content of b\n" {
		t.Errorf("%q %+v %v", out, exit, err)
	}
	for _, c := range []runtime.Config{first, second} {
		if err := w.rt.Kill(t.Context(), c.ID()); err != nil {
			t.Fatal(err)
		}
		w.finish(c)
	}
	w.await("layers let go", func() bool { return len(w.keeperLayers()) == 0 })
	w.await("layer unmounted", func() bool { return unused(image) })
}

func TestLayerIsDamagedOrMissing(t *testing.T) {
	w := newWorld(t)
	image, mnt := w.erofs()
	for name, spoil := range map[string]func(string) error{
		"missing": os.Remove,
		"zeros":   func(p string) error { return os.WriteFile(p, make([]byte, 8192), 0o600) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.on(t)
			bad := filepath.Join(t.TempDir(), "layer.erofs")
			b, err := os.ReadFile(image)
			if err == nil {
				err = os.WriteFile(bad, b, 0o600)
			}
			if err == nil {
				err = spoil(bad)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.rt.Start(t.Context(), w.onLayer(bad, mnt, "true"))
			var se *runtime.StepError
			if !errors.As(err, &se) || se.Step != runtime.StepRootfs || !strings.Contains(err.Error(), bad) {
				t.Errorf("error = %v", err)
			}
			t.Log(err)
			w.checkContainersLeft()
		})
	}
}

func BenchmarkTrueLayer(b *testing.B) {
	w := newWorld(b)
	image, mnt := w.erofs()
	for name, config := range map[string]func() runtime.Config{
		"folder": func() runtime.Config { return w.config("true") },
		"erofs":  func() runtime.Config { return w.onLayer(image, mnt, "true") },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c := config()
				w.start(c)
				w.finish(c)
			}
		})
	}
}
