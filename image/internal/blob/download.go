package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// Remote is where the bytes of a blob come from.
type Remote struct {
	// Open reads length bytes from offset on, to the end if length is negative.
	// The stream may start earlier, and go on longer, if the other side cannot do
	// better: at says where it starts. ErrRange: not from this offset.
	Open func(ctx context.Context, offset, length int64) (body io.ReadCloser, at int64, err error)
	// Retry is asked after the n-th failure in a row, from 1. It waits and
	// returns nil, or returns why to give up.
	Retry func(ctx context.Context, n int, err error) error
	// Connections bounds those to Host; nil: no bound.
	Connections *Connections
	Host        string
	// Stall is how long a connection may take for its next slowPiece bytes.
	Stall time.Duration
}

// ErrRange says that a part of a blob cannot be had by itself.
var ErrRange = errors.New("range not satisfiable")

var (
	errStalled   = errors.New("no data from the registry") // or next to none
	errAbandoned = errors.New("nobody waits for it any more")
)

// Download is one blob on its way from a Remote, shared by all who want it. Its
// bytes land in a partial file, in any order and over several connections;
// readers follow as far as there is no hole, and the digest is one of them.
type Download struct {
	s      *Store
	digest string
	hex    string
	size   int64
	remote Remote
	file   *os.File
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it is verified or has failed
	err    error         // set before done is closed
	gone   chan struct{} // closed when another download may begin
	refs   int           // guarded by the store's mu

	mu      sync.Mutex
	part    *partial // nil: the blob is stored already
	have    spans
	claims  []*claim // what connections are at
	resumed int64    // bytes that were there at the start
	fetched int64
	wake    chan struct{} // closed when have grows; nil if nobody waits
	conns   connState
}

// Join begins the download of a blob, goes on with one that was cut off, or
// takes part in the one under way. A blob that is stored is only checked once
// more. Leave must follow.
func (s *Store) Join(ctx context.Context, digest string, size int64, r Remote) (*Download, error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return nil, err
	}
	for {
		s.mu.Lock()
		d := s.active[digest]
		if d == nil {
			d, err = s.begin(ctx, digest, h, size, r)
			s.mu.Unlock()
			return d, err
		}
		if d.refs > 0 && d.size == size {
			d.refs++
			s.mu.Unlock()
			return d, nil
		}
		s.mu.Unlock()
		select {
		case <-d.gone:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Missing is how many bytes of a blob would have to be fetched.
func (s *Store) Missing(digest string, size int64) int64 {
	h, err := CheckDigest(digest)
	if have, ok := s.Size(digest); err != nil || ok && have == size {
		return 0
	}
	s.mu.Lock()
	d := s.active[digest]
	s.mu.Unlock()
	if d != nil && d.size == size {
		done, _ := d.Progress()
		return size - done
	}
	have, _ := readLog(s.path("partial", h)+logSuffix, size, s.boot)
	return size - have.total()
}

// begin is called with the store's lock held.
func (s *Store) begin(ctx context.Context, digest, h string, size int64, r Remote) (*Download, error) {
	dctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	d := &Download{
		s: s, digest: digest, hex: h, size: size, remote: r, cancel: cancel, refs: 1,
		done: make(chan struct{}), gone: make(chan struct{}),
	}
	if have, ok := s.Size(digest); ok && have == size {
		f, err := s.Open(digest)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		d.file, d.have, d.resumed = f, spans(nil).add(span{0, size}), size
	} else {
		p, err := s.openPartial(h, size)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		d.part, d.file, d.have = p, p.data, p.have
		d.resumed = d.have.total()
		p.have = nil
	}
	s.active[digest] = d
	go d.run(dctx) // Leave waits for it
	return d, nil
}

// run ends when the blob is verified or lost.
func (d *Download) run(ctx context.Context) {
	g, gctx := errgroup.WithContext(ctx)
	var mismatch *MismatchError
	g.Go(func() error {
		err := d.check(gctx)
		errors.As(err, &mismatch)
		return err
	})
	g.Go(func() error { return d.fetchAll(gctx) })
	err := g.Wait()
	if ctx.Err() != nil && err != nil && mismatch == nil {
		err = context.Cause(ctx)
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	err = errors.Join(err, d.keepOrDrop(err))
	d.err = err
	close(d.done)
	if err != nil && d.refs > 0 {
		d.forget()
	}
}

// keepOrDrop decides whether what has come is worth keeping.
func (d *Download) keepOrDrop(err error) error {
	switch {
	case err == nil && d.part != nil:
		return d.part.closeLog()
	case err == nil:
		return nil
	case d.part == nil && errors.Is(err, ErrMismatch):
		_, rerr := d.s.Remove(d.digest)
		return rerr
	case d.part == nil:
		return nil
	case errors.Is(err, ErrMismatch), errors.Is(err, syscall.ENOSPC), len(d.have) == 0:
		return d.part.unlink()
	}
	return d.part.closeLog()
}

// forget lets another download of the blob begin. The store's lock is held.
func (d *Download) forget() {
	if d.s.active[d.digest] == d {
		delete(d.s.active, d.digest)
		close(d.gone)
	}
}

// check computes the digest as far as the bytes are there.
func (d *Download) check(ctx context.Context) error {
	sum := sha256.New()
	r := d.reader(ctx, false)
	n, err := r.WriteTo(sum)
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != d.digest {
		return &MismatchError{Want: d.digest, Got: got, WantSize: d.size, GotSize: n}
	}
	return nil
}

// Leave ends the interest in the download. The last one to leave stops it, if it
// is not done; what has come stays for later. It returns when nothing of it runs.
func (d *Download) Leave() error { return d.leave(false) }

// Discard is Leave, but nothing stays for later, unless somebody else wants it.
func (d *Download) Discard() error { return d.leave(true) }

func (d *Download) leave(drop bool) error {
	d.s.mu.Lock()
	d.refs--
	last := d.refs == 0
	d.s.mu.Unlock()
	if !last {
		return nil
	}
	d.cancel(errAbandoned)
	<-d.done
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.file.Close()
	// A download that failed is not active any more: the name may be another's.
	if d.part != nil && drop && d.s.active[d.digest] == d {
		err = errors.Join(err, d.part.unlink())
	}
	d.forget()
	return err
}

// Wait returns when the blob is verified, or why it is not to be had.
func (d *Download) Wait(ctx context.Context) error {
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Progress returns how many bytes are there, and how many of them have come
// over the network by this download.
func (d *Download) Progress() (done, fetched int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resumed + d.fetched, d.fetched
}

// Commit brings a verified blob to the disk and makes it visible.
func (d *Download) Commit() error {
	d.mu.Lock()
	stored := d.part == nil
	d.mu.Unlock()
	if stored {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	return d.Publish()
}

// Publish makes a verified blob visible whose bytes are on the disk.
func (d *Download) Publish() error {
	select {
	case <-d.done:
	default:
		return fmt.Errorf("publish %s: not verified", d.digest)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil || d.part == nil {
		return d.err
	}
	if err := d.file.Chmod(0o400); err != nil {
		return err
	}
	if err := os.Rename(d.part.path, d.s.path("sha256", d.hex)); err != nil {
		return err
	}
	err := removeIfThere(d.part.path + logSuffix)
	d.part = nil
	return errors.Join(err, disk.SyncDir(d.s.path("sha256", "")))
}
