package image

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/overlay"
)

func TestChooseForm(t *testing.T) {
	root := t.TempDir()
	for _, form := range []Form{Folder, EROFS} {
		choose, err := chooseForm(form, root, slog.New(slog.DiscardHandler))
		if err != nil || choose() != form {
			t.Errorf("%s: %v", form, err)
		}
	}
	if _, err := chooseForm("tar", root, nil); err == nil || !strings.Contains(err.Error(), `"tar"`) {
		t.Error(err)
	}
	choose, err := chooseForm("", root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := EROFS
	if err := tryErofs(root); err != nil {
		want = Folder
		t.Log("folders here:", err)
	}
	if os.Geteuid() != 0 && want == EROFS {
		t.Error("who may not mount cannot find out that the kernel does")
	}
	if got := choose(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Error("left behind:", left, err)
	}
	// A root that is not there is no reason to fail.
	choose, _ = chooseForm("", root+"/none", slog.New(slog.DiscardHandler))
	if got := choose(); got != Folder {
		t.Error(got)
	}
}

// TestPrepareMixed prepares an image whose layers were pulled in both forms.
func TestPrepareMixed(t *testing.T) {
	r, root := newRegistry(t), t.TempDir()
	layers := []imagetest.Layer{imagetest.NewLayer(entry{Name: "a"}), imagetest.NewLayer(entry{Name: "b"})}
	s := newStore(t, Options{Root: root, Form: Folder})
	pullOKImage(t, r, s, "below:1", imagetest.Image{Layers: layers[:1]})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, Options{Root: root, Form: EROFS})
	img := pullOKImage(t, r, s, "both:1", imagetest.Image{Layers: layers})
	mounts, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{})
	if err != nil || len(mounts) != 2 {
		t.Fatal(mounts, err)
	}
	keys := s.idx.Images[img.Digest].Layers
	want := []string{"lowerdir+=" + s.layers.Mount(keys[1].Key), "lowerdir+=" + s.layers.Diff(keys[0].Key)}
	if got := mounts[1].Options[:2]; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	tryMount(t, mounts)
}

// TestPrepareManyLayers mounts as many layers as overlayfs takes. Images with more
// are refused when they are resolved: see TestParseManifestRefuses.
func TestPrepareManyLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: 500 layers take seconds")
	}
	r, s := newRegistry(t), newStore(t, Options{Root: memoryDir(t), Form: Folder})
	var layers []imagetest.Layer
	for i := range overlay.MaxLower {
		layers = append(layers, imagetest.NewLayer(entry{Name: strings.Repeat("n", 1+i%250) + string(rune('a'+i/250))}))
	}
	layers[0] = imagetest.NewLayer(entry{Name: "./", Mode: 0o700})
	img := pullOKImage(t, r, s, "fits:1", imagetest.Image{Layers: layers})
	mounts, err := s.Prepare(ctx, img.Digest, "x", t.TempDir(), PrepareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tryMount(t, mounts)
	// Read-only, the root's attributes need one more.
	if _, err = s.Prepare(ctx, img.Digest, "y", t.TempDir(), PrepareOptions{ReadOnly: true}); err == nil || !strings.Contains(err.Error(), "501 layers: overlayfs takes 500") {
		t.Error(err)
	}
	if leases, err := s.Leases(); err != nil || len(leases) != 1 {
		t.Error("leases:", leases, err)
	}
}
