package disk

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxDelay bounds how long a sync waits for writers that are still busy.
const maxDelay = 2 * time.Second

// Syncer writes everything of one file system to the disk. A sync in the
// middle of heavy writing slows both down several times over, because the file
// system's journal has to stop and take all in. So a sync waits a while for
// the writers that have said that they are busy, and calls that come while one
// waits or runs share the next one: many layers, one sync.
type Syncer struct {
	Path string

	run sync.Mutex // held by the sync under way

	mu   sync.Mutex
	next *round
	busy int
	idle chan struct{} // closed when busy becomes 0; nil if nobody waits
}

type round struct {
	done chan struct{}
	err  error
}

// Busy is a writer whose work a sync should wait for.
type Busy struct {
	s    *Syncer
	once sync.Once
}

// Begin says that a writer is busy until End or Sync.
func (s *Syncer) Begin() *Busy {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
	return &Busy{s: s}
}

// End says that the writer has nothing to sync. After Sync it does nothing.
func (b *Busy) End() {
	b.once.Do(func() {
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		b.s.endLocked()
	})
}

// Sync ends the writer's work and returns when it is on disk.
func (b *Busy) Sync() error { return b.s.sync(b) }

// Sync returns when all that was written before the call is on disk.
func (s *Syncer) Sync() error { return s.sync(nil) }

func (s *Syncer) endLocked() {
	s.busy--
	if s.busy == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

func (s *Syncer) sync(b *Busy) error {
	s.mu.Lock()
	r, leader := s.next, false
	if r == nil {
		r, leader = &round{done: make(chan struct{})}, true
		s.next = r
	}
	if b != nil { // only now: the sync that waits for us must be ours too
		b.once.Do(s.endLocked)
	}
	s.mu.Unlock()
	if !leader {
		<-r.done
		return r.err
	}
	s.run.Lock()
	s.waitIdle()
	s.mu.Lock()
	s.next = nil // who comes from here on may write after this sync's start
	s.mu.Unlock()
	r.err = syncfs(s.Path)
	s.run.Unlock()
	close(r.done)
	return r.err
}

func (s *Syncer) waitIdle() {
	s.mu.Lock()
	if s.busy == 0 {
		s.mu.Unlock()
		return
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(maxDelay):
	}
}

func syncfs(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
