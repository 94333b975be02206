package image

import (
	"context"
	"errors"
	"log/slog"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Options configure a Store.
type Options struct {
	Root         string   // blobs/, layers/ and images/ stand below it; required
	Platform     Platform // zero: the host's
	Insecure     []string // registry hosts spoken to over plain HTTP; loopback always may
	DockerConfig string   // path of a Docker config.json; empty: $DOCKER_CONFIG is NOT read, none is used
	Logger       *slog.Logger
}

// Store holds images. It is safe for concurrent use; one process owns Root.
type Store struct{}

// Open opens or makes a store, and removes what an interrupted pull left.
func Open(o Options) (*Store, error) { return nil, errors.ErrUnsupported }

// Close releases the lock on Root.
func (s *Store) Close() error { return nil }

// Platform is what an image is made for.
type Platform struct{ OS, Architecture, Variant string }

// Policy says when Pull goes to the registry.
type Policy string

// Missing pulls only what is not there, Always asks the registry each time,
// Never does not touch the network.
const (
	Missing Policy = "missing"
	Always  Policy = "always"
	Never   Policy = "never"
)

// PullOptions configure one pull.
type PullOptions struct {
	Policy   Policy // empty: Missing
	Platform Platform
	Progress func(Progress) // called from several goroutines, must not block
}

// Progress is one step of one layer (or of the image, with Layer empty).
type Progress struct {
	Image string `json:"image"`
	Layer string `json:"layer,omitempty"` // the blob's digest
	Step  string `json:"step"`            // resolve, fetch, unpack, commit, exists, done
	Done  int64  `json:"done,omitempty"`  // compressed bytes so far
	Total int64  `json:"total,omitempty"`
}

// Image is one image of the store.
type Image struct {
	Names    []string  `json:"names"`  // "docker.io/library/nginx:1.27", sorted
	Digest   string    `json:"digest"` // of the manifest for the platform
	Config   Config    `json:"config"`
	ConfigID string    `json:"config_id"` // digest of the config blob, what Docker calls the image ID
	Layers   []Layer   `json:"layers"`
	Size     int64     `json:"size"` // compressed bytes
	Platform string    `json:"platform"`
	Created  time.Time `json:"created,omitzero"`
	PulledAt time.Time `json:"pulled_at,omitzero"`
}

// Layer is one layer of an image.
type Layer struct {
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	Size   int64  `json:"size"`
}

// Config is the part of the image's config that a container needs.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"`
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
}

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("no such image")
	ErrInUse    = errors.New("image is in use")
	ErrInvalid  = errors.New("invalid image reference")
	ErrCorrupt  = errors.New("content does not match its digest")
)

// Pull makes the image of ref present and returns it. ref is a name as Docker
// users write it: "nginx", "host:5000/a/b:tag", "a/b@sha256:...". Concurrent
// pulls of one blob share one download.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	return Image{}, errors.ErrUnsupported
}

// Get finds an image by name, digest or unique digest prefix (12 characters or
// more, with or without "sha256:", of the manifest or the config).
func (s *Store) Get(ref string) (Image, error) { return Image{}, errors.ErrUnsupported }

// List returns all images, sorted by first name.
func (s *Store) List() ([]Image, error) { return nil, errors.ErrUnsupported }

// RemoveResult says what Remove did.
type RemoveResult struct {
	Untagged []string `json:"untagged"`
	Deleted  []string `json:"deleted"` // digests of manifests and layers
	Freed    int64    `json:"freed"`   // bytes
}

// Remove takes the name away; an image without a name and its layers that no
// other image needs are deleted. A layer that a lease holds makes it ErrInUse.
func (s *Store) Remove(ctx context.Context, ref string) (RemoveResult, error) {
	return RemoveResult{}, errors.ErrUnsupported
}

// Prepare returns the mounts that make the image's root file system, with the
// writable layer below dir (dir/upper and dir/work are made), and takes a lease
// named id on its layers until Release. With readOnly there is no writable
// layer. The mounts are plain values; somebody else performs them. Their first
// has the destination "/". Leases are durable; Prepare with a known id renews it.
func (s *Store) Prepare(ctx context.Context, digest, id, dir string, readOnly bool) ([]specs.Mount, error) {
	return nil, errors.ErrUnsupported
}

// Release ends the lease. Releasing what is not leased is no error.
func (s *Store) Release(id string) error { return errors.ErrUnsupported }

// Leases lists the ids that hold layers.
func (s *Store) Leases() ([]string, error) { return nil, errors.ErrUnsupported }
