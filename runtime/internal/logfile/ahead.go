package logfile

import (
	"cmp"
	"os"
	"slices"
	"sync"
)

// maxAhead is how many segments are held for a reader that is slower than the
// writer: what they take on disk is free only once it has read them.
const maxAhead = 1024

// ahead holds the segments that a reader has not come to, so that rotation takes
// none away from it. It looks whenever the folder gets a new file, also while the reader
// waits for whoever takes its records.
type ahead struct {
	list   func() ([]segment, error)
	fileOf func(segment) string

	mu     sync.Mutex
	passed uint64 // the reader is here
	held   map[uint64]holding
	closed bool
}

type holding struct {
	segment
	file *os.File
}

// look holds what has come.
func (a *ahead) look() {
	segs, err := a.list()
	if err != nil {
		return // the reader's own look will say so
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range segs {
		if _, ok := a.held[s.seq]; ok || a.closed || s.seq <= a.passed || s.seq == 0 || len(a.held) >= maxAhead {
			continue
		}
		if f, err := os.Open(a.fileOf(s)); err == nil {
			a.held[s.seq] = holding{s, f}
		}
	}
}

// with is segs and what is held although it is gone.
func (a *ahead) with(segs []segment) []segment {
	a.mu.Lock()
	defer a.mu.Unlock()
	for seq, h := range a.held {
		if !slices.ContainsFunc(segs, func(s segment) bool { return s.seq == seq }) {
			segs = append(segs, h.segment)
		}
	}
	slices.SortFunc(segs, func(x, y segment) int { return cmp.Compare(x.seq, y.seq) })
	return segs
}

// take gives the reader a segment that is held, nil if it is not, and lets go of those before it.
func (a *ahead) take(seq uint64) (f *os.File) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.passed = max(a.passed, seq)
	for s, h := range a.held {
		switch {
		case s == seq:
			f = h.file
		case s > seq:
			continue
		default:
			h.file.Close()
		}
		delete(a.held, s)
	}
	return f
}

func (a *ahead) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.held {
		h.file.Close()
	}
	a.held, a.closed = nil, true
}
