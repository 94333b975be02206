package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/supervisor/internal/room"
)

// lazyDelay is how long a lazy change may stay in memory.
const lazyDelay = 200 * time.Millisecond

// Store is an open state file. It is safe for concurrent use.
type Store struct {
	db *bolt.DB

	mu   sync.Mutex
	lazy map[change]json.RawMessage // not written yet
	// there are the records that the file holds, as far as lazy deletions must
	// know: one that never got there needs no deletion.
	there map[change]bool
	err   error // of the last lazy write

	writing sync.Mutex // held over a transaction, so that changes keep their order

	wake   chan struct{}
	ending sync.Once
	stop   chan struct{}
	done   chan struct{}
}

// Open opens or makes the file and brings it to the current version, after a
// copy of what was there.
func Open(path string) (*Store, error) { return openWith(path, migrations) }

func openWith(path string, steps []migration) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", path, err)
	}
	if err := migrate(db, path, steps); err != nil {
		db.Close()
		return nil, fmt.Errorf("state %s: %w", path, err)
	}
	reserve(db)
	s := &Store{db: db, lazy: map[change]json.RawMessage{}, there: map[change]bool{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go s.flusher()
	return s, nil
}

// spare is how much of the disk the file has beyond what it uses. A full disk would
// otherwise refuse the change that stops or removes what has filled it.
const spare = 1 << 20

// reserve takes the room. A file system that cannot give any is as it was.
func reserve(db *bolt.DB) {
	var used int64
	if db.View(func(tx *bolt.Tx) error { used = tx.Size(); return nil }) != nil {
		return
	}
	f, err := os.OpenFile(db.Path(), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Fallocate(int(f.Fd()), 0, 0, used+spare)
}

// Load reads everything.
func (s *Store) Load() (Everything, error) {
	all := Everything{Units: map[string]Unit{}, Revisions: map[string][]Revision{},
		Attempts: map[string]Attempts{}, Files: map[string]File{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.db.View(func(tx *bolt.Tx) error {
		return errors.Join(
			each(s, tx, bucketUnits, func(u Unit) { all.Units[u.Name] = u }),
			// Keys are in order of number, so the slices are too.
			each(s, tx, bucketRevisions, func(r Revision) { all.Revisions[r.Unit] = append(all.Revisions[r.Unit], r) }),
			each(s, tx, bucketAttempts, func(a Attempts) { all.Attempts[a.Instance] = a }),
			each(s, tx, bucketFiles, func(f File) { all.Files[f.Path] = f }),
		)
	})
	return all, err
}

func each[T any](s *Store, tx *bolt.Tx, bucket string, f func(T)) error {
	return tx.Bucket([]byte(bucket)).ForEach(func(k, raw []byte) error {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("%s %q: %w", bucket, k, err)
		}
		s.there[change{bucket, string(k)}] = true
		f(v)
		return nil
	})
}

// Commit writes the batch, and what waits lazily, and returns once both are on
// disk. After an error nothing of the batch is there.
func (s *Store) Commit(b *Batch) error {
	if b.err != nil {
		return b.err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	lazy := s.take()
	changes := maps.Clone(lazy)
	maps.Copy(changes, b.changes)
	if err := s.write(changes); err != nil {
		s.putBack(lazy)
		return room.Explain(fmt.Errorf("state %s: %w", s.db.Path(), err), filepath.Dir(s.db.Path()))
	}
	return nil
}

// Later writes the batch soon; a loss is harmless.
func (s *Store) Later(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.err != nil {
		s.err = b.err
	}
	for c, raw := range b.changes {
		if raw == nil && !s.there[c] {
			delete(s.lazy, c)
			continue
		}
		s.lazy[c] = raw
	}
	if len(s.lazy) > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Flush writes what waits.
func (s *Store) Flush() error { return s.Commit(&Batch{}) }

// Err is why the latest lazy write failed; nil if it did not. It is tried again.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close writes what waits and closes the file.
func (s *Store) Close() error {
	s.end()
	err := s.Flush()
	return errors.Join(err, s.db.Close())
}

// Abandon closes the file as a killed process would: what waits is lost.
func (s *Store) Abandon() error {
	s.end()
	return s.db.Close()
}

func (s *Store) end() {
	s.ending.Do(func() { close(s.stop) })
	<-s.done
}

func (s *Store) flusher() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		t := time.NewTimer(lazyDelay)
		select {
		case <-s.stop:
			t.Stop()
			return
		case <-t.C:
		}
		err := s.Flush()
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		if err != nil {
			s.Later(&Batch{}) // wakes again
		}
	}
}

// take empties lazy for a write. What is on its way to the file counts as
// there, so that a deletion meanwhile is not lost.
func (s *Store) take() map[change]json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	lazy := s.lazy
	s.lazy = map[change]json.RawMessage{}
	for c, raw := range lazy {
		if raw != nil {
			s.there[c] = true
		}
	}
	return lazy
}

// putBack keeps for the next try what has not been changed since.
func (s *Store) putBack(lazy map[change]json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, raw := range lazy {
		if _, newer := s.lazy[c]; !newer {
			s.lazy[c] = raw
		}
	}
}

func (s *Store) write(changes map[change]json.RawMessage) error {
	if len(changes) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for c, raw := range changes {
			b := tx.Bucket([]byte(c.bucket))
			var err error
			if raw == nil {
				err = b.Delete([]byte(c.key))
			} else {
				err = b.Put([]byte(c.key), raw)
			}
			if err != nil {
				return fmt.Errorf("%s %q: %w", c.bucket, c.key, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, raw := range changes {
		if raw == nil {
			delete(s.there, c)
		} else {
			s.there[c] = true
		}
	}
	return nil
}
