package cgroup

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OOM says that the kernel has killed in a group for memory.
type OOM struct {
	Group Group
	Kills uint64 // in the group's whole life
}

// Watcher reports OOM kills of many groups over one descriptor of the kernel's
// and without a thread of its own: on v2 one inotify instance (a user may have
// 128 of them) watches every memory.events; on v1 an epoll instance holds an
// eventfd for each group. It is safe for concurrent use.
type Watcher struct {
	source source
	file   *os.File // the source's descriptor, in the runtime's poller
	events chan OOM
	done   chan struct{}
	ended  chan struct{}
	once   sync.Once

	mu     sync.Mutex // guards what is below
	byKey  map[int32]*watched
	byPath map[string]*watched
}

// watched is one group.
type watched struct {
	key   int32 // the source's name for it
	group Group
	kills uint64
	// looks are left to be taken, the next one at due: v1 signals when memory
	// runs out, which is before the kill is counted.
	looks int
	due   time.Time
}

// source is what differs between the versions.
type source interface {
	add(g Group) (key int32, err error)
	remove(key int32)
	// read takes the next signals off fd without blocking. gone are groups
	// that were removed.
	read(fd int) (hit, gone []int32, err error)
	// looks is how often the count is worth reading after a signal.
	looks() int
}

// lookPauses are the waits between a v1 signal and the looks at the count. Between the two the
// kernel may wait for the kills of other groups, each of which it describes on the console.
var lookPauses = []time.Duration{
	time.Millisecond, 4 * time.Millisecond, 16 * time.Millisecond, 64 * time.Millisecond, 256 * time.Millisecond,
	time.Second, 4 * time.Second, 16 * time.Second, 0,
}

// NewWatcher starts a watcher without groups.
func NewWatcher() (*Watcher, error) {
	h, err := theHost()
	if err != nil {
		return nil, err
	}
	var src source
	var fd int
	if h.mode == Unified {
		src, fd, err = newInotifySource(h)
	} else {
		src, fd, err = newEventfdSource(h)
	}
	if err != nil {
		return nil, fmt.Errorf("watch OOM kills: %w", err)
	}
	w := &Watcher{
		source: src,
		file:   os.NewFile(uintptr(fd), "oom-events"),
		events: make(chan OOM),
		done:   make(chan struct{}),
		ended:  make(chan struct{}),
		byKey:  map[int32]*watched{},
		byPath: map[string]*watched{},
	}
	go w.run()
	return w, nil
}

// Add watches a group from now on. Kills that have already happened are not
// reported. Whoever removes a group calls Remove first: v1 tells of a group's
// end, but v2 does not and would keep its files in memory.
func (w *Watcher) Add(g Group) error {
	kills, err := g.OOMKills()
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
		return g.wrap("watch OOM kills", os.ErrClosed)
	default:
	}
	if old := w.byPath[g.Path]; old != nil {
		w.forget(old)
	}
	key, err := w.source.add(g)
	if err != nil {
		return g.wrap("watch OOM kills", err)
	}
	x := &watched{key: key, group: g, kills: kills, looks: 1} // one look for what came between count and watch
	w.byKey[key], w.byPath[g.Path] = x, x
	w.file.SetReadDeadline(time.Now())
	return nil
}

// Remove ends the watch of a group, if there is one.
func (w *Watcher) Remove(g Group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x := w.byPath[g.Path]; x != nil {
		w.forget(x)
	}
}

// forget is called with mu held.
func (w *Watcher) forget(x *watched) {
	w.source.remove(x.key)
	delete(w.byKey, x.key)
	delete(w.byPath, x.group.Path)
}

// Events are the kills. Several of one group may be reported as one. The
// channel is closed by Close.
func (w *Watcher) Events() <-chan OOM { return w.events }

// Close ends the watcher.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.once.Do(func() { close(w.done) })
	w.file.SetReadDeadline(time.Now())
	w.mu.Unlock()
	<-w.ended
	return nil
}

func (w *Watcher) run() {
	defer close(w.ended)
	defer close(w.events)
	defer w.stop()
	for {
		err := w.wait()
		select {
		case <-w.done:
			return
		default:
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		for _, e := range w.look() {
			select {
			case w.events <- e:
			case <-w.done:
				return
			}
		}
	}
}

func (w *Watcher) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.once.Do(func() { close(w.done) })
	for _, x := range w.byKey {
		w.forget(x)
	}
	w.file.Close()
}

// wait blocks until the kernel signals something, a look is due or a
// deadline was set by Add or Close.
func (w *Watcher) wait() error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		hit, gone, err := w.source.read(int(fd))
		w.signalled(hit, gone)
		rerr = err
		return len(hit)+len(gone) > 0 || err != nil
	})
	return errors.Join(err, rerr)
}

// signalled is called with mu held.
func (w *Watcher) signalled(hit, gone []int32) {
	for _, key := range hit {
		if x := w.byKey[key]; x != nil {
			x.looks, x.due = w.source.looks(), time.Time{}
		}
	}
	for _, key := range gone {
		if x := w.byKey[key]; x != nil {
			w.forget(x)
		}
	}
}

// look reads the counts of the groups that were signalled, and sets the time
// of the next look.
func (w *Watcher) look() []OOM {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []OOM
	var next time.Time
	now := time.Now()
	for _, x := range w.byKey {
		if x.looks > 0 && !x.due.After(now) {
			kills, err := x.group.OOMKills()
			if err != nil {
				w.forget(x)
				continue
			}
			if kills > x.kills {
				x.kills = kills
				found = append(found, OOM{Group: x.group, Kills: kills})
			}
			x.due = now.Add(lookPauses[len(lookPauses)-x.looks])
			x.looks--
		}
		if x.looks > 0 && (next.IsZero() || x.due.Before(next)) {
			next = x.due
		}
	}
	select {
	case <-w.done: // Close has set a deadline of its own
	default:
		w.file.SetReadDeadline(next)
	}
	return found
}

// inotifySource watches memory.events, which the kernel marks as modified.
type inotifySource struct {
	host *host
	fd   int
}

func newInotifySource(h *host) (source, int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	return &inotifySource{host: h, fd: fd}, fd, err
}

func (s *inotifySource) add(g Group) (int32, error) {
	wd, err := unix.InotifyAddWatch(s.fd, s.host.file("memory", g.Path, "memory.events"), unix.IN_MODIFY)
	return int32(wd), err
}

func (s *inotifySource) remove(key int32) { unix.InotifyRmWatch(s.fd, uint32(key)) }
func (s *inotifySource) looks() int       { return 1 }

func (s *inotifySource) read(fd int) (hit, gone []int32, err error) {
	var buf [64 * unix.SizeofInotifyEvent]byte
	n, err := unix.Read(fd, buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	hit, gone = parseInotify(buf[:n])
	return hit, gone, nil
}
