package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/archive"
	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/layer"
	"github.com/wherry-run/wherry/image/internal/overlay"
	"github.com/wherry-run/wherry/image/internal/registry"
)

// LoadOptions configure one Load.
type LoadOptions struct {
	// Name is for images that the archive has no name for; with several of
	// them it is an error.
	Name     string
	Platform Platform       // of an index the image for it is taken; zero: the store's
	Progress func(Progress) // as in PullOptions
}

// Load brings the images of a docker archive or an OCI archive, possibly
// compressed, into the store. It reads r once and to its end, also after an error
// of the archive's content. An image that the archive has no name for, and o
// neither, is kept by its digest. Either all images are loaded or none is named.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Image, error) {
	plain, err := layer.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer plain.Close()
	files, err := archive.Read(ctx, plain, func(r io.Reader, size int64) (archive.Kept, error) { return s.ingest(ctx, r, size) })
	if err != nil {
		_, _ = io.Copy(io.Discard, r)
		return nil, fmt.Errorf("load: %w", s.stepFailed(StepFetch, "archive", err))
	}
	defer files.Close()
	return s.load(ctx, files, o)
}

// LoadFolder is Load for the folder of an OCI layout.
func (s *Store) LoadFolder(ctx context.Context, dir string, o LoadOptions) ([]Image, error) {
	files, err := archive.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	defer files.Close()
	return s.load(ctx, files, o)
}

// ingested is a file of an archive on its way to become a blob.
type ingested struct{ *blob.Ingest }

func (i ingested) ReadAt(p []byte, off int64) (int, error) { return i.File().ReadAt(p, off) }
func (i ingested) Discard()                                { i.Abort() }

func (s *Store) ingest(ctx context.Context, r io.Reader, size int64) (archive.Kept, error) {
	release, err := s.room.claim([]want{{key: fmt.Sprintf("load %p", r), fetch: size}})
	if err != nil {
		return nil, err
	}
	defer release()
	in, err := s.blobs.Ingest()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(in, &checkedReader{ctx: ctx, r: r}); err != nil {
		in.Abort()
		return nil, err
	}
	return ingested{in}, nil
}

// loadable is one image of an archive.
type loadable struct {
	names  []string
	digest string // of its manifest or index
}

func (s *Store) load(ctx context.Context, files *archive.Files, o LoadOptions) ([]Image, error) {
	src := &carried{files: files, made: map[string]*registry.Manifest{}, where: map[string]string{}, known: map[string]v1.Descriptor{}}
	list, err := src.images()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if err := s.nameLoaded(list, o.Name); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var pulls []*pull
	defer func() {
		for _, p := range pulls {
			p.unpin()
		}
	}()
	type ready struct {
		p    *pull
		res  *resolved
		keys []string
	}
	var all []ready
	for _, l := range list {
		p := &pull{s: s, name: l.digest, platform: o.Platform.or(s.platform), progress: o.Progress}
		if len(l.names) > 0 {
			p.name = l.names[0]
		}
		pulls = append(pulls, p)
		res, keys, err := p.fromArchive(ctx, src, l.digest, l.names)
		if err != nil {
			return nil, fmt.Errorf("load: %w", ofImage(p.name, err))
		}
		all = append(all, ready{p, res, keys})
	}
	var images []Image
	for i, r := range all {
		img, err := r.p.commitAs(r.res, r.keys, list[i].names)
		if err != nil {
			return nil, fmt.Errorf("load: %w", s.stepFailed(StepCommit, r.p.name, err))
		}
		images = append(images, img)
	}
	return images, nil
}

// fromArchive unpacks an image whose blobs are all in the archive.
func (p *pull) fromArchive(ctx context.Context, src *carried, id string, names []string) (*resolved, []string, error) {
	s := p.s
	p.report(Progress{Step: string(StepResolve)})
	res, err := s.resolve(ctx, src, id, p.platform)
	if err != nil {
		return nil, nil, s.stepFailed(StepResolve, p.name, err)
	}
	res.leave() // the archive has it, whoever else wants it
	if err := p.admitAll(ctx, res, names); err != nil {
		return nil, nil, err
	}
	p.pin(res)
	for _, j := range res.layers {
		if err := s.bringIn(ctx, src, j.desc); err != nil {
			return nil, nil, s.stepFailed(StepFetch, j.desc.Digest.String(), err)
		}
	}
	keys, err := p.fetch(ctx, nil, res)
	return res, keys, err
}

// admitAll asks the trust policy about every name. Signatures do not travel in
// archives: what must be signed has to have been pulled, with the same digest, before.
func (p *pull) admitAll(ctx context.Context, res *resolved, names []string) error {
	for _, n := range names {
		r, err := p.s.parseRef(n)
		if err != nil {
			return err
		}
		p.ref, p.name = r, n
		if err := p.admit(ctx, admission{digest: res.digest, indexes: res.indexes, offline: true}); err != nil {
			return err
		}
	}
	return nil
}

// bringIn makes a blob of the archive one of the store.
func (s *Store) bringIn(ctx context.Context, src *carried, d v1.Descriptor) error {
	digest := d.Digest.String()
	if size, ok := s.blobs.Size(digest); ok && size == d.Size {
		return nil
	}
	file := src.file(digest)
	if kept, ok := src.files.Kept(file); ok {
		in := kept.(ingested)
		if in.Digest() != digest || in.Size() != d.Size {
			return &blob.MismatchError{Want: digest, Got: in.Digest(), WantSize: d.Size, GotSize: in.Size()}
		}
		return in.Commit()
	}
	r, _, err := src.files.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the archive does not have this blob")
	}
	if err != nil {
		return err
	}
	defer r.Close()
	release, err := s.room.claim([]want{{key: "load " + digest, fetch: d.Size}})
	if err != nil {
		return err
	}
	defer release()
	w, err := s.blobs.Create(digest, d.Size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, &checkedReader{ctx: ctx, r: r}); err != nil {
		return err
	}
	return w.Commit()
}

// commitAs gives the image all its names; without any it is kept by digest.
func (p *pull) commitAs(res *resolved, keys []string, names []string) (img Image, err error) {
	if len(names) == 0 {
		p.name = ""
		return p.commit(res, keys)
	}
	for _, n := range names {
		p.name = n
		if img, err = p.commit(res, keys); err != nil {
			return img, err
		}
	}
	p.report(Progress{Step: ProgressDone, Done: res.size, Total: res.size})
	return img, nil
}

// nameLoaded completes the names.
func (s *Store) nameLoaded(list []*loadable, given string) error {
	if given != "" {
		nameless := slices.DeleteFunc(slices.Clone(list), func(l *loadable) bool { return len(l.names) > 0 })
		if len(nameless) != 1 {
			return fmt.Errorf("a name was given, but %d of the archive's %d images are without one", len(nameless), len(list))
		}
		nameless[0].names = []string{given}
	}
	for _, l := range list {
		for i, n := range l.names {
			r, err := s.parseRef(n)
			if err != nil {
				return err
			}
			if r.digest() != "" {
				return fmt.Errorf("%w: %q: a name with a tag is wanted", ErrInvalid, n)
			}
			l.names[i] = r.String()
		}
	}
	return nil
}

// carried answers for an archive what a repository would.
type carried struct {
	files *archive.Files
	made  map[string]*registry.Manifest // of docker archives, which have none
	where map[string]string             // files of blobs that do not stand at their OCI place
	known map[string]v1.Descriptor      // what describe has found out, by type and file
}

func (c *carried) file(digest string) string { return cmp.Or(c.where[digest], blobPath(digest)) }

// Manifest returns a manifest or index of the archive.
func (c *carried) Manifest(_ context.Context, digest string) (*registry.Manifest, error) {
	if m := c.made[digest]; m != nil {
		return m, nil
	}
	if _, err := blob.CheckDigest(digest); err != nil {
		return nil, err
	}
	b, err := c.files.ReadFile(blobPath(digest), maxCarriedManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the archive does not have manifest %s, which its index names", digest)
	}
	if err != nil {
		return nil, err
	}
	if got := blob.Digest(b); got != digest {
		return nil, &blob.MismatchError{Want: digest, Got: got, WantSize: int64(len(b)), GotSize: int64(len(b))}
	}
	return &registry.Manifest{Digest: digest, Body: b}, nil
}

const maxCarriedManifest = 4 << 20

// Small returns a blob that fits in memory.
func (c *carried) Small(_ context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	b, err := c.files.ReadFile(c.file(d.Digest.String()), limit)
	if err != nil {
		return nil, err
	}
	if got := blob.Digest(b); got != d.Digest.String() {
		return nil, &blob.MismatchError{Want: d.Digest.String(), Got: got, WantSize: d.Size, GotSize: int64(len(b))}
	}
	return b, nil
}

// images finds what the archive holds. An OCI layout's index comes before a docker
// archive's list: Docker 25 and newer write both.
func (c *carried) images() ([]*loadable, error) {
	switch {
	case c.files.Has(indexFile):
		return c.fromIndex()
	case c.files.Has(dockerManifest):
		return c.fromDocker()
	}
	return nil, fmt.Errorf("neither a docker archive nor an OCI layout: there is no %s and no %s", dockerManifest, indexFile)
}

func (c *carried) fromIndex() ([]*loadable, error) {
	b, err := c.files.ReadFile(indexFile, maxCarriedManifest)
	if err != nil {
		return nil, err
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	var list []*loadable
	for _, d := range idx.Manifests {
		if !d.MediaType.IsIndex() && !d.MediaType.IsImage() && d.MediaType != "" || isAttestation(d) {
			continue
		}
		digest := d.Digest.String()
		i := slices.IndexFunc(list, func(l *loadable) bool { return l.digest == digest })
		if i < 0 {
			list = append(list, &loadable{digest: digest})
			i = len(list) - 1
		}
		if n := carriedName(d.Annotations); n != "" {
			list[i].names = append(list[i].names, n)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s names no image", indexFile)
	}
	return list, nil
}

// isAttestation: BuildKit files its attestations as images for no platform.
func isAttestation(d v1.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown"
}

// carriedName is the whole name that an index gives an image. A tag alone, which is
// what umoci and skopeo write, is none; and where they have given an image another tag, the
// whole name is still that of the image they took it from.
func carriedName(a map[string]string) string {
	whole, ref := a[annotationName], a[annotationRef]
	switch {
	case strings.ContainsAny(ref, "/:"):
		return ref
	case ref == "" || ref == tagOf(whole):
		return whole
	}
	return ""
}

// fromDocker makes the manifests that a docker archive does not have: its
// layers as they are, mostly uncompressed.
func (c *carried) fromDocker() ([]*loadable, error) {
	b, err := c.files.ReadFile(dockerManifest, maxCarriedManifest)
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	if err := json.Unmarshal(b, &images); err != nil {
		return nil, fmt.Errorf("%s: %w", dockerManifest, err)
	}
	var list []*loadable
	for _, img := range images {
		m, err := c.makeManifest(img)
		if err != nil {
			return nil, err
		}
		c.made[m.Digest] = m
		list = append(list, &loadable{names: img.RepoTags, digest: m.Digest})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s names no image", dockerManifest)
	}
	return list, nil
}

func (c *carried) makeManifest(img dockerImage) (*registry.Manifest, error) {
	man := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	var err error
	if man.Config, err = c.describe(img.Config, types.OCIConfigJSON); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(img.Layers) > overlay.MaxLower {
		return nil, fmt.Errorf("%d layers, more than the %d that overlayfs takes", len(img.Layers), overlay.MaxLower)
	}
	for _, l := range img.Layers {
		d, err := c.describe(l, "")
		if err != nil {
			return nil, fmt.Errorf("layer: %w", err)
		}
		man.Layers = append(man.Layers, d)
	}
	b, err := json.Marshal(man)
	if err != nil {
		return nil, err
	}
	return &registry.Manifest{Digest: blob.Digest(b), MediaType: types.OCIManifestSchema1, Body: b}, nil
}

// describe digests a file of the archive and remembers where it stands.
func (c *carried) describe(file string, t types.MediaType) (v1.Descriptor, error) {
	key := string(t) + " " + file
	if d, ok := c.known[key]; ok { // one file may be named a million times
		return d, nil
	}
	r, size, err := c.files.Open(file)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer r.Close()
	var h v1.Hash
	if kept, ok := c.files.Kept(file); ok {
		h, err = v1.NewHash(kept.(ingested).Digest())
	} else {
		h, _, err = v1.SHA256(r)
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("archive: %s: %w", file, err)
	}
	if t == "" {
		if t, err = c.sniff(file); err != nil {
			return v1.Descriptor{}, err
		}
	}
	c.where[h.String()] = file
	c.known[key] = v1.Descriptor{MediaType: t, Digest: h, Size: size}
	return c.known[key], nil
}

// sniff tells the compression of a layer.
func (c *carried) sniff(file string) (types.MediaType, error) {
	r, _, err := c.files.Open(file)
	if err != nil {
		return "", err
	}
	defer r.Close()
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch {
	case bytes.HasPrefix(head[:n], []byte("\x1f\x8b")):
		return types.OCILayer, nil
	case bytes.HasPrefix(head[:n], []byte("\x28\xb5\x2f\xfd")):
		return types.OCILayerZStd, nil
	}
	return types.OCIUncompressedLayer, nil
}
