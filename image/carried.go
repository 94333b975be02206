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
	"github.com/wherry-run/wherry/image/internal/overlay"
	"github.com/wherry-run/wherry/image/internal/registry"
)

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
