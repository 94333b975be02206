package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/blob"
)

// carriedImage pushes an image of three layers and returns it as the registry
// has it.
func carriedImage(t *testing.T, ref string) v1.Image {
	t.Helper()
	r := newRegistry(t)
	big := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB: not a small file, also as an uncompressed layer
	push(t, r, ref, imagetest.Image{
		Layers: []imagetest.Layer{
			imagetest.NewLayer(imagetest.Files(map[string]string{"etc/a": "a", "big": big})...),
			{Tar: imagetest.Archive(imagetest.Files(map[string]string{"etc/b": "b"})...), Compression: imagetest.Zstd},
			imagetest.NewLayer(imagetest.Files(map[string]string{"etc/.wh.a": ""})...),
		},
		Config: v1.Config{Cmd: []string{"x"}},
	})
	n, err := name.ParseReference(r.Host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(n)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func saved(t *testing.T, s *Store, f Format, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(ctx, &b, f, refs); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func loadOK(t *testing.T, s *Store, b []byte, o LoadOptions) []Image {
	t.Helper()
	images, err := s.Load(ctx, bytes.NewReader(b), o)
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// TestLoadDockerArchive: what Docker before 25 and `podman save` write.
func TestLoadDockerArchive(t *testing.T) {
	img := carriedImage(t, "a/b:1")
	tag, _ := name.NewTag("example.com/a/b:1")
	var b bytes.Buffer
	if err := tarball.Write(tag, img, &b); err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{"plain": b.Bytes(), "gzip": gzipped(b.Bytes())} {
		s := newStore(t, Options{})
		got := loadOK(t, s, data, LoadOptions{})
		id, _ := img.ConfigName()
		if len(got) != 1 || !slices.Equal(got[0].Names, []string{"example.com/a/b:1"}) || got[0].ConfigID != id.String() || len(got[0].Layers) != 3 {
			t.Fatalf("%s: %+v", what, got)
		}
		if _, err := s.Prepare(ctx, got[0].Digest, "x", t.TempDir(), PrepareOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		again := loadOK(t, s, data, LoadOptions{})
		if again[0].Digest != got[0].Digest {
			t.Errorf("%s: loading again gives %s, not %s", what, again[0].Digest, got[0].Digest)
		}
		checkNoRest(t, s)
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// checkNoRest: nothing that a load put down on the way is left.
func checkNoRest(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{"blobs/tmp", "layers/tmp"} {
		rest, err := os.ReadDir(filepath.Join(s.root, dir))
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %v %v", dir, rest, err)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	r := newRegistry(t)
	from := newStore(t, Options{})
	ref := r.Host + "/a/b:1"
	push(t, r, "a/b:1", imagetest.Image{Layers: []imagetest.Layer{
		imagetest.NewLayer(imagetest.Files(map[string]string{"etc/a": "a"})...),
		{Tar: imagetest.Archive(imagetest.Files(map[string]string{"etc/b": "b"})...), Compression: imagetest.Zstd},
	}})
	other := r.Host + "/c:2"
	push(t, r, "c:2", imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(imagetest.Files(map[string]string{"etc/a": "a"})...)}})
	img, img2 := pullOK(t, from, ref), pullOK(t, from, other)

	for _, f := range []Format{DockerArchive, OCIArchive} {
		data := saved(t, from, f, ref, other)
		if !bytes.Equal(data, saved(t, from, f, ref, other)) {
			t.Errorf("%s: two saves differ", f)
		}
		to := newStore(t, Options{})
		got := loadOK(t, to, data, LoadOptions{})
		if len(got) != 2 || got[0].Digest != img.Digest || got[1].Digest != img2.Digest || !slices.Equal(got[0].Names, []string{ref}) || !slices.Equal(got[1].Names, []string{other}) {
			t.Errorf("%s: %+v", f, got)
		}
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if err := from.SaveFolder(ctx, dir, []string{ref}); err != nil {
		t.Fatal(err)
	}
	if err := from.SaveFolder(ctx, dir, []string{other, ref}); err != nil {
		t.Fatal(err)
	}
	to := newStore(t, Options{})
	got, err := to.LoadFolder(ctx, dir, LoadOptions{})
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
}

// TestSavedForDocker: manifest.json names files that are there, and layers that Docker 20
// can decompress.
func TestSavedForDocker(t *testing.T) {
	r := newRegistry(t)
	s := newStore(t, Options{})
	ref := r.Host + "/z:1"
	push(t, r, "z:1", imagetest.Image{Layers: []imagetest.Layer{{Tar: imagetest.Archive(imagetest.Files(map[string]string{"b": "b"})...), Compression: imagetest.Zstd}}})
	img := pullOK(t, s, ref)
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, saved(t, s, DockerArchive, ref), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := got.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(layers, err)
	}
	if d, err := layers[0].DiffID(); err != nil || d.String() != img.Layers[0].DiffID {
		t.Errorf("diff ID %s, want %s: %v", d, img.Layers[0].DiffID, err)
	}
	if l, _ := name.NewTag(ref); l.String() != ref {
		t.Error(l)
	}
}

// TestLoadNames: where names come from, and what is loaded without one.
func TestLoadNames(t *testing.T) {
	for _, c := range []struct {
		annotations map[string]string
		given       string
		want        []string
		err         string
	}{
		{map[string]string{annotationName: "docker.io/library/n:1", annotationRef: "1"}, "", []string{"docker.io/library/n:1"}, ""},
		{map[string]string{annotationRef: "example.com/n:2"}, "", []string{"example.com/n:2"}, ""},
		{map[string]string{annotationName: "docker.io/library/n:1"}, "", []string{"docker.io/library/n:1"}, ""},
		{map[string]string{annotationName: "docker.io/library/n:1", annotationRef: "mine"}, "", []string{}, ""},
		{map[string]string{annotationRef: "latest"}, "", []string{}, ""},
		{map[string]string{annotationRef: "latest"}, "n", []string{"docker.io/library/n:latest"}, ""},
		{map[string]string{annotationRef: "example.com/n:2"}, "n", nil, "a name was given"},
		{map[string]string{annotationRef: "Bad Name/x"}, "", nil, "invalid image reference"},
	} {
		img := carriedImage(t, "a:1") // AppendImage keeps annotations in it
		dir := t.TempDir()
		p, err := layout.Write(dir, emptyIndex(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.AppendImage(img, layout.WithAnnotations(c.annotations)); err != nil {
			t.Fatal(err)
		}
		s := newStore(t, Options{})
		got, err := s.LoadFolder(ctx, dir, LoadOptions{Name: c.given})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: %v", c.annotations, err)
			}
			continue
		}
		if err != nil || len(got) != 1 || !slices.Equal(got[0].Names, c.want) {
			t.Errorf("%v: %+v %v", c.annotations, got, err)
			continue
		}
		if _, err := s.Get(got[0].Digest); err != nil {
			t.Errorf("%v: by digest: %v", c.annotations, err)
		}
	}
}

func emptyIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, indexFile), []byte(`{"schemaVersion":2,"manifests":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

type tarFile struct {
	name, link, body string
}

func makeTar(files ...tarFile) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.body)), Mode: 0o644, Typeflag: tar.TypeReg}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		w.WriteHeader(h)
		io.WriteString(w, f.body)
	}
	w.Close()
	return b.Bytes()
}

// TestLoadOldDockerArchive: layers that are links to one another's, names with "./".
func TestLoadOldDockerArchive(t *testing.T) {
	l := imagetest.NewLayer(imagetest.Files(map[string]string{"f": "f"})...)
	diff := blob.Digest(l.Tar)
	config, _ := json.Marshal(map[string]any{"os": "linux", "architecture": HostPlatform().Architecture, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff, diff}}})
	manifest := `[{"Config":"c.json","RepoTags":["old:1","older:1"],"Layers":["one/layer.tar","two/layer.tar"]}]`
	s := newStore(t, Options{})
	got := loadOK(t, s, makeTar(tarFile{name: "./c.json", body: string(config)}, tarFile{name: "one/layer.tar", body: string(l.Tar)},
		tarFile{name: "two/layer.tar", link: "../one/layer.tar"}, tarFile{name: "manifest.json", body: manifest}), LoadOptions{})
	if len(got) != 1 || len(got[0].Layers) != 2 {
		t.Fatalf("%+v", got)
	}
	for _, n := range []string{"old:1", "older:1"} {
		if _, err := s.Get(n); err != nil {
			t.Error(err)
		}
	}
}

// TestLoadRefuses: archives that lie leave nothing and get a clear error.
func TestLoadRefuses(t *testing.T) {
	img := carriedImage(t, "a:1")
	r := newRegistry(t)
	from := newStore(t, Options{})
	ref := r.Host + "/a:1"
	tag, _ := name.NewTag(ref)
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	pullOK(t, from, ref)
	whole := saved(t, from, OCIArchive, ref)
	index := func(digest string) string {
		return `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` + digest + `"}]}`
	}
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"not an archive":   {[]byte(strings.Repeat("hello ", 1000)), "not a tar file"},
		"empty":            {makeTar(), "empty"},
		"something else":   {makeTar(tarFile{name: "a", body: "b"}), "neither a docker archive nor an OCI layout"},
		"cut off":          {whole[:len(whole)/2], ": cut off before its end: unexpected EOF"},
		"short":            {[]byte("hello"), "load: fetch archive: cut off before its end"},
		"xz":               {[]byte("\xfd7zXZ\x00"), "load: compressed with xz or bzip2: gzip, zstd or none is supported"},
		"no images":        {makeTar(tarFile{name: indexFile, body: `{"schemaVersion":2,"manifests":[]}`}), "names no image"},
		"no manifest":      {makeTar(tarFile{name: indexFile, body: index(blob.Digest([]byte("{}")))}), "does not have manifest"},
		"wrong manifest":   {makeTar(tarFile{name: indexFile, body: index(blob.Digest([]byte("{}")))}, tarFile{name: blobPath(blob.Digest([]byte("{}"))), body: "[]"}), "does not match its digest"},
		"bad digest":       {makeTar(tarFile{name: indexFile, body: index("sha256:../../x")}), "index.json"},
		"missing layer":    {without(t, whole, func(n string, size int64) bool { return size > 1<<10 && strings.HasPrefix(n, "blobs/") }), "does not have this blob"},
		"link to outside":  {makeTar(tarFile{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`}, tarFile{name: "c", link: "/etc/passwd"}), "file does not exist"},
		"damaged manifest": {makeTar(tarFile{name: "manifest.json", body: `[{"Config":`}), "manifest.json"},
	} {
		s := newStore(t, Options{})
		_, err := s.Load(ctx, bytes.NewReader(c.data), LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "load: ") {
			t.Errorf("%s: %v", what, err)
		}
		if all, _ := s.List(); len(all) > 0 {
			t.Errorf("%s: %+v", what, all)
		}
		checkNoRest(t, s)
	}
	if _, err := from.LoadFolder(ctx, t.TempDir()+"/none", LoadOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := from.Save(ctx, io.Discard, OCIArchive, []string{"nothing:1"}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := from.Save(ctx, io.Discard, "zip", []string{ref}); err == nil {
		t.Error("saved as zip")
	}
}

func without(t *testing.T, archive []byte, drop func(string, int64) bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			w.Close()
			return b.Bytes()
		}
		if err != nil {
			t.Fatal(err)
		}
		if drop(h.Name, h.Size) {
			continue
		}
		w.WriteHeader(h)
		io.Copy(w, r)
	}
}

// TestLoadObeysPolicy: an archive is no way around what a registry's policy demands.
func TestLoadObeysPolicy(t *testing.T) {
	img := carriedImage(t, "a:1")
	tag, _ := name.NewTag("example.com/a:1")
	var b bytes.Buffer
	if err := tarball.Write(tag, img, &b); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Options{Registries: map[string]Registry{"example.com": {Policy: []TrustRule{{Require: Reject}}}}})
	if _, err := s.Load(ctx, &b, LoadOptions{}); !errors.Is(err, ErrUntrusted) {
		t.Error(err)
	}
	if keys, _ := s.layers.List(); len(keys) > 0 {
		t.Error("unpacked:", keys)
	}
}
