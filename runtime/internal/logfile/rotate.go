package logfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ensure makes a segment if there is none for the run.
func (w *Writer) ensure() error {
	if w.f != nil && w.cur.run == w.run {
		return nil
	}
	return w.newSegment()
}

// seal ends the current segment.
func (w *Writer) seal() {
	if w.f == nil {
		return
	}
	w.f.Close()
	w.f = nil
	w.sealed = append(w.sealed, w.cur)
	w.sealedSize += w.cur.size
	w.cur = segment{seq: w.cur.seq}
}

// newSegment seals the current segment and opens the next. If it cannot be
// made, the old one stays current and the next write tries again.
func (w *Writer) newSegment() error {
	next := segment{seq: w.cur.seq, run: w.run}
	for {
		next.seq++
		next.name = segmentName(w.base, next.seq, next.run)
		f, err := os.OpenFile(filepath.Join(w.dir, next.name), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o640)
		if errors.Is(err, fs.ErrNotExist) { // somebody removed the folder
			if err = os.MkdirAll(w.dir, 0o750); err == nil {
				next.seq--
				continue
			}
		}
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		w.seal()
		w.f, w.cur = f, next
		// A link that cannot be made (the disk is full) is no reason to lose
		// output: check makes it later.
		w.linked = link(w.path, w.cur.name) == nil
		w.drop()
		return nil
	}
}

// drop removes old segments until the log fits into its bounds. Where there
// are too many files, short ones go first: a crash loop shall not push out the
// history of what ran well before it.
func (w *Writer) drop() {
	for len(w.sealed) > 0 && w.sealedSize+w.cur.size > w.budget {
		w.remove(0)
	}
	for len(w.sealed)+1 > maxSegments {
		victim := 0
		for i, s := range w.sealed {
			if s.size < w.maxSize/64 {
				victim = i
				break
			}
		}
		w.remove(victim)
	}
}

func (w *Writer) remove(i int) {
	os.Remove(filepath.Join(w.dir, w.sealed[i].name)) // what cannot be removed is found again by the next Open
	w.sealedSize -= w.sealed[i].size
	w.sealed = append(w.sealed[:i], w.sealed[i+1:]...)
}

// check looks, once a second of output, whether somebody has removed or emptied the file
// by hand, which people do when a disk is full.
func (w *Writer) check() {
	if w.f == nil {
		return
	}
	st, err := w.f.Stat()
	if err != nil {
		return
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Nlink == 0 {
		w.f.Close()
		w.f = nil
		w.cur.size = 0
		return
	}
	w.cur.size = st.Size()
	if !w.linked {
		w.linked = link(w.path, w.cur.name) == nil
	}
}
