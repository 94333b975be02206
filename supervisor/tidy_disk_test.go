package supervisor

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// smallDisk mounts an ext4 of 256 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	file, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 256<<20), os.Mkdir(mnt, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", file}, {"mount", "-o", "loop", file, mnt}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		// A loop device that mount has made goes with its mount.
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return mnt
}

// noisy is an image of one file that does not compress.
func noisy(seed byte, size int) imagetest.Image {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(imagetest.Entry{Name: "f", Body: string(b)})}}
}

// eventually polls: the disk is real, and so is the time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not come about:", what)
		}
	}
}

func TestFullDisk(t *testing.T) {
	root := smallDisk(t)
	r := imagetest.Start()
	t.Cleanup(r.Close)
	for i, ref := range []string{"old:1", "web:1", "db:1"} {
		if _, err := r.Push(ref, noisy(byte(i), []int{36, 52, 8}[i]<<20)); err != nil {
			t.Fatal(err)
		}
	}
	w := supervisortest.New()
	d := begin(t, Options{Root: filepath.Join(root, "wherry"), RunDir: t.TempDir(), GC: GC{High: 90, MinAge: -1},
		hooks: hooks{containers: w.Runtime, networks: w.Network, look: 500 * time.Millisecond}})
	defer d.end()
	unitOf := func(name string) string {
		return "name: " + name + "\nimage: " + r.Host + "/" + name + ":1\nnetwork: none\nentrypoint: [/f]\n"
	}
	running := func(name string) func() bool {
		return func() bool {
			u, err := d.Unit(t.Context(), name)
			return err == nil && u.Running == 1
		}
	}
	if _, err := d.Images().Pull(t.Context(), r.Host+"/old:1", image.PullOptions{}); err != nil {
		t.Fatal(err)
	}

	// There is too little room: it is refused with the numbers, what nobody
	// needs makes way, and the next try works.
	d.apply(unitOf("web"))
	eventually(t, "web runs", running("web"))
	failed := d.events(event.StartFailed)
	if len(failed) == 0 || !strings.Contains(failed[0].Message, "no space left on "+root) || !strings.Contains(failed[0].Message, " needed") {
		t.Errorf("%+v", failed)
	}
	// The pull may be faster than the word of what made room for it.
	eventually(t, "the old image is told of", func() bool { return len(d.events(event.ImageGC)) > 0 })
	if gc := d.events(event.ImageGC); len(gc) != 1 || !strings.HasSuffix(gc[0].Message, whyRoom) {
		t.Errorf("%+v", gc)
	}
	if _, err := d.Images().Get(r.Host + "/old:1"); !errors.Is(err, image.ErrNotFound) {
		t.Error(err)
	}

	// Somebody else fills the disk: the last that can go is the compressed layer
	// of what runs.
	fill := func(name string) {
		st, err := d.Images().Disk()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, st.Free-st.Reserve/2), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill("other")
	eventually(t, "the compressed layer goes", func() bool { return len(d.events(event.ImageGC)) == 2 })
	// Then pulls are refused, and what runs runs on.
	fill("more")
	d.apply(unitOf("db"))
	eventually(t, "pressure", func() bool {
		p := d.events(event.DiskPressure)
		return len(p) > 0 && p[len(p)-1].Fields["pulls_refused"] == true
	})
	if !running("web")() || running("db")() {
		t.Errorf("%+v", d.Units())
	}
	if warn := d.Info().Warnings; !slices.ContainsFunc(warn, func(s string) bool { return strings.Contains(s, "images cannot be pulled") }) {
		t.Error(warn)
	}
	if e, err := d.ExplainImage(t.Context(), r.Host+"/web:1"); err != nil || !e.Stays || !strings.HasPrefix(e.Reasons[0], "container web.1-") || e.Reasons[1] != "current revision 1 of unit web" {
		t.Errorf("%+v %v", e, err)
	}

	// There is room again.
	if err := errors.Join(os.Remove(filepath.Join(root, "other")), os.Remove(filepath.Join(root, "more"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "db runs", running("db"))
	eventually(t, "no pressure", func() bool {
		p := d.events(event.DiskPressure)
		return p[len(p)-1].Fields["pressure"] == false && len(d.Info().Warnings) == 0
	})
	u, err := d.DiskUsage(t.Context())
	if err != nil || len(u.Units) != 2 || u.Units[1].ImageSize < 52<<20 || len(u.Units[1].Containers) != 1 || u.Units[1].Containers[0].Ended {
		t.Errorf("%+v %v", u, err)
	}
	if _, err := d.Remove(t.Context(), api.ActRequest{All: true, Force: true}, "tester"); err != nil {
		t.Fatal(err)
	}
	if res, err := d.CollectImages(t.Context(), image.GCOptions{All: true}); err != nil || res.Disk.Free < 200<<20 {
		t.Errorf("%+v %v", res, err)
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
}
