package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/layer"
	"github.com/wherry-run/wherry/image/internal/registry"
)

const (
	maxConnections     = 8 // that fetch blobs
	maxHostConnections = 6 // of one registry
)

// layersAtOnce is how many layers are unpacked at a time. One keeps a core busy
// with decompression and a good part of another one with the rest, but not all the
// time; and each takes some ten MiB of memory.
func layersAtOnce() int { return max(3, min(8, runtime.GOMAXPROCS(0))) }

// Store holds images. It is safe for concurrent use; one process owns Root.
type Store struct {
	root     string
	platform Platform
	log      *slog.Logger
	backoff  func(attempt int) time.Duration

	reserve int64                           // Options.Reserve
	statfs  func(string) (disk.Stat, error) // of root's file system

	registries atomic.Pointer[registries]

	lock    *os.File
	blobs   *blob.Store
	layers  *layer.Store
	sync    *disk.Syncer
	slots   chan struct{} // layers being unpacked
	flights flights
	room    *room

	connections *blob.Connections // that fetch blobs

	holds func(context.Context) ([]Hold, error) // Options.Holds

	progress func() // Options.Progress
	now      func() time.Time
	sizes    sizes

	vouched vouched
	seals   *seals

	verifying sync.Mutex // held by a Verify
	suspects  suspects   // after a power cut
	idle      idle       // work that nobody waits for

	chosen func() Form // of new layers

	mu   sync.Mutex
	idx  *index.Index   // one that is in use never changes, the next takes its place
	pins map[string]int // blobs and layers that running pulls need
	gc   sweeping
}

// Open opens or makes a store, and removes what an interrupted pull left.
func Open(o Options) (_ *Store, err error) {
	if o.Root == "" {
		return nil, errors.New("image store: no root given")
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		root: root, platform: o.Platform.or(HostPlatform()),
		log: o.Logger, backoff: backoff, reserve: o.Reserve, statfs: disk.StatFS,
		holds: o.Holds, progress: o.Progress, now: time.Now, gc: sweeping{doomed: map[string]chan struct{}{}},
		sync: &disk.Syncer{Path: root}, slots: make(chan struct{}, layersAtOnce()), flights: flights{m: map[string]*flight{}}, pins: map[string]int{},
	}
	s.room = newRoom(root, o.Reserve, func(path string) (disk.Stat, error) { return s.statfs(path) })
	s.connections = blob.NewConnections(maxConnections, maxHostConnections)
	how := newRegistries(o, s.wait)
	if how.err != nil {
		return nil, fmt.Errorf("image store: %w", how.err)
	}
	s.registries.Store(how)
	s.vouched.path = trustPath(root)
	s.seals = newSeals(root, o.Logger)
	if s.chosen, err = chooseForm(o.Form, root, o.Logger); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	images := filepath.Join(root, "images")
	// Others may have folders below the root that a container's user has to
	// pass; what is the store's own is closed.
	if err := errors.Join(os.MkdirAll(root, 0o711), os.MkdirAll(images, 0o700)); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if s.lock, err = lockFile(filepath.Join(images, "lock")); err != nil {
		return nil, fmt.Errorf("image store %s: %w", root, err)
	}
	defer func() {
		if err != nil {
			_ = unlock(s.lock)
		}
	}()
	if s.idx, err = index.Open(images); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if s.blobs, err = blob.Open(filepath.Join(root, "blobs")); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if s.layers, err = layer.OpenStore(filepath.Join(root, "layers"), o.Logger); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if err = errors.Join(s.afterBoot(images), s.dropRetired()); err != nil {
		s.layers.Close()
		return nil, fmt.Errorf("image store: %w", err)
	}
	s.idle.start(s.seal, s.checkSuspects)
	return s, nil
}

// lockFile takes the lock and writes our process id into it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		return nil, fmt.Errorf("%w: process %s has it", ErrLocked, strings.TrimSpace(string(pid)))
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}

// Close releases the lock on Root. No pull may be running. Deleted layers whose
// files are not gone yet are left to the next Open.
func (s *Store) Close() error {
	s.idle.stop()
	s.layers.Close()
	return errors.Join(s.closeBoot(), unlock(s.lock))
}

// unlock gives the lock up at once: a child of ours that has not executed its program yet
// has a copy of the descriptor, and the lock is the open file's, see flock(2).
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// Platform is what an image is made for.
type Platform struct{ OS, Architecture, Variant string }

// Progress is one step of one layer (or of the image, with Layer empty).
type Progress struct {
	Image string `json:"image"`
	Layer string `json:"layer,omitempty"` // the blob's digest
	Step  string `json:"step"`            // resolve, fetch, unpack, commit, exists, done
	Done  int64  `json:"done,omitempty"`  // compressed bytes so far
	Total int64  `json:"total,omitempty"`

	// Of the image only: the download's rate, and how long it will still take
	// at that rate. 0: not known yet.
	Rate int64         `json:"rate,omitempty"` // bytes per second
	Left time.Duration `json:"left,omitempty"` // nanoseconds
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

	// Stale says that a pull with policy newer got no answer from the registry,
	// and that this is what was there already.
	Stale bool `json:"stale,omitempty"`
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
	ErrNotFound = registry.ErrNotFound
	ErrInUse    = errors.New("image is in use")
	ErrInvalid  = errors.New("invalid image reference")
	ErrCorrupt  = errors.New("content does not match its digest")
)
