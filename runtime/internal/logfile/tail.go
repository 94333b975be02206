package logfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// beginTail finds the place from which the wanted number of lines is left, by
// reading backwards from the end.
func (r *reader) beginTail(segs []segment) ([]segment, error) {
	t := tailer{left: r.o.Tail, until: r.o.Until, after: r.o.After}
	for i := len(segs) - 1; i >= 0; i-- {
		if i < len(segs)-1 && segs[i].run != segs[i+1].run {
			t.begun = false // a line ends with its run
		}
		t.seq = segs[i].seq
		off, found, err := t.search(r.fileOf(segs[i]))
		if errors.Is(err, fs.ErrNotExist) { // rotated away: so are all before it
			return segs[i+1:], nil
		}
		if err != nil {
			return nil, err
		}
		if found {
			r.off = off
			return segs[i:], nil
		}
	}
	return segs, nil
}

// tailer counts lines backwards. A line may be several partial records and one
// that ends it; at the end of a run the one that ends it may be missing.
type tailer struct {
	left  int
	until time.Time // later ones do not count; zero: all do
	after Place     // nor those before it
	seq   uint64    // of the segment being searched
	begun bool      // the run's last record has been seen
	parse parser
}

// record takes the record before those seen so far and tells whether it
// belongs to a line too many.
func (t *tailer) record(line []byte) (tooMany bool) {
	if !t.until.IsZero() && t.parse.parse(line).Time.After(t.until) {
		return false
	}
	ends := !t.begun || !isPartial(line)
	t.begun = true
	if !ends {
		return false
	}
	t.left--
	return t.left < 0
}

// before tells whether a record that ends at offset is one that the caller has
// seen.
func (t *tailer) before(offset int64) bool {
	return t.seq == t.after.Segment && offset <= t.after.Offset
}

// search looks for the first record that is wanted in one segment.
func (t *tailer) search(name string) (off int64, found bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	end, err := lastRecordEnd(f, st.Size())
	if err != nil {
		return 0, false, err
	}
	wanted := end // behind which all is wanted
	for buf := make([]byte, blockSize); end > 0; {
		b := buf[:min(int64(len(buf)), end)]
		start := end - int64(len(b))
		if _, err := f.ReadAt(b, start); err != nil && err != io.EOF {
			return 0, false, err
		}
		low := 0
		if start > 0 { // the first line is cut: it comes with the next block
			low = bytes.IndexByte(b, '\n') + 1
			if low == 0 || low == len(b) {
				if len(buf) < maxBlock {
					buf = make([]byte, 2*len(buf))
				} else { // no record is so long: this is part of a damaged one
					end = start
				}
				continue
			}
		}
		for high := len(b); high > low; {
			line := bytes.LastIndexByte(b[low:high-1], '\n') + 1 + low
			if t.before(start+int64(high)) || t.record(b[line:high-1]) {
				return wanted, true, nil
			}
			wanted = start + int64(line)
			high = line
		}
		end = start + int64(low)
	}
	return 0, false, nil
}
