package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Options bound a Log. Zero means the default.
type Options struct {
	SegmentSize int64         // bytes; 4 MiB
	Segments    int           // files kept; 4
	SyncEvery   time.Duration // 100 ms
}

// Log appends events to segment files. It is safe for concurrent use.
type Log struct {
	dir string
	o   Options

	mu      sync.Mutex
	file    *os.File
	size    int64
	seq     uint64        // of the last event
	dirty   bool          // written since the last sync
	broken  error         // why the last event was not written
	changed chan struct{} // closed by the next Append
	closed  bool

	wake chan struct{} // has something while there may be something to sync
	stop chan struct{}
	done chan struct{}
}

// Open opens or makes the log in dir and repairs its end.
func Open(dir string, o Options) (*Log, error) {
	if o.SegmentSize <= 0 {
		o.SegmentSize = 4 << 20
	}
	if o.Segments <= 0 {
		o.Segments = 4
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = 100 * time.Millisecond
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, o: o, changed: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	if err := l.openLast(); err != nil {
		return nil, fmt.Errorf("events %s: %w", dir, err)
	}
	go l.syncer()
	return l, nil
}

// openLast opens the newest segment and takes the sequence on from its end.
func (l *Log) openLast() error {
	segs, err := segments(l.dir)
	if err != nil {
		return err
	}
	if len(segs) == 0 {
		return l.newSegment()
	}
	last := segs[len(segs)-1]
	size, seq, err := repair(last.path)
	if err != nil {
		return err
	}
	// An empty last segment is named by the number that comes next.
	l.seq = max(seq, last.first-1)
	l.size = size
	l.file, err = os.OpenFile(last.path, os.O_WRONLY|os.O_APPEND|syscall.O_CLOEXEC, 0o600)
	return err
}

func (l *Log) newSegment() error {
	f, err := os.OpenFile(filepath.Join(l.dir, segmentName(l.seq+1)), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size = f, 0
	return nil
}

// Append stores e with the next sequence number, and the time if it has none,
// and returns it. A full disk loses the event, not the number: the next call
// that works tells nothing of it, Err does.
func (l *Log) Append(e api.Event) api.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq = l.seq
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	line, err := json.Marshal(e)
	if err == nil {
		err = l.write(append(line, '\n'))
	}
	l.broken = err
	if err == nil {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return e
}

func (l *Log) write(line []byte) error {
	if l.closed {
		return os.ErrClosed
	}
	if l.size > 0 && l.size+int64(len(line)) > l.o.SegmentSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if _, err := l.file.Write(line); err != nil {
		// Part of the line may stand there; without this the next would be
		// appended to it.
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(line))
	l.dirty = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// rotate begins a segment for the event that is being appended, l.seq.
func (l *Log) rotate() error {
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.seq--
	err := l.newSegment()
	l.seq++
	if err != nil {
		return err
	}
	segs, err := segments(l.dir)
	if err != nil {
		return err
	}
	for len(segs) > l.o.Segments {
		if err := os.Remove(segs[0].path); err != nil {
			return err
		}
		segs = segs[1:]
	}
	return nil
}

// Err is why the latest event could not be written; nil if it was.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Last is the sequence number of the latest event.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// syncer makes what was written durable, in groups. While nothing is written it sleeps.
func (l *Log) syncer() {
	defer close(l.done)
	for {
		select {
		case <-l.stop:
			return
		case <-l.wake:
		}
		select {
		case <-l.stop:
			return
		case <-time.After(l.o.SyncEvery):
			l.sync()
		}
	}
}

// sync works on a descriptor of its own, so that Append goes on meanwhile and
// may even rotate.
func (l *Log) sync() {
	l.mu.Lock()
	if !l.dirty || l.closed {
		l.mu.Unlock()
		return
	}
	l.dirty = false
	path := l.file.Name()
	l.mu.Unlock()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return // rotated away and deleted: nothing to keep
	}
	_ = f.Sync()
	f.Close()
}

// Close syncs and ends the log; readers that follow end.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	err := errors.Join(l.file.Sync(), l.file.Close())
	close(l.changed)
	l.mu.Unlock()
	close(l.stop)
	<-l.done
	return err
}

// Read yields the stored events after seq, then, with follow, new ones as they
// come, until ctx ends or the log is closed.
func (l *Log) Read(ctx context.Context, since uint64, follow bool) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		r := reader{dir: l.dir, last: since}
		defer r.close()
		for {
			l.mu.Lock()
			changed, closed, upTo := l.changed, l.closed, l.seq
			l.mu.Unlock()
			more, err := r.read(ctx, upTo, yield)
			if err != nil {
				yield(api.Event{}, err)
				return
			}
			if !more || !follow || closed {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}
}

type segment struct {
	path  string
	first uint64
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d.jsonl", first) }

// segments lists the files, oldest first.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segs []segment
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), ".jsonl")
		first, err := strconv.ParseUint(stem, 10, 64)
		if !ok || err != nil || first == 0 {
			continue
		}
		segs = append(segs, segment{filepath.Join(dir, e.Name()), first})
	}
	slices.SortFunc(segs, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	return segs, nil
}
