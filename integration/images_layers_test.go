package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// formHost is a host on an ext4 of its own that keeps layers in a form.
func formHost(t *testing.T, form string) *harness.Host {
	t.Helper()
	h := harness.NewHost(t)
	h.Config = "layers: " + form + "\ngc: {min_age: 0s}\n"
	if why := h.Ext4(512<<20, nil, ""); why != "" {
		t.Skipf("no file system of our own: %s", why)
	}
	h.Start()
	return h
}

// layered is an image of a shell, what a test adds, and a volume with content.
func layered(t *testing.T, text string, more ...imagetest.Layer) imagetest.Image {
	t.Helper()
	type e = imagetest.Entry
	img := imagetest.Image{Config: v1.Config{Volumes: map[string]struct{}{"/data": {}}}}
	img.Layers = append(img.Layers, tools(t), imagetest.NewLayer(
		e{Name: "text", Body: "below"}, e{Name: "data/"}, e{Name: "data/seed", Body: "seed of " + text, Mode: 0o640, UID: 7, GID: 8},
		e{Name: "etc/"}, e{Name: "etc/gone", Body: "x"}, e{Name: "etc/kept", Body: "kept"}, e{Name: "noise", Body: noise(7, 8<<20)}))
	img.Layers = append(img.Layers, more...)
	img.Layers = append(img.Layers, imagetest.NewLayer(e{Name: "etc/.wh.gone"}, e{Name: "text", Body: text + "\n"}))
	return img
}

// isForm: what lies in the store is of the form.
func isForm(t *testing.T, h *harness.Host, form string) {
	t.Helper()
	var folders, files int
	all, _ := filepath.Glob(h.Root + "/layers/*")
	for _, dir := range all {
		switch found, _ := filepath.Glob(dir + "/*.erofs"); {
		case len(found) > 0:
			files++
		default:
			if _, err := os.Stat(dir + "/diff"); err == nil {
				folders++
			}
		}
	}
	if form == "erofs" && files == 0 || form == "folder" && (files > 0 || folders == 0) {
		t.Errorf("form %s: %d folders, %d files", form, folders, files)
	}
}

// TestLayerForms: containers on layers of both forms live the same life, and leave
// nothing: no mount, no loop device, no byte.
func TestLayerForms(t *testing.T) {
	r := liar(t)
	for _, v := range []string{"1", "2"} {
		if _, err := r.Push("app:"+v, layered(t, "version "+v)); err != nil {
			t.Fatal(err)
		}
	}
	many := map[int]string{}
	for _, n := range []int{1, 20, 130} {
		img := imagetest.Image{Layers: []imagetest.Layer{tools(t)}}
		for i := range n - 1 {
			img.Layers = append(img.Layers, imagetest.NewLayer(
				imagetest.Entry{Name: fmt.Sprintf("f%d", i+1), Body: fmt.Sprint(i + 1)}, imagetest.Entry{Name: "top", Body: fmt.Sprintf("%d\n", i+1)}))
		}
		many[n] = fmt.Sprintf("many:%d", n)
		if _, err := r.Push(many[n], img); err != nil {
			t.Fatal(err)
		}
	}
	for _, form := range []string{"folder", "erofs"} {
		t.Run(form, func(t *testing.T) {
			h := formHost(t, form)
			h.OK("status")
			before := h.FreeBytes()
			unit := func(v string) string { return sleeper(r.Host+"/app:"+v) + "volumes: [\"stuff:/data\"]\n" }
			sh := func(script string) string {
				t.Helper()
				return h.OK("exec", "web", "/bin/sh", "-c", script)
			}
			looks := func(v, seed string) {
				t.Helper()
				if out := sh("read x </text; echo $x; [ ! -e /etc/gone ] && /bin/busybox cat /etc/kept /data/seed; /bin/busybox stat -c ' %a %u %g' /data/seed"); out != "version "+v+"\nkept"+seed+" 640 7 8\n" {
					t.Errorf("version %s looks so: %q", v, out)
				}
			}
			h.Apply("web", unit("1"))
			h.Running("web", 1)
			isForm(t, h, form)
			looks("1", "seed of version 1")
			// Writing, changing and deleting what the layers have.
			if out := sh("echo new >/etc/new; echo changed >/etc/kept; /bin/busybox rm -r /noise; /bin/busybox mkdir /noise; echo more >>/data/log; /bin/busybox cat /etc/new /etc/kept; [ -d /noise ] && echo folder"); out != "new\nchanged\nfolder\n" {
				t.Errorf("after writing: %q", out)
			}
			h.OK("restart", "web")
			h.Running("web", 1)
			looks("1", "seed of version 1")
			web := h.Running("web", 1)
			h.KillDaemon()
			h.Start()
			undisturbed(t, h, "web", web)
			looks("1", "seed of version 1")
			h.KillKeeper()
			undisturbed(t, h, "web", web)
			looks("1", "seed of version 1")
			keeper := keeperPid(t, h)
			h.KillDaemon()
			kill9(t, keeper)
			h.Start()
			undisturbed(t, h, "web", web)
			looks("1", "seed of version 1")
			h.OK("restart", "web")
			h.Apply("web", unit("2"))
			h.Running("web", 1)
			looks("2", "seed of version 1") // the volume is older
			if out := sh("/bin/busybox cat /data/log"); out != "more\n" {
				t.Errorf("the volume has %q", out)
			}
			h.Apply("copy", sleeper(r.Host+"/app:2")+"read_only: true\nreplicas: 3\n")
			h.Running("copy", 3)
			for n, ref := range many {
				out := h.OK("run", "--rm", "--net", "none", r.Host+"/"+ref, "/bin/sh", "-c", "[ ! -e /top ] || read x </top; echo $x; [ ! -e /f1 ] || read y </f1; echo $y")
				want := fmt.Sprintf("%d\n1\n", n-1)
				if n == 1 {
					want = "\n\n"
				}
				if out != want {
					t.Errorf("%d layers: %q, want %q", n, out, want)
				}
			}
			for _, in := range []string{"web.1", "copy.1", "copy.2", "copy.3"} {
				h.OK("exec", in, "/bin/sh", "-c", "exit 0")
			}

			h.OK("rm", "-f", "web", "copy")
			h.OK("image", "gc", "--all")
			if err := os.RemoveAll(h.Root + "/volumes/stuff"); err != nil {
				t.Fatal(err)
			}
			h.NothingLeft("web and copy", h.Loops, func() []string { return storeLeftovers(h) })
			var now int64
			harness.Eventually(t, 20*time.Second, "the space is free", func() bool {
				now = h.FreeBytes()
				return before-now < 2<<20
			})
		})
	}
}

// TestFormsMixed: a host that changes its mind goes on with what it has.
func TestFormsMixed(t *testing.T) {
	r := liar(t)
	if _, err := r.Push("app:1", layered(t, "version 1")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Push("app:2", layered(t, "version 2", imagetest.NewLayer(imagetest.Entry{Name: "etc/more", Body: "more\n"}))); err != nil {
		t.Fatal(err)
	}
	h := formHost(t, "folder")
	h.Apply("web", sleeper(r.Host+"/app:1"))
	web := h.Running("web", 1)
	h.StopDaemon()
	h.Config = "layers: erofs\n"
	h.Start()
	undisturbed(t, h, "web", web)
	says(t, h, r.Host+"/app:1", "version 1")
	h.OK("pull", "-q", r.Host+"/app:2") // two layers as folders, the others as files
	says(t, h, r.Host+"/app:2", "version 2")
	isForm(t, h, "erofs")
	h.StopDaemon()
	h.Config = "layers: folder\n"
	h.Start()
	says(t, h, r.Host+"/app:2", "version 2")
	h.OK("restart", "web")
	h.Running("web", 1)
}

// TestWritableQuota: storage_opt bounds what a container writes where the file system
// can, and is an error that says so where it cannot.
func TestWritableQuota(t *testing.T) {
	r := liar(t)
	if _, err := r.Push("app:1", small(t, "quota\n")); err != nil {
		t.Fatal(err)
	}
	unit := sleeper(r.Host+"/app:1") + "storage_opt: {size: 8MiB}\n"
	t.Run("unsupported", func(t *testing.T) {
		h := harness.NewHost(t)
		h.SmallDisk(64 << 20)
		h.Start()
		h.Run("apply", "--no-wait", h.WriteUnit("web", unit))
		hasError(t, h, "web", "quota")
	})
	for _, form := range []string{"folder", "erofs"} {
		t.Run(form, func(t *testing.T) {
			h := harness.NewHost(t)
			h.Config = "layers: " + form + "\n"
			if why := h.Ext4(256<<20, []string{"-O", "quota,project"}, "prjquota"); why != "" {
				t.Skipf("no project quotas here: %s", why)
			}
			h.Start()
			h.Apply("web", unit)
			h.Running("web", 1)
			write := func(mib int) harness.Result {
				return h.Run("exec", "web", "/bin/busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", fmt.Sprintf("count=%d", mib))
			}
			if res := write(6); res.Code != 0 {
				t.Errorf("6 MiB: %+v", res)
			}
			if res := write(16); res.Code == 0 || !strings.Contains(res.Stderr, "No space left") && !strings.Contains(res.Stderr, "quota exceeded") {
				t.Errorf("16 MiB: %+v", res)
			}
			h.OK("exec", "web", "/bin/busybox", "rm", "/big")
			if res := write(6); res.Code != 0 {
				t.Errorf("6 MiB again: %+v", res)
			}
			// A new run begins with all of it, and others have no bound.
			h.OK("restart", "web")
			h.Running("web", 1)
			if res := write(6); res.Code != 0 {
				t.Errorf("6 MiB after a restart: %+v", res)
			}
			h.OK("run", "--rm", "--net", "none", r.Host+"/app:1", "/bin/busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=20")
			res := h.Run("run", "--rm", "--net", "none", "--storage-opt", "size=4MiB", r.Host+"/app:1", "/bin/busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=20")
			if res.Code == 0 {
				t.Error("run: 20 MiB fit into 4 MiB")
			}
		})
	}
}
