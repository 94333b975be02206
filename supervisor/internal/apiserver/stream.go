package apiserver

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Content types of the two kinds of streams.
const (
	framesType = "application/vnd.wherry.frames"
	linesType  = "application/x-ndjson"
)

// maxPending bounds what waits to be sent; a producer waits above it.
const maxPending = 512 << 10

// maxMerged bounds a frame made of several records.
const maxMerged = 128 << 10

// streamWriter sends what is put into it at once, yet without a flush per
// piece: while one batch is on its way, the next gathers. The first piece sends
// the header.
type streamWriter struct {
	w           http.ResponseWriter
	contentType string
	ended       chan struct{} // closed when the sender has sent all

	mu      sync.Mutex
	changed sync.Cond // on mu
	pending []byte
	last    int  // offset in pending of the last frame; -1: none to add to
	started bool // the sender runs
	header  bool // is to be sent now, without anything else
	closed  bool
	err     error // of the connection: everything is dropped from then on
}

func newStream(w http.ResponseWriter, contentType string) *streamWriter {
	s := &streamWriter{w: w, contentType: contentType, last: -1, ended: make(chan struct{})}
	s.changed.L = &s.mu
	return s
}

// begin sends the header and starts the sender; mu is held.
func (s *streamWriter) begin() {
	if s.started {
		return
	}
	s.started = true
	s.w.Header().Set("Content-Type", s.contentType)
	s.w.WriteHeader(http.StatusOK)
	go s.send()
}

// send is the sender: it writes and flushes batches until close.
func (s *streamWriter) send() {
	defer close(s.ended)
	rc := http.NewResponseController(s.w)
	var batch []byte
	for {
		s.mu.Lock()
		for len(s.pending) == 0 && !s.header && !s.closed && s.err == nil {
			s.changed.Wait()
		}
		if len(s.pending) == 0 && !s.header || s.err != nil {
			s.mu.Unlock()
			return
		}
		batch, s.pending, s.last, s.header = s.pending, batch[:0], -1, false
		s.changed.Broadcast()
		s.mu.Unlock()
		_, err := s.w.Write(batch)
		if err == nil {
			err = rc.Flush()
		}
		if err != nil {
			s.mu.Lock()
			s.err, s.pending = err, nil
			s.changed.Broadcast()
			s.mu.Unlock()
		}
	}
}

// open sends the header although there is nothing to send yet. The sender does
// it: nobody else touches the connection once it runs.
func (s *streamWriter) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
	s.header = true
	s.changed.Broadcast()
}

// room waits until there is room, mu held, and reports the connection's error.
func (s *streamWriter) room() error {
	for len(s.pending) > maxPending && s.err == nil {
		s.changed.Wait()
	}
	if s.closed {
		return errClosed // by a straggler: the answer is complete
	}
	return s.err
}

var errClosed = errors.New("stream is closed")

// frame sends one frame, or adds to the last one of the same output stream.
func (s *streamWriter) frame(typ byte, pieces ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(); err != nil {
		return err
	}
	s.begin()
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	merge := typ != api.FrameControl && s.last >= 0 && s.pending[s.last] == typ &&
		len(s.pending)-s.last+n <= maxMerged
	if !merge {
		s.last = len(s.pending)
		s.pending = append(s.pending, typ, 0, 0, 0, 0)
	}
	for _, p := range pieces {
		s.pending = append(s.pending, p...)
	}
	binary.BigEndian.PutUint32(s.pending[s.last+1:], uint32(len(s.pending)-s.last-5))
	s.changed.Broadcast()
	return nil
}

// control sends a control frame.
func (s *streamWriter) control(c api.Control) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.frame(api.FrameControl, b)
}

// line sends v as one line of JSON.
func (s *streamWriter) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(); err != nil {
		return err
	}
	s.begin()
	s.pending = append(append(s.pending, b...), '\n')
	s.changed.Broadcast()
	return nil
}

// offer is line or control for a producer that must not wait: what finds no
// room is dropped.
func (s *streamWriter) offer(send func() error) {
	s.mu.Lock()
	full := len(s.pending) > maxPending/2
	s.mu.Unlock()
	if !full {
		_ = send()
	}
}

// close waits until everything is sent. The handler must not return before.
func (s *streamWriter) close() {
	s.mu.Lock()
	s.closed = true
	started := s.started
	s.changed.Broadcast()
	s.mu.Unlock()
	if started {
		<-s.ended
	}
}
