package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// unpacked is an image of a shell and n bytes, not compressed.
func unpacked(t *testing.T, text string, seed uint64, n int) imagetest.Image {
	t.Helper()
	img := small(t, text+"\n")
	img.Layers = append(img.Layers, imagetest.Layer{Tar: imagetest.Archive(imagetest.Entry{Name: "noise", Body: noise(seed, n)}), Compression: imagetest.None})
	return img
}

// freeBytes is what an unprivileged process may still write below a folder.
func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// fillDisk leaves only so many bytes of the file system of dir free.
func fillDisk(t *testing.T, dir string, left int64) (file string) {
	t.Helper()
	file = dir + "/somebody-elses"
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for buf := make([]byte, 64<<10); freeBytes(t, dir) > left; {
		if _, err := f.Write(buf[:min(int64(len(buf)), freeBytes(t, dir)-left)]); err != nil {
			break
		}
	}
	return file
}

// intact: what the store says it has is as it was unpacked.
func intact(t *testing.T, h *harness.Host) {
	t.Helper()
	r := h.Run("image", "verify")
	if r.Code != 0 {
		t.Errorf("verify: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// TestPullsOnAFullDisk: a pull that has no room is refused before it fetches
// anything, with the numbers, and what is there goes on. The compressed layers of
// images that are unpacked go by themselves, images too young to go do not: after
// they were cleaned away, the pull works.
func TestPullsOnAFullDisk(t *testing.T) {
	needsRoot(t)
	r := harness.StartRegistry(t)
	p := before(t, r.Addr)
	r.Make(t, "used:1", unpacked(t, "used", 1, 4<<20))
	r.Make(t, "unused:1", unpacked(t, "unused", 2, 32<<20))
	r.Make(t, "large:1", unpacked(t, "large", 3, 29<<20))
	r.Make(t, "huge:1", unpacked(t, "huge", 4, 80<<20))
	ref := func(name string) string { return p.Host + "/" + name + ":1" }
	h := harness.NewHost(t)
	h.SmallDisk(96 << 20)
	h.Config = "gc: {min_age: 1h, high: 95%}\n"
	h.Start()
	h.Apply("web", sleeper(ref("used")))
	web := h.Running("web", 1)
	h.OK("pull", "-q", ref("unused"))

	refused := func(name string) {
		t.Helper()
		h.Fails(1, []string{ref(name), "no space left", "needed", "MB free", "have to stay free", "image gc"}, "pull", "-q", ref(name))
		if n := p.Count("GET", "/"+name+"/blobs/"); n > 1 { // its config
			t.Errorf("%s: %d blobs were fetched", name, n)
		}
		if l := partials(t, h); len(l) > 0 {
			t.Errorf("left behind: %q", l)
		}
		intact(t, h)
		undisturbed(t, h, "web", web)
	}
	refused("huge")
	refused("large")
	h.Run("apply", "--no-wait", h.WriteUnit("large", sleeper(ref("large"))))
	hasError(t, h, "large", "no space left", "large:1", "free")
	h.OK("run", "--rm", "--net", "none", "--pull", "never", ref("used"), "/bin/sh", "-c", "exit 0")

	h.OK("image", "gc", "--all")
	if out := h.OK("image", "list", "-q"); strings.Contains(out, "/unused:1") || !strings.Contains(out, "/used:1") {
		t.Errorf("after the collection there is\n%s", out)
	}
	h.Running("large", 1) // by itself
	h.OK("rm", "-f", "large")
	intact(t, h)

	var file string
	harness.Eventually(t, 40*time.Second, "an event says that the disk is full", func() bool {
		file = fillDisk(t, h.Root, 1<<20) // again, if compressed layers went
		return strings.Contains(h.OK("events"), "is full, images cannot be pulled")
	})
	if out := h.Run("status"); !strings.Contains(out.Stdout+out.Stderr, "is full") {
		t.Errorf("status does not say that the disk is full:\n%s%s", out.Stdout, out.Stderr)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	h.OK("image", "gc")
	if out := h.OK("events"); !strings.Contains(out, "has room again") {
		t.Errorf("no event says that there is room again:\n%s", out)
	}
}

// TestDiskFillsMeanwhile: somebody else takes the room that a pull was promised.
func TestDiskFillsMeanwhile(t *testing.T) {
	needsRoot(t)
	r := harness.StartRegistry(t)
	p := before(t, r.Addr)
	img := small(t, "late\n")
	for i := range 4 {
		img.Layers = append(img.Layers, imagetest.NewLayer(imagetest.Entry{Name: fmt.Sprintf("noise%d", i), Body: noise(300+uint64(i), 4<<20)}))
	}
	r.Make(t, "late:1", img)
	r.Make(t, "here:1", small(t, "here\n"))
	ref := p.Host + "/late:1"
	h := harness.NewHost(t)
	h.SmallDisk(96 << 20)
	h.Start()
	h.OK("pull", "-q", p.Host+"/here:1")

	p.Do(imagetest.Rule{Path: "/late/blobs/", Every: 40 * time.Millisecond, Piece: 16 << 10}) // long enough to fill the disk meanwhile
	done := make(chan harness.Result, 1)
	go func() { done <- h.Run("pull", "-q", ref) }()
	harness.Eventually(t, 20*time.Second, "a quarter has come", func() bool {
		all, err := h.Client().Operations(context.Background())
		return err == nil && len(all) > 0 && all[0].Done > 4<<20
	})
	file := fillDisk(t, h.Root, 64<<10)
	res := <-done
	if res.Code != 1 || !strings.Contains(res.Stderr, "no space left") || !strings.Contains(res.Stderr, "free") || !strings.Contains(res.Stderr, "late:1") {
		t.Errorf("exit code %d:\n%s", res.Code, res.Stderr)
	}
	if l := h.OK("image", "list", "-q"); strings.Contains(l, "late:1") {
		t.Errorf("half an image is listed:\n%s", l)
	}
	says(t, h, p.Host+"/here:1", "here")
	intact(t, h)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.Mend()
	h.OK("pull", "-q", ref)
	says(t, h, ref, "late")
	intact(t, h)
	if l := partials(t, h); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}
