package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/overlay"
	"github.com/wherry-run/wherry/image/internal/registry"
)

// kind is what a manifest is, whatever it is called.
type kind int

const (
	kindImage kind = iota + 1
	kindIndex
)

// maxImageSize bounds what all layers of an image together may claim to be, far
// from where sizes would overflow.
const maxImageSize = 1 << 50

// schema1 are Docker's manifests from before 2016: they do not name an image's
// content by digest as we need it, and registries have ceased to serve them.
var schema1 = []types.MediaType{types.DockerManifestSchema1, types.DockerManifestSchema1Signed}

// kindOf tells an index from an image. What the registry calls it counts only if
// the content leaves it open.
func kindOf(m *registry.Manifest) (kind, error) {
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(m.Body, &shape); err != nil {
		return 0, fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	mt := shape.MediaType
	if mt == "" {
		mt = m.MediaType
	}
	index, image := shape.Manifests != nil, shape.Config != nil || shape.Layers != nil
	switch {
	case shape.SchemaVersion == 1, slices.Contains(schema1, mt):
		return 0, fmt.Errorf("manifests of schema 1 are not supported: the image was pushed by a Docker of before 2016, and must be pushed again by a newer one")
	case shape.SchemaVersion != 2:
		return 0, fmt.Errorf("manifest %s: schema version %d is not supported", m.Digest, shape.SchemaVersion)
	case index && image:
		// Two readers could take it for different images (CVE-2021-41190).
		return 0, fmt.Errorf("manifest %s is an index and a manifest at once", m.Digest)
	case mt.IsIndex() && !image, index && !mt.IsImage():
		return kindIndex, nil
	case mt.IsImage() && !index, image && !mt.IsIndex():
		return kindImage, nil
	case mt.IsIndex(), mt.IsImage():
		return 0, fmt.Errorf("manifest %s has not the content that its type %q says", m.Digest, mt)
	}
	return 0, fmt.Errorf("manifests of type %q are not supported", mt)
}

func parseIndex(m *registry.Manifest) ([]v1.Descriptor, error) {
	var idx struct {
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(m.Body, &idx); err != nil {
		return nil, fmt.Errorf("index %s: %w", m.Digest, err)
	}
	for _, d := range idx.Manifests {
		if _, err := blob.CheckDigest(d.Digest.String()); err != nil || d.Size < 0 {
			return nil, fmt.Errorf("index %s: manifest %s with %d bytes", m.Digest, d.Digest, d.Size)
		}
	}
	return idx.Manifests, nil
}

// parseManifest reads the manifest of an image whose layers we can unpack.
func parseManifest(m *registry.Manifest) (*v1.Manifest, error) {
	man := &struct {
		v1.Manifest
		ArtifactType string `json:"artifactType"`
	}{}
	if err := json.Unmarshal(m.Body, man); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	if what, t := artifact(man.ArtifactType, man.Config.MediaType); what != "" {
		return nil, fmt.Errorf("not a container image, but %s: its config is of type %q", what, t)
	}
	if len(man.Layers) > overlay.MaxLower {
		return nil, fmt.Errorf("%d layers, more than the %d that overlayfs takes", len(man.Layers), overlay.MaxLower)
	}
	total := int64(0)
	for _, d := range append(slices.Clone(man.Layers), man.Config) {
		if _, err := blob.CheckDigest(d.Digest.String()); err != nil || d.Size < 0 || d.Size > maxImageSize {
			return nil, fmt.Errorf("manifest %s: blob %s with %d bytes", m.Digest, d.Digest, d.Size)
		}
		if total += d.Size; total > maxImageSize {
			return nil, fmt.Errorf("manifest %s: its blobs claim to have more than %d bytes", m.Digest, int64(maxImageSize))
		}
	}
	for _, d := range man.Layers {
		if err := checkLayer(d); err != nil {
			return nil, err
		}
	}
	return &man.Manifest, nil
}

// artifacts are the kinds of things that people keep in registries besides
// images, by what the type of their config or artifact contains.
var artifacts = []struct{ part, what string }{
	{"helm", "a Helm chart"}, {"wasm", "a WebAssembly module"}, {"cosign", "a signature"}, {"sigstore", "a signature"},
	{"notary", "a signature"}, {"cyclonedx", "an SBOM"}, {"spdx", "an SBOM"}, {"in-toto", "an attestation"}, {"plugin", "a Docker plugin"},
	{"docker.compose", "a Compose project"}, {"flux", "a Flux artifact"}, {"tekton", "a Tekton bundle"}, {"ai.model", "a model"}, {"cnab", "an application bundle"},
}

// artifact tells what a manifest is the manifest of, "" if of an image, and the
// type that says so.
func artifact(artifactType string, config types.MediaType) (what string, says string) {
	says = string(config)
	switch {
	case config.IsConfig(), config == "", config == "application/octet-stream":
		return "", "" // its layers are looked at all the same
	case config == "application/vnd.oci.empty.v1+json" && artifactType != "":
		says = artifactType
	}
	for _, a := range artifacts {
		if strings.Contains(says, a.part) {
			return a.what, says
		}
	}
	return "an artifact", says
}

// checkLayer refuses what is no layer, or one whose content is not to be had.
func checkLayer(d v1.Descriptor) error {
	mt := string(d.MediaType)
	switch {
	case strings.HasSuffix(mt, "+encrypted"):
		return fmt.Errorf("layer %s is encrypted (%s)", d.Digest, mt)
	case strings.Contains(mt, ".foreign.") || strings.Contains(mt, ".nondistributable."):
		from := "it names no place to get it from"
		if len(d.URLs) > 0 {
			from = "its manifest says to get it from " + strings.Join(d.URLs[:min(len(d.URLs), 3)], ", ")
		}
		return fmt.Errorf("layer %s is foreign, registries do not have its content (%s): %s", d.Digest, mt, from)
	case mt == "", mt == "application/octet-stream", d.MediaType == types.DockerLayer, d.MediaType == types.DockerUncompressedLayer,
		mt == "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return nil
	}
	// zstd:chunked is zstd with an index in a frame that is skipped.
	switch mt {
	case "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd":
		return nil
	}
	return fmt.Errorf("not a container image: %s is of type %q, which is no layer of files", d.Digest, mt)
}
