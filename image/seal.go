package image

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/layer"
	"github.com/wherry-run/wherry/image/internal/verity"
)

// Where the file system has fs-verity, blobs and the images of layers are sealed soon
// after they have got a name in the index: from then on the kernel checks whatever
// is read of them. Sealing reads the whole file, so that pulls do not wait for it.

// seals knows the digests of sealed files, which images/verity.json keeps. It may
// be deleted: then files are sealed, but nobody knows as what.
type seals struct {
	path string
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	file sealFile
}

type sealFile struct {
	Version int               `json:"version"`
	Files   map[string]string `json:"files"` // by blob digest or layer key
}

func newSeals(root string, log *slog.Logger) *seals {
	s := &seals{path: filepath.Join(root, "images", "verity.json"), log: log, wake: make(chan struct{}, 1)}
	b, err := os.ReadFile(s.path)
	if err != nil || json.Unmarshal(b, &s.file) != nil || s.file.Version != 1 || s.file.Files == nil {
		s.file = sealFile{1, map[string]string{}}
	}
	return s
}

// kick says that there may be something to seal.
func (s *seals) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *seals) of(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Files[name]
}

// drop forgets what was replaced.
func (s *seals) drop(name string) {
	s.mu.Lock()
	delete(s.file.Files, name)
	s.mu.Unlock()
	s.kick()
}

// broken tells whether the file was sealed with another digest than it has now. What
// cannot be measured is read anyway.
func (s *seals) broken(name, path string) bool {
	want := s.of(name)
	if want == "" {
		return false
	}
	got, err := verity.Measure(path)
	return err == nil && got != want
}

// seal seals everything that images need, whenever it is kicked, until ctx ends.
func (s *Store) seal(ctx context.Context) {
	if err := verity.Supported(s.root); err != nil {
		s.log.Debug("files are not sealed", "err", err)
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.seals.wake:
		}
		if err := s.sealAll(ctx); err != nil {
			s.log.Warn("sealing files with fs-verity", "err", err)
		}
	}
}

func (s *Store) sealAll(ctx context.Context) error {
	need := map[string]string{} // name to path
	for _, rec := range s.index().Images {
		for _, digest := range []string{rec.Digest, rec.ConfigID} {
			need[digest] = s.blobs.Path(digest)
		}
		for _, l := range rec.Layers {
			need[l.Digest] = s.blobs.Path(l.Digest)
			if info, ok := s.layers.Get(l.Key); ok && info.Form == layer.EROFS {
				need[l.Key] = s.layers.Image(l.Key)
			}
		}
	}
	changed := false
	for name, path := range need {
		if ctx.Err() != nil {
			break
		}
		if s.seals.of(name) != "" {
			continue
		}
		digest, err := verity.Seal(path)
		if err != nil { // busy, gone to make room: another time
			if !errors.Is(err, verity.ErrBusy) && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		changed = true
		s.seals.mu.Lock()
		s.seals.file.Files[name] = digest
		s.seals.mu.Unlock()
	}
	return s.seals.save(need, changed)
}

// save writes down the seals of what is needed, and forgets others.
func (s *seals) save(need map[string]string, changed bool) error {
	s.mu.Lock()
	for name := range s.file.Files {
		if _, ok := need[name]; !ok {
			delete(s.file.Files, name)
			changed = true
		}
	}
	b, err := json.Marshal(s.file)
	s.mu.Unlock()
	if err != nil || !changed {
		return err
	}
	return disk.WriteFile(s.path, append(b, '\n'), 0o600)
}
