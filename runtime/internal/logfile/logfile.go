package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Defaults of Open.
const (
	DefaultMaxSize = 10 << 20
	DefaultMaxFile = 3
)

// maxSegments bounds the number of files, which a container that crashes at
// once, again and again, would otherwise make: a run has a segment of its own.
const maxSegments = 128

// flushAt is how many bytes of records are gathered before they are written. A
// piece as pipes give it (up to 64 KiB) goes out in one write, unless it is
// made of very short lines.
const flushAt = 192 << 10

// buffers are shared by all writers: a host has hundreds of quiet containers,
// and the collector takes the buffers back after a burst.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// Writer appends a container's output to its log file in the CRI log format
// and rotates it. It is not safe for concurrent use by itself.
type Writer struct {
	path    string
	base    string
	dir     string
	maxSize int64
	budget  int64 // of all segments together

	run    string // what follows belongs to
	cur    segment
	f      file // nil: the next write makes a segment
	linked bool // path points to cur

	sealed     []segment // oldest first
	sealedSize int64

	stamp stamp
	open  [2]bool // the stream's last record was partial
	lost  loss
	bad   int64 // the second in which a damaged segment was last given up
}

// file is what a Writer needs of an *os.File opened for appending; a test can
// make it fail.
type file interface {
	io.WriteCloser
	Stat() (os.FileInfo, error)
	Truncate(size int64) error
}

// Open opens or makes the file at path for appending. What a crash left after the last
// whole record is cut off first. Zero sizes mean the defaults (10 MiB, 3 files).
// The file appears with the first write.
func Open(path string, maxSize int64, maxFile int) (*Writer, error) {
	if maxSize <= 0 {
		maxSize = DefaultMaxSize
	}
	if maxFile <= 0 {
		maxFile = DefaultMaxFile
	}
	w := &Writer{
		path: path, dir: filepath.Dir(path), base: filepath.Base(path),
		maxSize: maxSize, budget: maxSize * int64(maxFile),
	}
	if w.budget/int64(maxFile) != maxSize {
		return nil, fmt.Errorf("log %s: %d files of %d bytes are too many", path, maxFile, maxSize)
	}
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return nil, fmt.Errorf("log %s: %w", path, err)
	}
	if err := w.adopt(); err != nil {
		return nil, fmt.Errorf("log %s: %w", path, err)
	}
	return w, nil
}

// adopt takes over what an earlier writer left.
func (w *Writer) adopt() error {
	segs, err := list(w.path)
	if err != nil || len(segs) == 0 {
		return err
	}
	if segs[0].seq == 0 {
		segs[0].seq, segs[0].name = 1, segmentName(w.base, 1, "")
		if err := os.Rename(w.path, filepath.Join(w.dir, segs[0].name)); err != nil {
			return err
		}
	}
	last := len(segs) - 1
	for _, s := range segs[:last] {
		if st, err := os.Stat(filepath.Join(w.dir, s.name)); err == nil {
			s.size = st.Size()
			w.sealed = append(w.sealed, s)
			w.sealedSize += s.size
		}
	}
	w.cur = segs[last]
	w.run = w.cur.run
	f, err := os.OpenFile(filepath.Join(w.dir, w.cur.name), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if w.cur.size, err = repair(f); err != nil {
		f.Close()
		return err
	}
	w.f = f
	w.linked = link(w.path, w.cur.name) == nil
	w.drop()
	return nil
}

// repair cuts off what a crash left after the last whole record. The keeper
// discards a piece of output only after it is written, so that a piece cut
// short by its death is written again.
func repair(f *os.File) (size int64, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	good, err := lastRecordEnd(f, end)
	if err != nil || good == end {
		return end, err
	}
	return good, f.Truncate(good)
}

// lastRecordEnd is the offset behind the last newline before end, or 0.
func lastRecordEnd(f io.ReaderAt, end int64) (int64, error) {
	buf := make([]byte, 4<<10)
	for end > 0 {
		n := min(int64(len(buf)), end)
		if _, err := f.ReadAt(buf[:n], end-n); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

// StartRun says that what follows belongs to run; it starts a new segment if
// the last one belongs to another run.
func (w *Writer) StartRun(run string, at time.Time) error {
	if err := checkRun(w.base, run); err != nil {
		return err
	}
	if run == w.run {
		return nil
	}
	w.settle(at)
	w.run = run
	w.open = [2]bool{}
	return nil
}

// Write turns a piece of raw output of stream ("stdout", "stderr") into
// records. A piece that does not end with a newline gives a partial record.
// On a full disk (or any write error) the piece is dropped and counted; as soon as writing works
// again a record of stream "stderr" says how many lines and bytes are missing. It never blocks
// for longer than the disk does and never loses the position of later records.
//
// An error tells that dropping has begun. While it lasts, Write returns nil: one
// message is enough for whoever logs it.
func (w *Writer) Write(stream string, at time.Time, p []byte) error {
	idx, ok := streamIndex(stream)
	if !ok {
		return fmt.Errorf("log %s: no stream %q", w.path, stream)
	}
	if len(p) == 0 {
		return nil
	}
	if w.stamp.set(at) {
		w.check()
	}
	losing := w.lost.any()
	err := w.settle(at)
	if err == nil {
		err = w.write(stream, idx, p)
	} else {
		w.lost.raw(idx, p, err)
	}
	if err == nil {
		return nil
	}
	w.lost.during(at, at)
	w.abandon(err)
	if losing {
		return nil
	}
	return fmt.Errorf("log %s: %w", w.path, err)
}

// Close ends the file. If something was lost, a last attempt is made to say so.
func (w *Writer) Close() error {
	w.settle(time.Now())
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("log %s: %w", w.path, err)
	}
	return nil
}

// write makes records of p and writes them. What it cannot write it counts.
func (w *Writer) write(stream string, idx int, p []byte) error {
	if err := w.ensure(); err != nil {
		w.lost.raw(idx, p, err)
		return err
	}
	full, part := w.stamp.head(stream, false), w.stamp.head(stream, true)
	pooled := buffers.Get().(*[]byte)
	buf := (*pooled)[:0]
	defer func() { *pooled = buf[:0]; buffers.Put(pooled) }()

	for len(p) > 0 {
		text, rest, whole := cutLine(p)
		rec := headLen + len(text) + 1
		rotate := w.cur.size+int64(len(buf)+rec) > w.maxSize && w.cur.size+int64(len(buf)) > 0
		if rotate || len(buf)+rec > flushAt {
			err := w.flush(idx, buf)
			buf = buf[:0]
			if err == nil && rotate {
				err = w.newSegment()
			}
			if err != nil {
				w.lost.raw(idx, p, err)
				return err
			}
		}
		if whole {
			buf = append(buf, full[:]...)
		} else {
			buf = append(buf, part[:]...)
		}
		buf = append(buf, text...)
		buf = append(buf, '\n')
		p = rest
	}
	return w.flush(idx, buf)
}

// cutLine takes the next record's text off p.
func cutLine(p []byte) (text, rest []byte, whole bool) {
	n := min(len(p), maxText+1)
	if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
		return p[:i], p[i+1:], true
	}
	n = min(n, maxText)
	return p[:n], p[n:], false
}

// flush writes whole records. If not all of them fit, those that do stay, the
// rest is counted as lost and no part of a record remains.
func (w *Writer) flush(idx int, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	n, err := w.f.Write(buf)
	if err == nil {
		w.cur.size += int64(n)
		w.open[idx] = lastIsPartial(buf)
		w.drop()
		return nil
	}
	good := bytes.LastIndexByte(buf[:n], '\n') + 1
	if good > 0 {
		w.cur.size += int64(good)
		w.open[idx] = lastIsPartial(buf[:good])
	}
	if torn := n - good; torn > 0 {
		w.cutTorn(int64(torn))
	}
	w.lost.records(idx, buf[good:], err)
	return err
}

// lastIsPartial looks at the last of some whole records.
func lastIsPartial(buf []byte) bool {
	start := bytes.LastIndexByte(buf[:len(buf)-1], '\n') + 1
	return buf[start+headLen-2] == 'P'
}

// abandon ends a segment that cannot be written because its place on the disk is
// damaged: another one may be sound. At most one a second, or a disk that is
// broken altogether would fill the folder with empty ones.
func (w *Writer) abandon(err error) {
	if errors.Is(err, syscall.EIO) && w.stamp.second != w.bad {
		w.bad = w.stamp.second
		w.seal()
	}
}

// cutTorn takes the last n bytes off the file. If even that fails, the segment
// ends here: readers ignore what is no whole line.
func (w *Writer) cutTorn(n int64) {
	st, err := w.f.Stat()
	if err == nil {
		err = w.f.Truncate(max(0, st.Size()-n))
	}
	if err != nil {
		w.seal()
	}
}

func streamIndex(stream string) (int, bool) {
	switch stream {
	case Stdout:
		return streamOut, true
	case Stderr:
		return streamErr, true
	}
	return 0, false
}
