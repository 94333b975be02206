package imagetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Entry is one entry of a layer's archive. Only Name is required: without Type
// it is a folder if the name ends in "/", a link if Link is set, else a file.
type Entry struct {
	Name    string
	Body    string
	Link    string // target of a symlink or, with tar.TypeLink, of a hard link
	Type    byte
	Mode    int64 // 0: 0755 for folders, else 0644
	UID     int
	GID     int
	ModTime time.Time // zero: a fixed time
	Xattrs  map[string]string
	Major   int64
	Minor   int64
}

// ZeroMode is the mode 0, which Entry.Mode cannot say.
const ZeroMode = -1

var fixedTime = time.Unix(1700000000, 0)

func (e Entry) header() *tar.Header {
	h := &tar.Header{
		Name: e.Name, Linkname: e.Link, Typeflag: e.Type, Mode: e.Mode, Uid: e.UID, Gid: e.GID,
		ModTime: e.ModTime, Devmajor: e.Major, Devminor: e.Minor, Format: tar.FormatPAX,
	}
	switch {
	case h.Typeflag != 0:
	case strings.HasSuffix(e.Name, "/"):
		h.Typeflag = tar.TypeDir
	case e.Link != "":
		h.Typeflag = tar.TypeSymlink
	default:
		h.Typeflag = tar.TypeReg
	}
	switch {
	case h.Mode == ZeroMode:
		h.Mode = 0
	case h.Mode == 0 && h.Typeflag == tar.TypeDir:
		h.Mode = 0o755
	case h.Mode == 0:
		h.Mode = 0o644
	}
	if h.ModTime.IsZero() {
		h.ModTime = fixedTime
	}
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(e.Body))
	}
	for k, v := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return h
}

// Archive writes the entries as a tar archive. It panics on an entry that tar
// cannot express, which is a mistake in the test.
func Archive(entries ...Entry) []byte {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.header()
		must(tw.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(tw, e.Body)
			must(err)
		}
	}
	must(tw.Close())
	return buf.Bytes()
}

// Files makes entries, sorted by name, out of names and contents.
func Files(files map[string]string) []Entry {
	var entries []Entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, Entry{Name: name, Body: files[name]})
	}
	return entries
}

// Compression of a layer.
type Compression string

// The compressions of layers.
const (
	None Compression = ""
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Layer is one layer: an archive and how to compress it.
type Layer struct {
	Tar         []byte
	Compression Compression
}

// NewLayer makes a gzip layer of entries.
func NewLayer(entries ...Entry) Layer { return Layer{Archive(entries...), Gzip} }

// packed are layers that were compressed before: tests ask for the same one again
// and again, and with the race detector compression takes long.
var packed struct {
	sync.Mutex
	blobs map[packedKey][]byte
	size  int
}

type packedKey struct {
	sum  [sha256.Size]byte
	kind Compression
}

const maxPacked = 256 << 20

// Blob is the layer as a registry holds it.
func (l Layer) Blob() []byte {
	if l.Compression == None {
		return l.Tar
	}
	key := packedKey{sha256.Sum256(l.Tar), l.Compression}
	packed.Lock()
	defer packed.Unlock()
	b, ok := packed.blobs[key]
	if !ok {
		if b = l.compress(); packed.blobs == nil || packed.size+len(b) > maxPacked {
			packed.blobs, packed.size = map[packedKey][]byte{}, 0
		}
		packed.blobs[key] = b
		packed.size += len(b)
	}
	return bytes.Clone(b)
}

func (l Layer) compress() []byte {
	var buf bytes.Buffer
	switch l.Compression {
	case Gzip:
		w := gzip.NewWriter(&buf)
		_, err := w.Write(l.Tar)
		must(err)
		must(w.Close())
	case Zstd:
		w, err := zstd.NewWriter(&buf)
		must(err)
		_, err = w.Write(l.Tar)
		must(err)
		must(w.Close())
	}
	return buf.Bytes()
}

func (l Layer) mediaType(docker bool) types.MediaType {
	switch {
	case l.Compression == Zstd:
		return types.OCILayerZStd
	case docker && l.Compression == Gzip:
		return types.DockerLayer
	case docker:
		return types.DockerUncompressedLayer
	case l.Compression == Gzip:
		return types.OCILayer
	}
	return types.OCIUncompressedLayer
}

// Image is an image to be pushed.
type Image struct {
	Layers   []Layer
	Config   v1.Config
	Platform v1.Platform // zero: linux, the architecture of this machine
	Docker   bool        // Docker's media types instead of OCI's
	// DiffIDs, if set, is what the config claims.
	DiffIDs []v1.Hash
}

// layer is a Layer for go-containerregistry.
type layer struct {
	v1.Layer
	diffID v1.Hash
	tar    []byte
}

func (l layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

func (l layer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.tar)), nil
}

func (i Image) build() (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	if i.Docker {
		img = mutate.MediaType(empty.Image, types.DockerManifestSchema2)
		img = mutate.ConfigMediaType(img, types.DockerConfigJSON)
	}
	var adds []mutate.Addendum
	for n, l := range i.Layers {
		diffID, _, err := v1.SHA256(bytes.NewReader(l.Tar))
		if err != nil {
			return nil, err
		}
		if n < len(i.DiffIDs) {
			diffID = i.DiffIDs[n]
		}
		mt := l.mediaType(i.Docker)
		adds = append(adds, mutate.Addendum{MediaType: mt, Layer: layer{static.NewLayer(l.Blob(), mt), diffID, l.Tar}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	p := platformOf(i.Platform)
	c.OS, c.Architecture, c.Variant, c.Config = p.OS, p.Architecture, p.Variant, i.Config
	c.Created = v1.Time{Time: fixedTime}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		return nil, err
	}
	return freeze(img, adds)
}

// frozen is an image that does not change any more. One that does makes its manifest and
// config anew for each of its layers, which hundreds of them feel.
type frozen struct {
	kind             types.MediaType
	manifest, config []byte
	layers           map[v1.Hash]v1.Layer
}

func freeze(img v1.Image, adds []mutate.Addendum) (v1.Image, error) {
	f := &frozen{layers: map[v1.Hash]v1.Layer{}}
	var err error
	if f.kind, err = img.MediaType(); err != nil {
		return nil, err
	}
	if f.manifest, err = img.RawManifest(); err != nil {
		return nil, err
	}
	if f.config, err = img.RawConfigFile(); err != nil {
		return nil, err
	}
	for _, a := range adds {
		digest, err := a.Layer.Digest()
		if err != nil {
			return nil, err
		}
		f.layers[digest] = a.Layer
	}
	return partial.CompressedToImage(f)
}

// MediaType implements partial.CompressedImageCore.
func (f *frozen) MediaType() (types.MediaType, error) { return f.kind, nil }

// RawManifest implements partial.CompressedImageCore.
func (f *frozen) RawManifest() ([]byte, error) { return f.manifest, nil }

// RawConfigFile implements partial.CompressedImageCore.
func (f *frozen) RawConfigFile() ([]byte, error) { return f.config, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (f *frozen) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	l, ok := f.layers[digest]
	if !ok {
		return nil, fmt.Errorf("no layer %s", digest)
	}
	return l, nil
}

// Busybox makes an image of a static busybox binary of this machine: the
// binary, a link for each of its commands, and the few files a system needs.
func Busybox(binary string) (Image, error) {
	body, err := os.ReadFile(binary)
	if err != nil {
		return Image{}, err
	}
	list, err := exec.Command(binary, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("%s --list: %w", binary, err)
	}
	entries := []Entry{
		{Name: "bin/"}, {Name: "bin/busybox", Body: string(body), Mode: 0o755},
		{Name: "dev/"}, {Name: "etc/"}, {Name: "proc/"}, {Name: "root/", Mode: 0o700}, {Name: "sys/"}, {Name: "tmp/", Mode: 0o1777},
		{Name: "etc/passwd", Body: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{Name: "etc/group", Body: "root:x:0:\nnogroup:x:65534:\n"},
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet = path.Base(applet); applet != "busybox" {
			entries = append(entries, Entry{Name: "bin/" + applet, Link: "busybox"})
		}
	}
	return Image{Layers: []Layer{NewLayer(entries...)}, Config: v1.Config{
		Cmd: []string{"sh"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}}, nil
}

func must(err error) {
	if err != nil {
		panic("imagetest: " + err.Error())
	}
}
