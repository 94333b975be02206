package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// ErrSlow is the cause of what a caller drops rather than wait for the disk.
var ErrSlow = errors.New("the disk was too slow")

// loss counts the output that could not be written.
type loss struct {
	lines, bytes int64
	streams      [2]bool
	from, to     time.Time // of the first and the last of it
	cause        error
}

func (l *loss) any() bool { return l.bytes > 0 }

func (l *loss) add(idx int, lines, bytes int, cause error) {
	if bytes == 0 {
		return
	}
	l.lines += int64(lines)
	l.bytes += int64(bytes)
	l.streams[idx] = true
	l.cause = cause
}

// during widens the time of the loss.
func (l *loss) during(from, to time.Time) {
	if l.from.IsZero() || from.Before(l.from) {
		l.from = from
	}
	if to.After(l.to) {
		l.to = to
	}
}

// Dropped is output that a caller has not given to Write.
type Dropped struct {
	Lines, Bytes int64
	From, To     time.Time
}

// Drop counts output of a stream that the caller could not keep until the disk
// takes it, and marks it in the stream. As with Write, an error tells that no mark can be written
// either, once.
func (w *Writer) Drop(stream string, d Dropped, cause error) error {
	idx, ok := streamIndex(stream)
	if !ok {
		return fmt.Errorf("log %s: no stream %q", w.path, stream)
	}
	losing := w.lost.any()
	if d.Bytes > 0 {
		w.lost.add(idx, int(d.Lines), int(d.Bytes), cause)
		w.lost.during(d.From, d.To)
	}
	if err := w.settle(d.To); err != nil && !losing {
		return fmt.Errorf("log %s: %w", w.path, err)
	}
	return nil
}

// raw counts output that has not become records.
func (l *loss) raw(idx int, p []byte, cause error) {
	l.add(idx, bytes.Count(p, []byte{'\n'}), len(p), cause)
}

// records counts the output in whole records as Write has made them.
func (l *loss) records(idx int, buf []byte, cause error) {
	for len(buf) > headLen {
		end := bytes.IndexByte(buf, '\n')
		if end < headLen {
			return
		}
		if buf[headLen-2] == 'P' {
			l.add(idx, 0, end-headLen, cause)
		} else {
			l.add(idx, 1, end-headLen+1, cause)
		}
		buf = buf[end+1:]
	}
}

// settle writes what is missing into the stream, if anything is. An error
// means that writing still does not work.
func (w *Writer) settle(at time.Time) error {
	if !w.lost.any() {
		return nil
	}
	if err := w.ensure(); err != nil {
		return err
	}
	w.stamp.set(at)
	marker := w.marker()
	if w.cur.size > 0 && w.cur.size+int64(len(marker)) > w.maxSize {
		if err := w.newSegment(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(marker)
	if err != nil {
		// Half a marker is worse than none: it is written whole the next time.
		if n > 0 {
			w.cutTorn(int64(n))
		}
		return err
	}
	w.cur.size += int64(n)
	for idx := range w.open {
		w.open[idx] = w.open[idx] && !w.ends(idx)
	}
	w.lost = loss{}
	w.drop()
	return nil
}

// marker is the record that tells of the loss. A line that was begun and whose
// rest is lost is ended first, or a reader would join it to what comes next.
func (w *Writer) marker() []byte {
	var buf []byte
	for idx, stream := range []string{Stdout, Stderr} {
		if w.open[idx] && w.ends(idx) {
			h := w.stamp.head(stream, false)
			buf = append(append(buf, h[:]...), '\n')
		}
	}
	h := w.stamp.head(Stderr, false)
	buf = append(buf, h[:]...)
	return fmt.Appendf(buf, "wherry: %s (%s) dropped %s: %s\n",
		count(w.lost.lines, "line"), volume(w.lost.bytes), span(w.lost.from, w.lost.to), reason(w.lost.cause))
}

// span is a time of day, or from one to another, in the zone of the records.
func span(from, to time.Time) string {
	const clock, full = time.TimeOnly, "2006-01-02 15:04:05"
	from, to = from.UTC(), to.UTC()
	switch {
	case from.Format(time.DateOnly) != to.Format(time.DateOnly):
		return from.Format(full) + " to " + to.Format(full) + " UTC"
	case from.Format(clock) == to.Format(clock):
		return from.Format(clock) + " UTC"
	}
	return from.Format(clock) + "-" + to.Format(clock) + " UTC"
}

// volume is a number of bytes, for people.
func volume(n int64) string {
	switch {
	case n < 10_000:
		return count(n, "byte")
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}

// ends tells whether the marker ends an open line of the stream: where its rest
// is lost, and on stderr, where the marker itself stands.
func (w *Writer) ends(idx int) bool { return w.lost.streams[idx] || idx == streamErr }

func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// reason is the kernel's word without the file it was about.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
