package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"
)

// ReadOptions select what Read yields. The zero value is everything that is
// there.
type ReadOptions struct {
	Follow bool      // wait for more until ctx ends or Done is closed
	Tail   int       // only the last n lines; 0 or less: all
	Since  time.Time // only records of this time or later
	Until  time.Time // only records of this time or earlier; zero: all
	Run    string    // only this run's records; empty: all
	After  Place     // only what comes behind it; Tail does not go back further than to it

	// Done, if set, ends a Follow: once it is closed, what is in the files is
	// still yielded, then the iteration ends.
	Done <-chan struct{}

	// Whole has a Follow miss nothing from its first look on, however slowly it is
	// taken: files that rotation deletes are held, and take space, until they are read. What is
	// missed all the same is ErrMissed.
	Whole bool
}

// ErrMissed says that a log was rotated away before it could be read.
var ErrMissed = errors.New("files were rotated away before they could be read")

// Read yields the records of the log at path, oldest first. It holds no lock
// and never touches the files, so that a writer neither waits for it nor knows
// of it. A log that is not there yields nothing, or is waited for. A record's
// Text is valid until the next step.
func Read(ctx context.Context, path string, o ReadOptions) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r := &reader{path: path, o: o, yield: yield, buf: make([]byte, blockSize)}
		defer r.close()
		err := r.run(ctx)
		switch {
		case err == nil, errors.Is(err, errStopped):
		case o.Follow && ctx.Err() != nil && errors.Is(err, ctx.Err()): // how following ends
		default:
			yield(Record{}, fmt.Errorf("log %s: %w", path, err))
		}
	}
}

// blockSize is how much is read at once; a longer line makes the buffer grow to
// maxBlock, beyond which it cannot be a record.
const (
	blockSize = 64 << 10
	maxBlock  = 1 << 20
)

// errStopped says that the caller wants no more.
var errStopped = errors.New("stopped")

// reader is one run through a log. It knows its place by sequence number and
// offset, which stay true whatever is renamed or removed.
type reader struct {
	path  string
	o     ReadOptions
	yield func(Record, error) bool
	parse parser

	seg  segment  // the one being read
	file *os.File // nil: none yet
	off  int64    // behind the last record yielded
	buf  []byte

	end   Place  // without Follow: what was written later is not waited for
	first []byte // how the segment began when it was last looked at
	live  bool   // what was there at the start has been yielded

	ahead *ahead // with Whole
}

func (r *reader) close() {
	if r.ahead != nil {
		r.ahead.close()
	}
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

func (r *reader) run(ctx context.Context) error {
	var w *watch
	if r.o.Follow {
		var look func()
		if r.o.Whole {
			r.ahead = &ahead{list: r.listed, fileOf: r.fileOf, held: map[uint64]holding{}}
			look = r.ahead.look
		}
		w = newWatch(r.path, look) // before the first look: what comes after it is seen
		defer w.close()
	}
	segs, err := r.list()
	if err != nil {
		return err
	}
	if !r.o.Follow {
		r.bound(segs)
	}
	if segs, err = r.begin(segs); err != nil {
		return err
	}
	for last := !r.o.Follow; ; {
		if err := r.pass(ctx, segs); err != nil || last {
			return err
		}
		r.live = true
		relist := false
		if relist, last, err = w.wait(ctx, r.o.Done); err != nil {
			return err
		}
		segs = nil
		if relist || last {
			if segs, err = r.list(); err != nil {
				return err
			}
		}
	}
}

// pass yields what has come since the last pass: the rest of the segment being
// read and then those of segs that come after it, in order. A segment that has
// a successor in segs is complete, because segs was listed before it is read.
func (r *reader) pass(ctx context.Context, segs []segment) error {
	if r.file != nil {
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	for _, s := range segs {
		if r.file != nil && s.seq <= r.seg.seq {
			continue
		}
		if err := r.enter(s); errors.Is(err, fs.ErrNotExist) {
			if r.file == nil {
				r.off = 0 // it was meant for this one
			}
			if r.ahead != nil {
				return ErrMissed
			}
			continue // rotated away since it was listed
		} else if err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// enter goes on to another segment.
func (r *reader) enter(s segment) error {
	f, err := r.open(s)
	if err != nil {
		return err
	}
	if r.file == nil {
		r.seg, r.file = s, f
		return nil // off is what begin has set
	}
	if r.seg.seq == 0 && sameFile(r.file, f) { // a writer has adopted the plain file
		r.seg = s
		return f.Close()
	}
	was := r.seg.seq
	r.file.Close()
	r.seg, r.file, r.off, r.first = s, f, 0, nil
	if r.live || r.o.Whole {
		return r.skipped(s, s.seq-was-1)
	}
	return nil
}

func (r *reader) open(s segment) (*os.File, error) {
	if r.ahead != nil {
		if f := r.ahead.take(s.seq); f != nil {
			return f, nil
		}
	}
	return os.Open(r.fileOf(s))
}

// skipped tells the caller of segments between what it has seen and s that are
// not there any more.
func (r *reader) skipped(s segment, missing uint64) error {
	if missing == 0 || r.o.Run != "" {
		return nil
	}
	if r.o.Whole {
		return ErrMissed
	}
	note := fmt.Sprintf("wherry: %s of this log were rotated away before they could be shown here", count(int64(missing), "file"))
	if !r.yield(Record{Time: r.parse.last, Stream: Stderr, Run: s.run, Text: []byte(note), At: Place{Segment: s.seq}}, nil) {
		return errStopped
	}
	return nil
}

func sameFile(a, b *os.File) bool {
	sa, err := a.Stat()
	if err != nil {
		return false
	}
	sb, err := b.Stat()
	return err == nil && os.SameFile(sa, sb)
}

// drain yields the whole records from the offset to the end of the segment.
// What follows the last newline is read again the next time: it may be the
// first half of a write, or be cut off by the writer.
func (r *reader) drain(ctx context.Context) error {
	fill := 0
	for {
		n, err := r.file.ReadAt(r.upTo(fill), r.off+int64(fill))
		if err != nil && err != io.EOF {
			return err
		}
		if emptied, err := r.emptied(); err != nil {
			return err
		} else if emptied {
			r.off, fill = 0, 0
			continue
		}
		fill += n
		used, yerr := r.yieldAll(r.buf[:fill])
		if used == 0 && fill == len(r.buf) {
			if fill < maxBlock {
				r.buf = append(r.buf, make([]byte, len(r.buf))...)
			} else { // no record is so long: the file is damaged
				used = fill
				yerr = r.give(Record{Time: r.parse.last, Stream: Stderr, Partial: true, Text: r.buf[:fill]}, used)
			}
		}
		r.off += int64(used)
		fill = copy(r.buf, r.buf[used:fill])
		if yerr != nil {
			return yerr
		}
		if n == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// upTo is the free part of the buffer, as far as there is something to read
// into it.
func (r *reader) upTo(fill int) []byte {
	free := r.buf[fill:]
	if r.o.Follow || r.seg.seq != r.end.Segment {
		return free
	}
	left := r.end.Offset - r.off - int64(fill)
	return free[:min(max(left, 0), int64(len(free)))]
}

// emptied tells whether somebody has emptied the file by hand. It may have grown
// beyond where we are since; but then it begins with another record.
func (r *reader) emptied() (bool, error) {
	if !r.o.Follow {
		return false, nil
	}
	st, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	var head [stampLen]byte
	n, err := r.file.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	was := r.first
	r.first = append([]byte(nil), head[:n]...)
	return st.Size() < r.off || len(was) > n || !bytes.Equal(was, head[:len(was)]), nil
}

// yieldAll yields the whole records in b and returns their length.
func (r *reader) yieldAll(b []byte) (used int, err error) {
	for {
		i := bytes.IndexByte(b[used:], '\n')
		if i < 0 {
			return used, nil
		}
		line := b[used : used+i]
		used += i + 1
		if err := r.give(r.parse.parse(line), used); err != nil {
			return used, err
		}
	}
}

// give yields a record that ends used bytes behind the offset.
func (r *reader) give(rec Record, used int) error {
	if !r.o.Since.IsZero() && rec.Time.Before(r.o.Since) || !r.o.Until.IsZero() && rec.Time.After(r.o.Until) {
		return nil
	}
	rec.Run, rec.At = r.seg.run, Place{r.seg.seq, r.off + int64(used)}
	if !r.yield(rec, nil) {
		return errStopped
	}
	return nil
}
