package logfile

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// list returns the segments of the wanted run, also those that are only held.
func (r *reader) list() ([]segment, error) {
	if r.ahead == nil {
		return r.listed()
	}
	r.ahead.look()
	segs, err := r.listed()
	return r.ahead.with(segs), err
}

func (r *reader) listed() ([]segment, error) {
	segs, err := list(r.path)
	if r.o.Run != "" {
		segs = slices.DeleteFunc(segs, func(s segment) bool { return s.run != r.o.Run })
	}
	return segs, err
}

// bound notes where the log ends now: a container that writes faster than we
// read would keep us for ever.
func (r *reader) bound(segs []segment) {
	if len(segs) == 0 {
		return
	}
	last := segs[len(segs)-1]
	if st, err := os.Stat(r.fileOf(last)); err == nil {
		r.end = Place{last.seq, st.Size()}
	}
}

// begin leaves out what After, Tail and Since do not want and sets the first
// offset.
func (r *reader) begin(segs []segment) ([]segment, error) {
	segs, err := r.beginAfter(segs)
	if err != nil {
		return nil, err
	}
	if r.o.Tail > 0 {
		return r.beginTail(segs)
	}
	if r.o.Since.IsZero() {
		return segs, nil
	}
	// A segment ends before the next one begins.
	for len(segs) > 1 {
		first, ok := r.firstTime(segs[1])
		if !ok || first.After(r.o.Since) {
			break
		}
		segs, r.off = segs[1:], 0
	}
	return segs, nil
}

// beginAfter leaves out what lies before After. A log that ends before it is
// another one by the same name.
func (r *reader) beginAfter(segs []segment) ([]segment, error) {
	after := r.o.After
	if after == (Place{}) || len(segs) == 0 || segs[len(segs)-1].seq < after.Segment {
		r.o.After = Place{}
		return segs, nil
	}
	for segs[0].seq < after.Segment {
		segs = segs[1:]
	}
	if after.Segment == 0 { // the plain file, which a writer may have made the first segment
		after.Segment = segs[0].seq
	}
	if segs[0].seq == after.Segment && r.holds(segs[0], after.Offset) {
		r.off = after.Offset
	}
	return segs, r.skipped(segs[0], segs[0].seq-after.Segment)
}

// holds tells whether a record ends at offset: the segment may have been emptied
// since somebody was there.
func (r *reader) holds(s segment, offset int64) bool {
	if offset == 0 {
		return true
	}
	f, err := os.Open(r.fileOf(s))
	if err != nil {
		return false
	}
	defer f.Close()
	var b [1]byte
	n, _ := f.ReadAt(b[:], offset-1)
	return n == 1 && b[0] == '\n'
}

func (r *reader) firstTime(s segment) (time.Time, bool) {
	f, err := os.Open(r.fileOf(s))
	if err != nil {
		return time.Time{}, false
	}
	defer f.Close()
	var head [64]byte
	n, _ := io.ReadFull(f, head[:])
	stamp, _, ok := bytes.Cut(head[:n], []byte{' '})
	if !ok {
		return time.Time{}, false
	}
	var p parser
	return p.time(stamp)
}

func (r *reader) fileOf(s segment) string { return filepath.Join(filepath.Dir(r.path), s.name) }
