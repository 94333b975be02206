package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// loss counts the output that could not be written.
type loss struct {
	lines, bytes int64
	streams      [2]bool
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
	return fmt.Appendf(buf, "wherry: %s (%s) were lost here: %s\n",
		count(w.lost.lines, "line"), count(w.lost.bytes, "byte"), reason(w.lost.cause))
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
