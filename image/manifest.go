package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/registry"
)

const (
	maxConfig     = 8 << 20
	maxImageDepth = 500 // lower folders of one overlay mount
	maxIndexDepth = 4   // indexes in indexes
)

// resolved is what a name stands for, all of it small.
type resolved struct {
	digest   string   // of the manifest
	indexes  []string // that it was chosen from, the outermost first
	manifest []byte
	config   []byte
	configID string
	platform Platform
	layers   []layerJob
	size     int64
}

// manifests is where an image is resolved: a repository, or an archive.
type manifests interface {
	Manifest(ctx context.Context, id string) (*registry.Manifest, error)
	Small(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error)
}

// resolve asks the registry.
func (r *repository) resolve(ctx context.Context, id string, p Platform) (*resolved, error) {
	return r.s.resolve(ctx, r, id, p)
}

// resolve follows indexes to the manifest for the platform and reads its config.
func (s *Store) resolve(ctx context.Context, from manifests, id string, p Platform) (*resolved, error) {
	var indexes []string
	for range maxIndexDepth {
		m, err := from.Manifest(ctx, id)
		if err != nil {
			return nil, err
		}
		switch kindOf(m) {
		case types.OCIImageIndex:
			idx, err := v1.ParseIndexManifest(bytes.NewReader(m.Body))
			if err != nil {
				return nil, fmt.Errorf("index %s: %w", m.Digest, err)
			}
			d, err := p.choose(idx.Manifests)
			if err != nil {
				return nil, err
			}
			id, indexes = d.Digest.String(), append(indexes, m.Digest)
		case types.OCIManifestSchema1:
			res, err := s.resolveImage(ctx, from, m, p)
			if res != nil {
				res.indexes = indexes
			}
			return res, err
		default:
			return nil, fmt.Errorf("manifests of type %q are not supported", m.MediaType)
		}
	}
	return nil, errors.New("indexes are nested too deeply")
}

// kind tells an index from an image; the OCI types stand for Docker's too. What
// the registry calls it counts only if the content leaves it open.
func kindOf(m *registry.Manifest) types.MediaType {
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
	}
	if json.Unmarshal(m.Body, &shape) != nil || shape.SchemaVersion != 2 {
		return m.MediaType
	}
	if shape.MediaType == "" {
		shape.MediaType = m.MediaType
	}
	switch {
	case shape.MediaType.IsIndex(), shape.Manifests != nil && shape.Config == nil:
		return types.OCIImageIndex
	case shape.MediaType.IsImage(), shape.Config != nil:
		return types.OCIManifestSchema1
	}
	return shape.MediaType
}

func (s *Store) resolveImage(ctx context.Context, from manifests, m *registry.Manifest, p Platform) (*resolved, error) {
	man, err := v1.ParseManifest(bytes.NewReader(m.Body))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	if t := man.Config.MediaType; !t.IsConfig() && t != "" && t != "application/octet-stream" {
		return nil, fmt.Errorf("not a container image: its config is of type %q", t)
	}
	if len(man.Layers) > maxImageDepth {
		return nil, fmt.Errorf("%d layers, more than the %d that overlayfs takes", len(man.Layers), maxImageDepth)
	}
	for _, d := range append(slices.Clone(man.Layers), man.Config) {
		if _, err := blob.CheckDigest(d.Digest.String()); err != nil || d.Size < 0 {
			return nil, fmt.Errorf("manifest %s: blob %s with %d bytes", m.Digest, d.Digest, d.Size)
		}
		if strings.HasSuffix(string(d.MediaType), "+encrypted") {
			return nil, fmt.Errorf("layer %s is encrypted", d.Digest)
		}
	}
	res := &resolved{digest: m.Digest, manifest: m.Body, configID: man.Config.Digest.String()}
	if res.config, err = s.blobs.Read(res.configID); err != nil {
		if res.config, err = from.Small(ctx, man.Config, maxConfig); err != nil {
			return nil, fmt.Errorf("config %s: %w", res.configID, err)
		}
	}
	return res, res.readConfig(man, p)
}

// readConfig matches the manifest's layers with the config's diff IDs.
func (res *resolved) readConfig(man *v1.Manifest, p Platform) error {
	c, err := v1.ParseConfigFile(bytes.NewReader(res.config))
	if err != nil {
		return fmt.Errorf("config %s: %w", res.configID, err)
	}
	if len(c.RootFS.DiffIDs) != len(man.Layers) {
		return fmt.Errorf("config %s names %d layers, the manifest %d", res.configID, len(c.RootFS.DiffIDs), len(man.Layers))
	}
	res.platform = Platform{c.OS, c.Architecture, c.Variant}.normal()
	if c.OS != "" && res.platform.OS != p.OS || c.Architecture != "" && res.platform.Architecture != p.Architecture {
		return fmt.Errorf("%w %s; it is for: %s", ErrPlatform, p, res.platform)
	}
	res.size = man.Config.Size + int64(len(res.manifest))
	chain := ""
	for i, d := range man.Layers {
		diffID := c.RootFS.DiffIDs[i].String()
		if _, err := blob.CheckDigest(diffID); err != nil {
			return fmt.Errorf("config %s: diff ID: %w", res.configID, err)
		}
		chain = chainID(chain, diffID)
		res.layers = append(res.layers, layerJob{desc: d, diffID: diffID, chain: chain})
		res.size += d.Size
	}
	return nil
}

// chainID names a layer together with all below it, as the OCI image spec does.
func chainID(below, diffID string) string {
	if below == "" {
		return diffID
	}
	sum := sha256.Sum256([]byte(below + " " + diffID))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// configOf reads from a config blob what a container needs.
func configOf(b []byte) (Config, time.Time, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(b))
	if err != nil {
		return Config{}, time.Time{}, err
	}
	in := c.Config
	return Config{
		Entrypoint: in.Entrypoint, Cmd: in.Cmd, Env: in.Env, User: in.User, WorkingDir: in.WorkingDir,
		StopSignal: in.StopSignal, Volumes: sortedKeys(in.Volumes), ExposedPorts: sortedKeys(in.ExposedPorts), Labels: in.Labels,
	}, c.Created.Time, nil
}

func sortedKeys(m map[string]struct{}) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
