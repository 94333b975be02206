package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/registry"
)

const (
	maxConfig     = 8 << 20
	maxIndexDepth = 4  // indexes in indexes, and the manifest
	maxFinds      = 32 // manifests and indexes that are fetched to find one image
)

// resolved is what a name stands for, all of it small.
type resolved struct {
	digest   string   // of the manifest
	indexes  []string // that it was chosen from, the outermost first
	manifest []byte
	config   []byte
	configID string
	release  func() // of the config; nil: it was there
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
	f := &finder{from: from, platform: p}
	m, indexes, err := f.find(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, p.none(f.all)
	}
	res, err := s.resolveImage(ctx, from, m, p)
	if res != nil {
		res.indexes = indexes
	}
	return res, err
}

// finder looks for the manifest for a platform, through indexes in indexes.
type finder struct {
	from     manifests
	platform Platform
	all      []string // platforms that there is something for
	fetched  int
}

// find returns the manifest, and the indexes on the way to it, or nil if the
// index and all those in it have none for the platform.
func (f *finder) find(ctx context.Context, id string, above []string) (*registry.Manifest, []string, error) {
	if f.fetched++; len(above) >= maxIndexDepth || f.fetched > maxFinds {
		return nil, nil, errors.New("indexes are nested too deeply")
	}
	m, err := f.from.Manifest(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	kind, err := kindOf(m)
	if err != nil || kind == kindImage {
		return m, above, err
	}
	list, err := parseIndex(m)
	if err != nil {
		return nil, nil, err
	}
	c := f.platform.choose(list)
	f.all = append(f.all, c.all...)
	above = append(slices.Clone(above), m.Digest)
	next := c.nested
	switch {
	case c.best != nil:
		next = []v1.Descriptor{*c.best}
	case len(c.all) == 0 && len(c.unnamed) == 1:
		next = append(next, c.unnamed[0]) // its config says what it is for
	}
	for _, d := range next {
		found, path, err := f.find(ctx, d.Digest.String(), above)
		if found != nil || err != nil {
			return found, path, err
		}
	}
	return nil, nil, nil
}

func (s *Store) resolveImage(ctx context.Context, from manifests, m *registry.Manifest, p Platform) (*resolved, error) {
	man, err := parseManifest(m)
	if err != nil {
		return nil, err
	}
	res := &resolved{digest: m.Digest, manifest: m.Body, configID: man.Config.Digest.String()}
	if res.config, err = s.blobs.Read(res.configID); err == nil {
		return res, res.readConfig(man, p)
	}
	res.config, err = s.flights.configs.fetch(ctx, res.configID, func() ([]byte, error) {
		return from.Small(ctx, man.Config, maxConfig)
	})
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", res.configID, err)
	}
	res.release = sync.OnceFunc(func() { s.flights.configs.leave(res.configID) })
	if err := res.readConfig(man, p); err != nil {
		res.leave()
		return nil, err
	}
	return res, nil
}

// leave lets go of what was fetched for the pull.
func (res *resolved) leave() {
	if res.release != nil {
		res.release()
	}
}

// readConfig matches the manifest's layers with the config's diff IDs.
func (res *resolved) readConfig(man *v1.Manifest, p Platform) error {
	c, err := v1.ParseConfigFile(bytes.NewReader(res.config))
	if err != nil {
		return fmt.Errorf("config %s: %w", res.configID, err)
	}
	if t := c.RootFS.Type; t != "" && t != "layers" {
		return fmt.Errorf("config %s: root file system of type %q", res.configID, t)
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
