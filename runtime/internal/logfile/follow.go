package logfile

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Pauses between looks: without a watch (the folder is not there yet, or the
// user has no inotify instance left), and with one, in case the kernel has
// dropped events.
const (
	pollEvery  = 200 * time.Millisecond
	checkEvery = 5 * time.Second
)

// watch tells when something has changed in a log's folder.
type watch struct {
	path    string
	file    *os.File // inotify; nil: polling
	changed chan struct{}
	look    func()      // called when a segment may have come; nil: nobody
	created atomic.Bool // a segment has come
	ended   chan struct{}
}

func newWatch(path string, look func()) *watch {
	w := &watch{path: path, changed: make(chan struct{}, 1), look: look}
	w.open()
	return w
}

func (w *watch) open() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return
	}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(w.path), events); err != nil {
		unix.Close(fd)
		return
	}
	w.file = os.NewFile(uintptr(fd), "log-events")
	w.ended = make(chan struct{})
	go w.read(w.file, w.ended)
}

// close ends the watch. The kernel takes some 10 ms for the last close of an
// inotify instance, which nobody needs to wait for: the end of a run's output
// would come that much later.
func (w *watch) close() {
	if w.file != nil {
		go w.file.Close() // ends read
		w.file = nil
	}
}

// read turns the kernel's events into signals until the file is closed or the
// folder is gone.
func (w *watch) read(f *os.File, ended chan struct{}) {
	defer func() {
		close(ended) // first, so that whoever is woken sees it
		w.signal()
	}()
	buf := make([]byte, 4<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		hit, created, gone := w.sort(buf[:n])
		if created {
			if w.look != nil {
				w.look()
			}
			w.created.Store(true)
		}
		if gone {
			return
		}
		if hit || created {
			w.signal()
		}
	}
}

func (w *watch) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// sort looks at a batch of events of the folder.
func (w *watch) sort(b []byte) (hit, created, gone bool) {
	base := filepath.Base(w.path)
	for len(b) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		end := min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])))
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
		b = b[end:]
		switch {
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0:
			gone = true
		case mask&unix.IN_Q_OVERFLOW != 0:
			created = true
		case !strings.HasPrefix(name, base): // another container's log
		case mask&unix.IN_MODIFY != 0:
			hit = true
		default:
			created = true
		}
	}
	return hit, created, gone
}

// wait returns when there may be more to read. relist says that there may be a
// new segment, last that done was closed.
func (w *watch) wait(ctx context.Context, done <-chan struct{}) (relist, last bool, err error) {
	pause := checkEvery
	if w.file == nil {
		pause = pollEvery
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, false, ctx.Err()
	case <-done:
		return true, true, nil
	case <-w.changed:
		relist = w.created.Swap(false)
	case <-timer.C:
		relist = true
	}
	if w.file != nil {
		select {
		case <-w.ended: // the folder is gone; another may come
			w.close()
			relist = true
		default:
		}
	}
	if w.file == nil {
		w.open() // before the look that follows
		relist = true
	}
	return relist, false, nil
}
