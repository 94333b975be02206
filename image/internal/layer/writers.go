package layer

import (
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// smallFile is up to where a file is handed to a writer in one piece; larger
// ones are written by the goroutine that reads the archive.
const smallFile = 64 << 10

type smallBuf [smallFile]byte

var smallBufs = sync.Pool{New: func() any { return new(smallBuf) }}

// job is one small file whose name is known to be free.
type job struct {
	dir  *folder
	name string
	node *node // the writer's until it is done
	buf  *smallBuf
}

// writers make small files beside the goroutine that reads the archive: the
// system calls of a file cost more than the parsing of its entry.
type writers struct {
	id   identity
	jobs chan job
	done sync.WaitGroup // the goroutines
	busy sync.WaitGroup // the jobs not yet done
	err  atomic.Pointer[entryError]
}

func newWriters(n int, id identity) *writers {
	w := &writers{id: id, jobs: make(chan job, 32)}
	for range n {
		w.done.Go(func() {
			for j := range w.jobs {
				if w.err.Load() == nil {
					if err := w.write(&j); err != nil {
						w.err.CompareAndSwap(nil, &entryError{j.dir.join(j.name), err})
					}
				}
				smallBufs.Put(j.buf)
				j.dir.refs.Add(-1)
				w.busy.Done()
			}
		})
	}
	return w
}

// add hands over a file; j.dir must be open.
func (w *writers) add(j job) {
	j.dir.refs.Add(1)
	w.busy.Add(1)
	w.jobs <- j
}

// drain waits until all files handed over so far are there.
func (w *writers) drain() error {
	w.busy.Wait()
	return w.failed()
}

func (w *writers) failed() error {
	if err := w.err.Load(); err != nil {
		return err
	}
	return nil
}

func (w *writers) stop() {
	close(w.jobs)
	w.done.Wait()
}

func (w *writers) write(j *job) error {
	fd, err := createFile(j.dir.fd, j.name)
	if err != nil {
		return err
	}
	body := j.buf[:j.node.size]
	j.node.sum = xxhash.Sum64(body)
	if err := writeAll(fd, body); err != nil {
		unix.Close(fd)
		return err
	}
	return finishFile(w.id, fd, j.dir.fd, j.name, j.node)
}

func createFile(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && err != unix.EINTR {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// finishFile gives a written file its attributes and closes it.
func finishFile(id identity, fd, dir int, name string, n *node) error {
	err := id.setOpen(fd, n)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return id.setTimes(dir, name, n)
}
