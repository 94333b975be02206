package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/index"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// What the store names is on the disk before it gets its name; a power cut takes
// nothing of it, as long as disk and file system keep their word. After one nobody
// believes them blindly: Open looks at everything that can be looked at without
// reading the content of files, and layers that were made since the boot before are
// read once more, against their manifests, before a container gets them.

// bootRecord is images/boot.json: how the store was left.
type bootRecord struct {
	Boot   string    `json:"boot"`           // kernel's name for the time since its start
	Since  time.Time `json:"since"`          // first Open in that boot
	Closed bool      `json:"closed"`         // by Close
	Doubt  time.Time `json:"doubt,omitzero"` // layers made since then were not read yet
	path   string
}

var bootIDPath = "/proc/sys/kernel/random/boot_id"

func currentBoot() string {
	b, _ := os.ReadFile(bootIDPath) // unknown: as if each Open came after a power cut
	return strings.TrimSpace(string(b))
}

func readBootRecord(images string) (r bootRecord, known bool) {
	path := filepath.Join(images, "boot.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bootRecord{path: path}, false
	}
	if err != nil || json.Unmarshal(b, &r) != nil {
		r = bootRecord{}
	}
	r.path = path
	return r, true
}

func (r bootRecord) save() error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return disk.WriteFile(r.path, append(b, '\n'), 0o600)
}

// afterBoot finds out whether the store was left in order, and looks at it if not.
func (s *Store) afterBoot(images string) error {
	last, known := readBootRecord(images)
	now := bootRecord{Boot: currentBoot(), Since: s.now().UTC(), Doubt: last.Doubt, path: last.path}
	switch {
	case now.Boot != "" && now.Boot == last.Boot: // the kernel has kept what was not synced
		now.Since = last.Since
		if s.idx.Recovered != "" {
			s.log.Error("the list of images was damaged", "err", s.idx.Recovered)
		}
	case last.Closed && s.idx.Recovered == "":
	default:
		if err := s.afterPowerCut(); err != nil {
			return err
		}
		if known && (now.Doubt.IsZero() || last.Since.Before(now.Doubt)) {
			now.Doubt = last.Since
			if now.Doubt.IsZero() {
				now.Doubt = time.Unix(0, 0).UTC() // the record was damaged: doubt all
			}
		}
	}
	s.suspects.boot = now
	if !now.Doubt.IsZero() {
		if err := s.suspect(now.Doubt); err != nil {
			return err
		}
	}
	if now == last {
		return nil
	}
	return s.suspects.boot.save()
}

// closeBoot notes that the store was left in order.
func (s *Store) closeBoot() error {
	s.suspects.mu.Lock()
	defer s.suspects.mu.Unlock()
	s.suspects.boot.Closed = true
	return s.suspects.boot.save()
}

// afterPowerCut looks at all that images need, and drops what is not whole: the next
// pull, or the next start, makes it again.
func (s *Store) afterPowerCut() error {
	if s.idx.Recovered != "" {
		s.log.Error("the list of images was damaged by a power cut", "err", s.idx.Recovered)
	}
	if _, err := s.leasesLocked(); err != nil { // logs and drops what was cut off
		return err
	}
	next, dropped := s.idx.Clone(), false
	looked := map[string]bool{}
	for _, digest := range slices.Sorted(maps.Keys(s.idx.Images)) {
		rec := s.idx.Images[digest]
		if s.progress != nil {
			s.progress()
		}
		if err := s.lookAtImage(rec); err != nil {
			s.log.Warn("dropped an image that a power cut has damaged", "image", s.titleLocked(rec), "digest", digest, "err", err)
			delete(next.Images, digest)
			for _, name := range next.NamesOf(digest) {
				delete(next.Names, name)
			}
			dropped = true
			continue
		}
		for _, l := range rec.Layers {
			if looked[l.Key] {
				continue
			}
			looked[l.Key] = true
			if err := s.lookAtLayer(rec, l); err != nil {
				return err
			}
		}
	}
	for name, digest := range next.Names {
		if _, ok := next.Images[digest]; !ok {
			s.log.Warn("dropped the name of an image that is not there", "image", name, "digest", digest)
			delete(next.Names, name)
			dropped = true
		}
	}
	if !dropped {
		return nil
	}
	if err := next.Save(); err != nil {
		return err
	}
	s.idx = next
	return nil
}

// lookAtImage reads manifest and config, both small. Without its config an image is
// of no use; a manifest is for saving it, and Verify can fetch it again.
func (s *Store) lookAtImage(rec index.Image) error {
	if _, err := s.blobs.Read(rec.Digest); err != nil {
		s.log.Warn("a power cut has damaged a manifest; verify with repair fetches it again", "image", s.titleLocked(rec), "digest", rec.Digest, "err", err)
	}
	b, err := s.blobs.Read(rec.ConfigID)
	if err == nil {
		_, _, err = configOf(b)
	}
	if err != nil {
		return fmt.Errorf("config %s: %w", rec.ConfigID, err)
	}
	return nil
}

// lookAtLayer looks at a layer and its blob without reading content.
func (s *Store) lookAtLayer(rec index.Image, l index.Layer) error {
	if size, ok := s.blobs.Size(l.Digest); ok && size != l.Size {
		s.log.Warn("dropped a compressed layer that a power cut has cut", "image", s.titleLocked(rec), "layer", l.Digest, "size", size, "want", l.Size)
		if err := s.blobs.Drop(l.Digest); err != nil {
			return err
		}
	}
	what := s.outside(l.Key, l.DiffID)
	if what == "" {
		err := s.layers.Look(l.Key)
		if err == nil {
			return nil
		}
		what = err.Error()
	}
	s.log.Warn("dropped a layer that a power cut has damaged", "image", s.titleLocked(rec), "layer", l.DiffID, "err", what)
	s.suspects.add(l.Key, true)
	return s.layers.Quarantine(l.Key, false)
}

// suspects are layers that are not to be used before they were looked at.
type suspects struct {
	mu   sync.Mutex
	boot bootRecord
	m    map[string]*suspect // by key
}

// suspect is one of them.
type suspect struct {
	turn sync.Mutex // held by who looks
	gone bool       // it was damaged, and has to be made again
}

func (s *suspects) add(key string, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]*suspect{}
	}
	if s.m[key] == nil {
		s.m[key] = &suspect{gone: gone}
	}
}

func (s *suspects) get(key string) *suspect {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key]
}

func (s *suspects) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.m))
}

// clear takes a layer off the list. With the last one the doubt is over.
func (s *suspects) clear(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
	if len(s.m) > 0 || s.boot.Doubt.IsZero() {
		return nil
	}
	s.boot.Doubt = time.Time{}
	return s.boot.save()
}

// slack is for clocks that were set in between.
const slack = time.Hour

// suspect notes the layers that were made since then.
func (s *Store) suspect(since time.Time) error {
	keys, err := s.layers.List()
	for _, key := range keys {
		if made, ok := s.layers.Made(key); ok && made.After(since.Add(-slack)) {
			s.suspects.add(key, false)
		}
	}
	return err
}

// trusted looks at the suspects among an image's layers. What was damaged is made again
// from the compressed layer if that is there, without a network.
func (s *Store) trusted(ctx context.Context, digest string) error {
	rec, ok := s.index().Images[digest]
	if !ok {
		return nil
	}
	for i, l := range rec.Layers {
		if p := s.suspects.get(l.Key); p != nil {
			if err := s.clearUp(ctx, p, rec, i); err != nil {
				return fmt.Errorf("layer %s: %w", l.DiffID, err)
			}
		}
	}
	return nil
}

func (s *Store) clearUp(ctx context.Context, p *suspect, rec index.Image, at int) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	l := rec.Layers[at]
	if s.suspects.get(l.Key) != p {
		return nil // somebody else has
	}
	if !p.gone {
		good, err := s.readSuspect(ctx, l.Key, l.DiffID)
		if err != nil {
			return err
		}
		p.gone = !good
	}
	if p.gone {
		if _, ok := s.layers.Get(l.Key); !ok { // a pull may have made it
			if _, ok := s.blobs.Size(l.Digest); !ok {
				return ErrDamaged
			}
			if err := s.remake(ctx, rec, at); err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			s.log.Info("made a damaged layer again", "layer", l.DiffID)
		}
	}
	return s.suspects.clear(l.Key)
}

// readSuspect compares a layer with its manifest, and drops it if it differs.
func (s *Store) readSuspect(ctx context.Context, key, diffID string) (good bool, err error) {
	n := 0
	_, err = s.layers.Examine(ctx, key, layer.Watch{Report: func(path, what string) {
		if n++; n <= 10 { // of many, the first say enough
			s.log.Warn("a power cut has damaged a layer", "layer", diffID, "path", path, "err", what)
		}
	}})
	switch {
	case errors.Is(err, layer.ErrNoManifest):
		return true, nil // nothing to compare it with: of an old store
	case errors.Is(err, layer.ErrManifest):
		n++
	case err != nil:
		return false, err
	}
	if n == 0 {
		return true, nil
	}
	keep, err := s.leased(key)
	if err != nil {
		return false, err
	}
	return false, s.layers.Quarantine(key, keep)
}

// checkDelay is how long after Open idle time begins.
const checkDelay = time.Minute

// checkSuspects looks at the suspects that nobody has asked for yet.
func (s *Store) checkSuspects(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(checkDelay):
	}
	runtime.LockOSThread() // and it ends with the goroutine
	const whoProcess, classIdle = 1, 3 << 13
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle)
	s.checkAll(ctx)
}

func (s *Store) checkAll(ctx context.Context) {
	for _, key := range s.suspects.keys() {
		p := s.suspects.get(key)
		if p == nil {
			continue
		}
		rec, at, ok := s.imageWith(key)
		err := error(nil)
		if ok {
			err = s.clearUp(ctx, p, rec, at)
		} else { // of no image: a pull that finds it will be glad
			err = s.checkLoose(ctx, p, key)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("checking a layer after a power cut", "layer", key, "err", err)
		}
	}
}

func (s *Store) checkLoose(ctx context.Context, p *suspect, key string) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if _, ok := s.layers.Get(key); ok && s.suspects.get(key) == p {
		if _, err := s.readSuspect(ctx, key, "sha256:"+key); err != nil {
			return err
		}
	}
	return s.suspects.clear(key)
}

func (s *Store) imageWith(key string) (rec index.Image, at int, ok bool) {
	for _, rec := range s.index().Images {
		for i, l := range rec.Layers {
			if l.Key == key {
				return rec, i, true
			}
		}
	}
	return index.Image{}, 0, false
}

// idle is what the store does by itself while it is open.
type idle struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (i *idle) start(jobs ...func(context.Context)) {
	var ctx context.Context
	ctx, i.cancel = context.WithCancel(context.Background())
	for _, job := range jobs {
		i.done.Go(func() { job(ctx) })
	}
}

func (i *idle) stop() {
	i.cancel()
	i.done.Wait()
}
