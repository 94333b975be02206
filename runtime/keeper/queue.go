package keeper

import (
	"bytes"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/logfile"
)

// Of a container whose output is dropped rather than that it waits for the disk.
const (
	// defaultQueue is how much output is kept for the disk at most.
	defaultQueue = 1 << 20

	// queuePatience is how long a piece stays in the pipe for the disk to take it. As long as
	// the disk keeps up, nothing is lost if the keeper is killed.
	queuePatience = 10 * time.Millisecond
)

// queue stands between the pipes and a log whose disk may be slow. What it has no room
// for is dropped, counted, and marked at its place.
type queue struct {
	sink  sink
	limit int64
	ended chan struct{} // closed when everything is written

	mu      sync.Mutex
	waiting []queued
	size    int64 // of the text in waiting, and of what is being written
	closed  bool
	kick    chan struct{} // there is something to do
}

// sink is what a queue needs of a log.
type sink interface {
	write(stream string, at time.Time, p []byte)
	drop(stream string, d logfile.Dropped)
}

// queued is a piece of output, or the place of dropped ones.
type queued struct {
	stream  string
	at      time.Time
	text    []byte
	dropped logfile.Dropped
	written chan struct{} // closed when it is
}

func newQueue(s sink, limit int64) *queue {
	if limit <= 0 {
		limit = defaultQueue
	}
	q := &queue{sink: s, limit: limit, ended: make(chan struct{}), kick: make(chan struct{}, 1)}
	go q.run()
	return q
}

// put gives a piece to the disk, and waits a moment for it.
func (q *queue) put(stream string, at time.Time, b []byte) {
	written, wait := q.add(stream, at, b)
	select {
	case q.kick <- struct{}{}:
	default:
	}
	if !wait {
		return
	}
	t := time.NewTimer(queuePatience)
	defer t.Stop()
	select {
	case <-written:
	case <-t.C:
	}
}

// add keeps a copy of a piece or counts it as dropped. Only the first piece that waits is
// worth waiting for: if there are others already, the disk is behind.
func (q *queue) add(stream string, at time.Time, b []byte) (written chan struct{}, wait bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.size > 0 && q.size+int64(len(b)) > q.limit {
		q.count(stream, at, b)
		return nil, false
	}
	wait = q.size == 0
	written = make(chan struct{})
	q.waiting = append(q.waiting, queued{stream: stream, at: at, text: bytes.Clone(b), written: written})
	q.size += int64(len(b))
	return written, wait
}

// count notes a dropped piece behind what is kept.
func (q *queue) count(stream string, at time.Time, b []byte) {
	d := q.lastDropped(stream)
	if d == nil {
		q.waiting = append(q.waiting, queued{stream: stream, dropped: logfile.Dropped{From: at}})
		d = &q.waiting[len(q.waiting)-1].dropped
	}
	d.Lines += int64(bytes.Count(b, []byte{'\n'}))
	d.Bytes += int64(len(b))
	d.To = at
}

// lastDropped is what has been dropped of a stream since the last piece that was kept.
func (q *queue) lastDropped(stream string) *logfile.Dropped {
	for i := len(q.waiting) - 1; i >= 0 && q.waiting[i].text == nil; i-- {
		if q.waiting[i].stream == stream {
			return &q.waiting[i].dropped
		}
	}
	return nil
}

// run writes until the queue is closed and empty.
func (q *queue) run() {
	defer close(q.ended)
	for {
		batch, closed := q.take()
		for _, p := range batch {
			q.write(p)
		}
		if len(batch) > 0 {
			continue
		}
		if closed {
			return
		}
		<-q.kick
	}
}

func (q *queue) take() ([]queued, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.waiting
	q.waiting = nil
	return batch, q.closed
}

func (q *queue) write(p queued) {
	if p.text == nil {
		q.sink.drop(p.stream, p.dropped)
		return
	}
	q.sink.write(p.stream, p.at, p.text)
	close(p.written)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size -= int64(len(p.text))
}

// close waits until everything is written.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	select {
	case q.kick <- struct{}{}:
	default:
	}
	<-q.ended
}
