package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// pieceSize is how much is moved at a time.
const pieceSize = 256 << 10

type piece [pieceSize]byte

var pieces = sync.Pool{New: func() any { return new(piece) }}

// Reader reads a download from the start, as the bytes come. Bytes are not
// verified before Wait has returned.
type Reader struct {
	d    *Download
	ctx  context.Context // of one reader, whose Read cannot take one
	off  int64           // of the next byte
	told atomic.Int64    // off, for others
	user bool            // its waiting means that the download is too slow for somebody
}

// Reader returns a new reader from the first byte on. It is good until Leave.
func (d *Download) Reader(ctx context.Context) *Reader { return d.reader(ctx, true) }

func (d *Download) reader(ctx context.Context, user bool) *Reader {
	return &Reader{d: d, ctx: ctx, user: user}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.available()
	if err != nil || n == 0 || len(p) == 0 {
		return 0, err
	}
	p = p[:min(int64(len(p)), n)]
	m, err := r.d.file.ReadAt(p, r.off)
	r.off += int64(m)
	r.told.Store(r.off)
	if errors.Is(err, io.EOF) && m < len(p) {
		return m, fmt.Errorf("blob %s was cut at %d bytes", r.d.digest, r.off)
	}
	return m, ignoreEOF(err)
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// WriteTo implements io.WriterTo. It holds no buffer while it waits.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if _, err := r.available(); err != nil {
			return total, ignoreEOF(err)
		}
		n, err := r.writePiece(w)
		total += n
		if err != nil {
			return total, err
		}
	}
}

func (r *Reader) writePiece(w io.Writer) (int64, error) {
	buf := pieces.Get().(*piece)
	defer pieces.Put(buf)
	n, err := r.Read(buf[:])
	if n > 0 {
		if _, werr := w.Write(buf[:n]); werr != nil {
			return int64(n), werr
		}
	}
	return int64(n), err
}

// Offset is how much has been read. Any goroutine may ask.
func (r *Reader) Offset() int64 { return r.told.Load() }

// available waits until there is something to read, and says how much.
func (r *Reader) available() (int64, error) {
	d := r.d
	if r.off >= d.size {
		return 0, io.EOF
	}
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if n := d.have.reach(r.off) - r.off; n > 0 {
			return n, nil
		}
		if d.wake == nil {
			d.wake = make(chan struct{})
		}
		wake, start := d.wake, time.Now()
		if r.user {
			d.conns.waiting++
		}
		d.mu.Unlock()
		err := d.nap(r.ctx, wake)
		d.mu.Lock()
		if r.user {
			d.conns.waiting--
			d.conns.starved += time.Since(start)
		}
		if err != nil {
			return 0, err
		}
	}
}

// nap returns when the download has gone on, or why it does not.
func (d *Download) nap(ctx context.Context, wake <-chan struct{}) error {
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.done:
	}
	select {
	case <-wake: // both at once: what came is still good
		return nil
	default:
	}
	if d.err != nil {
		return d.err
	}
	return io.ErrUnexpectedEOF // cannot be: it is done when all is there
}
