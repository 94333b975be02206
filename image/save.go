package image

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// What stands in an OCI layout besides the blobs (image-spec, image-layout.md),
// and in a docker archive.
const (
	layoutFile     = "oci-layout"
	layoutContent  = `{"imageLayoutVersion":"1.0.0"}`
	indexFile      = "index.json"
	dockerManifest = "manifest.json"

	annotationRef  = "org.opencontainers.image.ref.name" // a tag, or a whole name
	annotationName = "io.containerd.image.name"          // a whole name
)

// dockerImage is one entry of a docker archive's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Save writes the images that refs name, with these names, to w. A docker archive is
// an OCI layout too, so both kinds of tools can read it; its layers are
// compressed as they came, except for zstd, which older ones cannot read.
func (s *Store) Save(ctx context.Context, w io.Writer, f Format, refs []string) error {
	if f != DockerArchive && f != OCIArchive {
		return fmt.Errorf("save: format %q: want %s or %s", f, DockerArchive, OCIArchive)
	}
	images, unpin, err := s.savable(refs)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	defer unpin()
	out := &tarLayout{w: tar.NewWriter(w), written: map[string]bool{}}
	if err := s.save(ctx, out, images, f == DockerArchive); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if err := out.w.Close(); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// SaveFolder writes an OCI layout to dir, which is made if need be. A layout
// that is there already keeps its other images.
func (s *Store) SaveFolder(ctx context.Context, dir string, refs []string) error {
	images, unpin, err := s.savable(refs)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	defer unpin()
	out, err := openLayout(dir)
	if err == nil {
		err = errors.Join(s.save(ctx, out, images, false), out.close())
	}
	if err != nil {
		return fmt.Errorf("save to %s: %w", dir, err)
	}
	return nil
}

// savedImage is one image to save, with the names that were asked for.
type savedImage struct {
	rec   index.Image
	names []string
	mtype types.MediaType // of the manifest
	size  int64
}

// savable finds the images and keeps what they consist of from being deleted.
func (s *Store) savable(refs []string) (images []*savedImage, unpin func(), err error) {
	if images, err = s.named(refs); err != nil {
		return nil, nil, err
	}
	var pinned []string
	for _, i := range images {
		pinned = append(pinned, i.rec.Digest, i.rec.ConfigID)
		for _, l := range i.rec.Layers {
			pinned = append(pinned, l.Digest)
		}
	}
	s.pinNames(pinned)
	return images, func() { s.unpinNames(pinned) }, nil
}

func (s *Store) named(refs []string) (images []*savedImage, err error) {
	if len(refs) == 0 {
		return nil, errors.New("no image named")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range refs {
		rec, name, err := s.findLocked(ref)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(images, func(i *savedImage) bool { return i.rec.Digest == rec.Digest })
		if i < 0 {
			body, err := s.blobs.Read(rec.Digest)
			if err != nil {
				return nil, fmt.Errorf("image %s: manifest: %w", ref, err)
			}
			var m struct{ MediaType types.MediaType }
			if err := json.Unmarshal(body, &m); err != nil {
				return nil, fmt.Errorf("image %s: manifest: %w", ref, err)
			}
			images = append(images, &savedImage{rec: rec, mtype: cmp.Or(m.MediaType, types.OCIManifestSchema1), size: int64(len(body))})
			i = len(images) - 1
		}
		if name != "" && !strings.Contains(name, "@") && !slices.Contains(images[i].names, name) {
			images[i].names = append(images[i].names, name)
		}
	}
	return images, nil
}

// layoutWriter is a place for an OCI layout: a tar file or a folder.
type layoutWriter interface {
	// put writes a file once; a second one of the same name is passed over.
	put(name string, size int64, r io.Reader) error
	// finish writes index.json.
	finish(entries []v1.Descriptor) error
}

func (s *Store) save(ctx context.Context, out layoutWriter, images []*savedImage, docker bool) error {
	if err := putBytes(out, layoutFile, []byte(layoutContent)); err != nil {
		return err
	}
	var entries []v1.Descriptor
	var forDocker []dockerImage
	for _, i := range images {
		if err := s.refetch(ctx, i.rec); err != nil {
			return fmt.Errorf("image %s: %w", cmp.Or(strings.Join(i.names, " "), i.rec.Digest), err)
		}
		blobs := []string{i.rec.Digest, i.rec.ConfigID}
		for _, l := range i.rec.Layers {
			blobs = append(blobs, l.Digest)
		}
		for _, digest := range blobs {
			if err := s.saveBlob(ctx, out, digest); err != nil {
				return fmt.Errorf("image %s: blob %s: %w", cmp.Or(strings.Join(i.names, " "), i.rec.Digest), digest, err)
			}
		}
		e, err := i.entries()
		if err != nil {
			return err
		}
		entries = append(entries, e...)
		if docker {
			d, err := s.forDocker(ctx, out, i)
			if err != nil {
				return err
			}
			forDocker = append(forDocker, d)
		}
	}
	if docker {
		b, err := json.Marshal(forDocker)
		if err != nil {
			return err
		}
		if err := putBytes(out, dockerManifest, b); err != nil {
			return err
		}
	}
	return out.finish(entries)
}

func (s *Store) saveBlob(ctx context.Context, out layoutWriter, digest string) error {
	size, ok := s.blobs.Size(digest)
	if !ok {
		return errors.New("it is not in the store any more; pull the image again to save it")
	}
	f, err := s.blobs.Open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	return out.put(blobPath(digest), size, &checkedReader{ctx: ctx, r: f})
}

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// checkedReader ends with the context.
type checkedReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *checkedReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// entries are the image's places in index.json, one a name.
func (i *savedImage) entries() ([]v1.Descriptor, error) {
	h, err := v1.NewHash(i.rec.Digest)
	if err != nil {
		return nil, err
	}
	p, err := ParsePlatform(i.rec.Platform)
	if err != nil {
		return nil, err
	}
	d := v1.Descriptor{MediaType: i.mtype, Digest: h, Size: i.size,
		Platform: &v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}}
	if len(i.names) == 0 {
		return []v1.Descriptor{d}, nil
	}
	var all []v1.Descriptor
	for _, name := range i.names {
		named := d
		named.Annotations = map[string]string{annotationName: name, annotationRef: tagOf(name)}
		all = append(all, named)
	}
	return all, nil
}

func tagOf(name string) string { return name[strings.LastIndexByte(name, ':')+1:] }

// forDocker is the image's entry of manifest.json. A layer that Docker before 23
// could not decompress is added in its plain form.
func (s *Store) forDocker(ctx context.Context, out layoutWriter, i *savedImage) (dockerImage, error) {
	d := dockerImage{Config: blobPath(i.rec.ConfigID), RepoTags: []string{}, Layers: []string{}}
	for _, name := range i.names {
		d.RepoTags = append(d.RepoTags, strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/"))
	}
	for _, l := range i.rec.Layers {
		file := blobPath(l.Digest)
		zstd, err := s.isZstd(l.Digest)
		if err == nil && zstd {
			file = blobPath(l.DiffID)
			err = s.savePlain(ctx, out, l)
		}
		if err != nil {
			return d, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
		d.Layers = append(d.Layers, file)
	}
	return d, nil
}

func (s *Store) isZstd(digest string) (bool, error) {
	f, err := s.blobs.Open(digest)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(head[:n]) == "\x28\xb5\x2f\xfd", nil
}

// savePlain decompresses a layer twice: a tar file wants to know the size first.
func (s *Store) savePlain(ctx context.Context, out layoutWriter, l index.Layer) error {
	read := func(use func(io.Reader) error) error {
		f, err := s.blobs.Open(l.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		plain, err := layer.Decompress(&checkedReader{ctx: ctx, r: f})
		if err != nil {
			return err
		}
		defer plain.Close()
		return use(plain)
	}
	var size int64
	if err := read(func(r io.Reader) (err error) { size, err = io.Copy(io.Discard, r); return err }); err != nil {
		return err
	}
	return read(func(r io.Reader) error { return out.put(blobPath(l.DiffID), size, r) })
}

func putBytes(out layoutWriter, name string, b []byte) error {
	return out.put(name, int64(len(b)), strings.NewReader(string(b)))
}

func marshalIndex(entries []v1.Descriptor) ([]byte, error) {
	return json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: entries})
}
