// Package exits keeps how containers ended, for people: a bounded number of
// records per instance, which outlive the runs they tell of.
//
// Read first: Store.
//
// What it does not do: decide anything. Whether and when something is started
// again comes from package state.
//
// On disk (DIR is root/exits):
//
//	DIR/UNIT/INSTANCE/TIME-ID.json   one api.ExitRecord; TIME is when it began, in nanoseconds
//
// Invariants:
//   - A record is whole or absent. Writing the same end twice gives one record.
//   - At most Keep records and Bytes of an instance; the oldest go first, never the newest.
package exits

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Bounds of what is kept.
const (
	Keep      = 10
	Bytes     = 512 << 10
	MaxLines  = 200      // of output in one record
	MaxOutput = 64 << 10 // bytes of it
)

// Store is the records of all units. It is safe for concurrent use.
type Store struct {
	dir string

	mu sync.Mutex // one who writes or deletes at a time
}

// New makes a store of what is in dir, which need not exist.
func New(dir string) *Store { return &Store{dir: dir} }

// Put keeps r.
func (s *Store) Put(r *api.ExitRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.of(r.Unit, r.Instance)
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep exit of %s: %w", r.Run, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep exit: %w", err)
	}
	began := r.StartedAt
	if began.IsZero() {
		began = r.At
	}
	id := r.Run
	if r.Container != "" {
		id += "." + r.Container
	}
	name := fmt.Sprintf("%020d-%s.json", began.UnixNano(), id)
	if err := write(filepath.Join(dir, name), b); err != nil {
		return fmt.Errorf("keep exit: %w", err)
	}
	return prune(dir, name, fmt.Sprintf("%020d", time.Now().Add(clockSlack).UnixNano()))
}

// clockSlack is how far ahead of the clock a start may lie. What lies further ahead is of
// before the clock was set back, and goes first: it would outlive all that comes.
const clockSlack = time.Minute

// write leaves nothing behind if it fails.
func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".exit-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// prune keeps to the bounds, and removes what a writer that was killed has left. The record
// that was just written stays, and what sorts after future goes first.
func prune(dir, written, future string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	rank := func(e os.DirEntry) int {
		switch {
		case e.Name() == written:
			return 0
		case e.Name() < future:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int { // the newest first
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(b.Name(), a.Name()))
	})
	count, size := 0, int64(0)
	for _, e := range entries {
		whole := strings.HasSuffix(e.Name(), ".json") && e.Name()[0] != '.'
		if info, err := e.Info(); err == nil && whole {
			count, size = count+1, size+info.Size()
		}
		if !whole || count > Keep || count > 1 && size > Bytes {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// of is the folder of an instance.
func (s *Store) of(unit, instance string) (string, error) {
	for _, name := range []string{unit, instance} {
		if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
			return "", fmt.Errorf("exits: %q is no name", name)
		}
	}
	return filepath.Join(s.dir, unit, instance), nil
}

// List returns what is kept of a unit, the newest end first, or of one instance of it.
// What cannot be read is left out.
func (s *Store) List(unit, instance string) ([]api.ExitRecord, error) {
	pattern := "*"
	if instance != "" {
		pattern = instance
	}
	dir, err := s.of(unit, pattern)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "[0-9]*.json"))
	if err != nil {
		return nil, err
	}
	list := []api.ExitRecord{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		var r api.ExitRecord
		if err == nil && json.Unmarshal(b, &r) == nil {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b api.ExitRecord) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Instance, b.Instance))
	})
	return list, nil
}

// Forget deletes all of a unit.
func (s *Store) Forget(unit string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.of(unit, "x")
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Dir(dir))
}
