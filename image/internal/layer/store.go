package layer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// What stands in the folder of a layer.
const (
	diffName     = "diff"        // the files, in the form of a folder
	imageName    = "layer.erofs" // the image, in the form EROFS
	mountName    = "mnt"         // an empty folder to mount it at
	manifestName = "manifest"
	infoName     = "layer.json"
)

// Info stands beside a layer, in layer.json.
type Info struct {
	Form       Form      `json:"form,omitempty"` // empty in old stores: Folder
	DiffID     string    `json:"diff_id"`
	Chain      string    `json:"chain,omitempty"` // if Dependent: the chain it was made for
	Dependent  bool      `json:"dependent,omitempty"`
	Size       int64     `json:"size"` // bytes of file content
	Entries    int       `json:"entries"`
	Root       *RootMeta `json:"root,omitempty"`
	OpaqueRoot bool      `json:"opaque_root,omitempty"`
}

// Store keeps layers. On disk, below its folder:
//
//	KEY/                a layer; whole and synced if it is there
//	KEY/layer.json      Info
//	KEY/manifest        what is in it, with checksums; not in layers of old stores
//	KEY/diff/           form folder: its files
//	KEY/layer.erofs     form EROFS: the image, and
//	KEY/mnt/            an empty folder to mount it at
//	empty/              an empty folder
//	tmp/                layers being unpacked; emptied by OpenStore
//	retired/            layers that were replaced while containers used them: KEY-N
//	trash/              deleted layers; removed in the background
//
// KEY is the hex of the layer's diff ID, or, for a layer that depends on the
// ones below it, of its chain ID.
type Store struct {
	dir string
	log *slog.Logger

	trash  chan struct{} // says that there is something to delete
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// OpenStore makes the folders, removes what an interrupted unpack left and
// goes on deleting.
func OpenStore(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, trash: make(chan struct{}, 1)}
	for _, sub := range []string{"tmp", "trash"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	stale, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		return nil, err
	}
	for _, e := range stale {
		if err := s.discard(filepath.Join(dir, "tmp", e.Name())); err != nil {
			return nil, err
		}
	}
	err = os.Mkdir(s.Empty(), 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := os.Chmod(s.Empty(), 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.done.Go(func() { s.collect(ctx) })
	s.kick()
	return s, nil
}

// Close stops deleting; what is left is for the next OpenStore.
func (s *Store) Close() {
	s.cancel()
	s.done.Wait()
}

// Empty is the path of an empty folder.
func (s *Store) Empty() string { return filepath.Join(s.dir, "empty") }

// Diff is the path of a layer's files in the form of a folder.
func (s *Store) Diff(key string) string { return filepath.Join(s.dir, key, diffName) }

// Image is the path of the image file of a layer in the form EROFS, and Mount the
// folder for it.
func (s *Store) Image(key string) string { return filepath.Join(s.dir, key, imageName) }

// Mount is the empty folder at which a layer of the form EROFS is to be mounted.
func (s *Store) Mount(key string) string { return filepath.Join(s.dir, key, mountName) }

// Get returns a layer that is there. Form is set.
func (s *Store) Get(key string) (Info, bool) {
	var i Info
	b, err := os.ReadFile(filepath.Join(s.dir, key, infoName))
	if err != nil || json.Unmarshal(b, &i) != nil {
		return Info{}, false
	}
	if i.Form == "" {
		i.Form = Folder
	}
	return i, true
}

// Find returns the key of the layer that is right at this place of a chain.
func (s *Store) Find(diffID, chain string) (key string, ok bool) {
	key = Key(diffID)
	if i, ok := s.Get(key); ok && (!i.Dependent || i.Chain == chain) {
		return key, true
	}
	key = Key(chain)
	i, ok := s.Get(key)
	return key, ok && i.Dependent && i.Chain == chain
}

// Key is the folder name for a digest.
func Key(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// List returns the keys of all layers.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range entries {
		if len(e.Name()) == 64 {
			keys = append(keys, e.Name())
		}
	}
	return keys, nil
}

// Remove takes a layer out of sight at once; its files go in the background.
func (s *Store) Remove(key string) (int64, error) {
	i, _ := s.Get(key)
	if err := s.discard(filepath.Join(s.dir, key)); err != nil {
		return 0, err
	}
	return i.Size, disk.SyncDir(s.dir)
}

// discard moves a folder to the trash.
func (s *Store) discard(path string) error {
	// One step, to a name that nobody has: a folder made for it would look like trash itself.
	to := filepath.Join(s.dir, "trash", rand.Text())
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	s.kick()
	return nil
}

func (s *Store) kick() {
	select {
	case s.trash <- struct{}{}:
	default:
	}
}

// collect deletes what is in the trash whenever it is kicked.
func (s *Store) collect(ctx context.Context) {
	dir := filepath.Join(s.dir, "trash")
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.trash:
		}
		entries, err := os.ReadDir(dir)
		var g errgroup.Group
		g.SetLimit(deleters())
		for _, e := range entries {
			g.Go(func() error {
				if ctx.Err() != nil {
					return nil
				}
				return disk.RemoveAll(filepath.Join(dir, e.Name()))
			})
		}
		if err = errors.Join(err, g.Wait()); err != nil {
			s.log.Warn("deleting a layer", "err", err)
		}
	}
}

// deleters is how many layers are deleted at a time. Names in different folders hinder each
// other little: two cores on ext4 take two thirds of the time of one, and a disk has more
// to order.
func deleters() int { return max(2, min(4, runtime.GOMAXPROCS(0))) }
