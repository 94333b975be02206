package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/index"
)

func TestRemove(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	shared := imagetest.NewLayer(entry{Name: "base", Body: noise(10000)})
	own := imagetest.NewLayer(entry{Name: "own", Body: noise(20000)})
	app := pullOKImage(t, r, s, "app:1", imagetest.Image{Layers: []imagetest.Layer{shared, own}})
	other := pullOKImage(t, r, s, "other:1", imagetest.Image{Layers: []imagetest.Layer{shared}})
	push(t, r, "app:2", imagetest.Image{Layers: []imagetest.Layer{shared, own}})
	pullOK(t, s, r.Host+"/app:2")

	res, err := s.Remove(ctx, r.Host+"/app:2")
	if err != nil || len(res.Deleted) != 0 || !slices.Equal(res.Untagged, []string{r.Host + "/app:2"}) {
		t.Errorf("one of two names: %+v %v", res, err)
	}
	if _, err := s.Prepare(ctx, app.Digest, "run.1", t.TempDir(), PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, app.Digest); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "run.1") {
		t.Error(err)
	}
	if _, err := s.Get(r.Host + "/app:1"); err != nil {
		t.Error("a refused removal took the name", err)
	}
	if err := errors.Join(s.Release("run.1"), s.Release("run.1")); err != nil {
		t.Error(err)
	}
	res, err = s.Remove(ctx, r.Host+"/app:1")
	want := []string{app.Digest, app.ConfigID, app.Layers[1].Digest, app.Layers[1].DiffID}
	slices.Sort(want)
	if err != nil || !slices.Equal(res.Deleted, want) || res.Freed < 40000 {
		t.Errorf("%+v %v\nwant %v", res, err, want)
	}
	if _, err := s.Remove(ctx, app.Digest); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Prepare(ctx, other.Digest, "run.2", t.TempDir(), PrepareOptions{}); err != nil {
		t.Error("the shared layer is gone", err)
	}
	pullOK(t, s, r.Host+"/app:1")
	assertClean(t, s)
}

func TestGC(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	old := pullOKImage(t, r, s, "app:1", oneFile("f", "1"))
	if _, err := s.Prepare(ctx, old.Digest, "run", t.TempDir(), PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	push(t, r, "app:1", oneFile("f", "2"))
	if _, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{Policy: Always}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		release bool
		deleted int
	}{{false, 0}, {true, 4}, {false, 0}} {
		if step.release {
			if err := s.Release("run"); err != nil {
				t.Fatal(err)
			}
		}
		if res, err := s.Collect(ctx, GCOptions{High: 100}); err != nil || len(res.Deleted) != step.deleted {
			t.Errorf("%+v: %+v %v", step, res, err)
		}
	}
}

// What a running pull has found must not be deleted before it is in the index.
func TestRemoveSparesRunningPulls(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	shared := imagetest.NewLayer(entry{Name: "base", Body: "base"})
	slow := imagetest.NewLayer(entry{Name: "slow", Body: "slow"})
	pullOKImage(t, r, s, "old:1", imagetest.Image{Layers: []imagetest.Layer{shared}})
	push(t, r, "new:1", imagetest.Image{Layers: []imagetest.Layer{shared, slow}})
	reached, open := gate(r, "/blobs/"+digestOf(slow))
	defer open()
	done := make(chan error, 1)
	go func() {
		img, err := s.Pull(ctx, r.Host+"/new:1", PullOptions{})
		if err == nil {
			_, err = s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{})
		}
		done <- err
	}()
	<-reached
	if _, err := s.Remove(ctx, r.Host+"/old:1"); err != nil {
		t.Error(err)
	}
	open()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNeeded(t *testing.T) {
	x := &index.Index{Images: map[string]index.Image{"m": {Digest: "m", ConfigID: "c", Layers: []index.Layer{{Digest: "b", Key: "k"}}}}}
	keep := needed(x, []index.Lease{{Keys: []string{"leased"}}}, map[string]int{"pinned": 1})
	for _, name := range []string{"m", "c", "b", "k", "leased", "pinned"} {
		if !keep[name] {
			t.Error(name)
		}
	}
	if len(keep) != 6 {
		t.Error(keep)
	}
}

func TestPrepare(t *testing.T) {
	for _, form := range []Form{Folder, EROFS} {
		t.Run(string(form), func(t *testing.T) { testPrepare(t, form) })
	}
}

func testPrepare(t *testing.T, form Form) {
	r, s := newRegistry(t), newStore(t, Options{Form: form})
	layers := []imagetest.Layer{
		imagetest.NewLayer(entry{Name: "./", Mode: 0o711}, entry{Name: "a"}),
		imagetest.NewLayer(entry{Name: "b"}),
		imagetest.NewLayer(entry{Name: "c"}),
	}
	top := func(img Image, i int) string {
		key := s.idx.Images[img.Digest].Layers[i].Key
		if form == EROFS {
			return "lowerdir+=" + s.layers.Mount(key)
		}
		return "lowerdir+=" + s.layers.Diff(key)
	}
	three := pullOKImage(t, r, s, "three:1", imagetest.Image{Layers: layers})
	one := pullOKImage(t, r, s, "one:1", imagetest.Image{Layers: layers[1:2]})
	none := pullOKImage(t, r, s, "none:1", imagetest.Image{})
	twice := pullOKImage(t, r, s, "twice:1", imagetest.Image{Layers: []imagetest.Layer{layers[1], layers[2], layers[1]}})
	opaque := pullOKImage(t, r, s, "opaque:1", imagetest.Image{Layers: []imagetest.Layer{layers[0], imagetest.NewLayer(entry{Name: ".wh..wh..opq"}, entry{Name: "d"})}})
	empty := "lowerdir+=" + s.layers.Empty()
	for _, c := range []struct {
		name     string
		img      Image
		readOnly bool
		want     func(dir string) []string
	}{
		{"three", three, false, func(d string) []string {
			return []string{top(three, 2), top(three, 1), top(three, 0), "upperdir=" + d + "/upper", "workdir=" + d + "/work"}
		}},
		{"three, read-only", three, true, func(d string) []string {
			return []string{"lowerdir+=" + d + "/root", top(three, 2), top(three, 1), top(three, 0), "ro"}
		}},
		{"one, read-only", one, true, func(string) []string { return []string{top(one, 0), empty, "ro"} }},
		{"one", one, false, func(d string) []string {
			return []string{top(one, 0), "upperdir=" + d + "/upper", "workdir=" + d + "/work"}
		}},
		{"none", none, false, func(d string) []string {
			return []string{empty, "upperdir=" + d + "/upper", "workdir=" + d + "/work"}
		}},
		{"none, read-only", none, true, func(string) []string { return []string{"bind", "ro"} }},
		{"one layer twice", twice, true, func(string) []string { return []string{top(twice, 2), top(twice, 1), "ro"} }},
		{"opaque root", opaque, true, func(string) []string { return []string{top(opaque, 1), empty, "ro"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "runs", "x")
			for range 2 { // the second renews the lease and keeps the folders
				mounts, err := s.Prepare(ctx, c.img.Digest, "x", dir, PrepareOptions{ReadOnly: c.readOnly})
				if err != nil {
					t.Fatal(err)
				}
				root := mounts[len(mounts)-1]
				got := slices.DeleteFunc(slices.Clone(root.Options), func(o string) bool { return strings.HasSuffix(o, "=off") || o == "xino=on" })
				if want := c.want(dir); root.Destination != "/" || !slices.Equal(got, want) {
					t.Errorf("got  %v\nwant %v", got, want)
				}
				for _, m := range mounts[:len(mounts)-1] {
					if m.Type != "erofs" || m.Source != filepath.Join(filepath.Dir(m.Destination), "layer.erofs") || !slices.Contains(got, "lowerdir+="+m.Destination) {
						t.Error("mount of a layer:", m)
					}
				}
				if mixed := slices.Contains(root.Options, "xino=on"); mixed != (len(mounts) > 1) {
					t.Error("xino:", root.Options)
				}
				tryMount(t, mounts)
			}
		})
	}
	st, err := os.Stat(filepath.Join(prepared(t, s, three), "upper"))
	if err != nil || st.Mode().Perm() != 0o711 {
		t.Error("the root has not the attributes of the topmost entry for it:", st.Mode(), err)
	}
	if ids, err := s.Leases(); err != nil || !slices.Equal(ids, []string{"x", "y"}) {
		t.Error(ids, err)
	}
	for _, bad := range []string{"", "../x", "a/b", ".hidden"} {
		if _, err := s.Prepare(ctx, one.Digest, bad, t.TempDir(), PrepareOptions{}); err == nil {
			t.Errorf("lease %q accepted", bad)
		}
	}
	if _, err := s.Prepare(ctx, "sha256:0", "z", t.TempDir(), PrepareOptions{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	cctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Prepare(cctx, one.Digest, "z", t.TempDir(), PrepareOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func prepared(t *testing.T, s *Store, img Image) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := s.Prepare(ctx, img.Digest, "y", dir, PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tryMount performs an overlay mount as Prepare describes it, where that is
// possible.
func tryMount(t *testing.T, mounts []specs.Mount) {
	t.Helper()
	root := mounts[len(mounts)-1]
	if os.Geteuid() != 0 || root.Type != "overlay" {
		return
	}
	images := map[string]int{}
	for _, m := range mounts[:len(mounts)-1] {
		fd, err := tryImage(m.Source)
		if errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.ENODEV) {
			t.Logf("no EROFS from files here: %v", err)
			return
		}
		if err != nil {
			t.Fatal(m, err)
		}
		defer unix.Close(fd)
		images[m.Destination] = fd
	}
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Logf("no overlay here: %v", err)
		return
	}
	defer unix.Close(fd)
	for _, o := range root.Options {
		key, value, ok := strings.Cut(o, "=")
		image, isImage := images[value]
		switch {
		case isImage:
			err = unix.FsconfigSetFd(fd, key, image)
		case ok:
			err = unix.FsconfigSetString(fd, key, value)
		default:
			err = unix.FsconfigSetFlag(fd, key)
		}
		if errors.Is(err, unix.EINVAL) && key == "lowerdir+" {
			t.Logf("kernel older than 6.5, or 6.15 for images")
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", o, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		t.Fatalf("overlay %v: %v", root.Options, err)
	}
}

// tryImage mounts an image in no namespace.
func tryImage(image string) (int, error) {
	fd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.FsconfigSetString(fd, "source", image), unix.FsconfigCreate(fd)); err != nil {
		return -1, err
	}
	return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
}
