// Package fan answers one question: how do several readers see one stream at
// the same time, without a copy each and without waiting for each other more
// than a few chunks?
//
// It knows nothing of what the bytes mean. A Fan reads its source in large
// chunks; every Reader gets every chunk, counted by reference, and the chunk
// goes back to a pool when the last one is through with it. A reader that falls
// behind holds the source back once its queue is full: memory is bounded.
package fan

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

const (
	chunkSize = 256 << 10
	queueLen  = 8
)

type chunk struct {
	buf  [chunkSize]byte
	n    int
	refs atomic.Int32
}

var pool = sync.Pool{New: func() any { return new(chunk) }}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		pool.Put(c)
	}
}

// Fan spreads one source over readers.
type Fan struct{ readers []*Reader }

// New makes a fan with n readers.
func New(n int) *Fan {
	f := &Fan{}
	for range n {
		f.readers = append(f.readers, &Reader{ch: make(chan *chunk, queueLen), closed: make(chan struct{})})
	}
	return f
}

// Reader returns the i-th reader. Each is used by one goroutine.
func (f *Fan) Reader(i int) *Reader { return f.readers[i] }

// Run reads src to its end and returns its error, nil at io.EOF. The readers
// then see the end, or the same error. It returns early when ctx ends.
func (f *Fan) Run(ctx context.Context, src io.Reader) error {
	err := f.run(ctx, src)
	for _, r := range f.readers {
		r.end = err
		if err == nil {
			r.end = io.EOF
		}
		close(r.ch)
	}
	return err
}

func (f *Fan) run(ctx context.Context, src io.Reader) error {
	for {
		c := pool.Get().(*chunk)
		n, err := fill(src, c.buf[:])
		c.n = n
		c.refs.Store(int32(len(f.readers)) + 1)
		if n > 0 {
			for _, r := range f.readers {
				if !r.offer(ctx, c) {
					c.release()
				}
			}
		} else {
			c.refs.Store(1)
		}
		c.release()
		if err == io.EOF { // not errors.Is: an error that wraps it is no end
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// fill is io.ReadFull, but keeps the source's own error apart from a short end.
func fill(src io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = src.Read(p[n:])
		n += m
	}
	return n, err
}

// Reader is one of the fan's outputs.
type Reader struct {
	ch     chan *chunk
	closed chan struct{}
	once   sync.Once
	end    error // set before ch is closed
	cur    *chunk
	off    int
}

func (r *Reader) offer(ctx context.Context, c *chunk) bool {
	select {
	case <-r.closed:
		return false
	default:
	}
	select {
	case r.ch <- c:
		return true
	case <-r.closed:
		return false
	case <-ctx.Done():
		return false
	}
}

func (r *Reader) next() bool {
	if r.cur != nil {
		r.cur.release()
		r.cur = nil
	}
	c, ok := <-r.ch
	r.cur, r.off = c, 0
	return ok
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if (r.cur == nil || r.off == r.cur.n) && !r.next() {
		return 0, r.end
	}
	n := copy(p, r.cur.buf[r.off:r.cur.n])
	r.off += n
	return n, nil
}

// WriteTo hands the chunks to w without copying them.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if (r.cur == nil || r.off == r.cur.n) && !r.next() {
			if r.end == io.EOF {
				return total, nil
			}
			return total, r.end
		}
		n, err := w.Write(r.cur.buf[r.off:r.cur.n])
		r.off += n
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Close lets the fan go on without this reader.
func (r *Reader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
