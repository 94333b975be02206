package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Source reads one blob over connections that may break: after an error it
// opens the blob again where it broke off.
type Source struct {
	// Open starts reading at offset. It may return a stream that starts
	// earlier, if the other side cannot do better, and says where.
	Open func(ctx context.Context, offset int64) (body io.ReadCloser, at int64, err error)
	// Retry is asked after the n-th failure in a row, from 1. It waits and
	// returns nil, or returns why to give up.
	Retry func(ctx context.Context, n int, err error) error
	Stall time.Duration // a connection that gives nothing for so long is broken
	Size  int64

	off      int64
	failures int
	failedAt int64 // offset of the last failure
	body     io.ReadCloser
	conn     context.Context // of the connection
	cancel   context.CancelCauseFunc
	timer    *time.Timer
}

// progress is after how many bytes failures count from the beginning again.
const progress = 1 << 20

// errStalled is a connection that gives nothing.
var errStalled = errors.New("no data from the registry")

// Reader returns the blob as one stream. It is good for one read of the blob.
func (s *Source) Reader(ctx context.Context) io.ReadCloser { return &sourceReader{s, ctx} }

type sourceReader struct {
	*Source
	ctx context.Context // of one reader, whose Read cannot take one
}

// Read implements io.Reader.
func (r *sourceReader) Read(p []byte) (int, error) {
	for r.off < r.Size {
		n, err := r.readOnce(p)
		r.off += int64(n)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			continue
		}
		r.drop()
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("connection closed after %d of %d bytes", r.off, r.Size)
		}
		if r.off-r.failedAt > progress {
			r.failures = 0
		}
		r.failures, r.failedAt = r.failures+1, r.off
		if err := r.Retry(r.ctx, r.failures, err); err != nil {
			return 0, err
		}
	}
	return r.tail(p)
}

// tail looks for bytes beyond the promised size, which would be a lie.
func (r *sourceReader) tail(p []byte) (int, error) {
	if r.body == nil || len(p) == 0 {
		return 0, io.EOF
	}
	n, err := r.readOnce(p[:1])
	r.off += int64(n)
	if n > 0 {
		return n, nil
	}
	if err != nil {
		return 0, io.EOF
	}
	return 0, nil
}

func (r *sourceReader) readOnce(p []byte) (int, error) {
	if r.body == nil {
		if err := r.connect(); err != nil {
			return 0, err
		}
	}
	r.timer.Reset(r.Stall)
	n, err := r.body.Read(p)
	r.timer.Stop()
	if err != nil && errors.Is(context.Cause(r.conn), errStalled) {
		err = errStalled
	}
	return n, err
}

// connect opens the blob at the offset reached so far.
func (r *sourceReader) connect() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	r.conn, r.cancel = ctx, cancel
	r.timer = time.AfterFunc(r.Stall, func() { cancel(errStalled) })
	body, at, err := r.Open(ctx, r.off)
	if err == nil && at < r.off {
		_, err = io.CopyN(io.Discard, &kicking{body, r.timer, r.Stall}, r.off-at)
	}
	if err != nil {
		if body != nil {
			body.Close()
		}
		r.drop()
		if c := context.Cause(ctx); errors.Is(c, errStalled) {
			return c
		}
		return err
	}
	r.body = body
	return nil
}

// kicking puts the stall timer off with every piece it reads.
type kicking struct {
	io.Reader
	timer *time.Timer
	stall time.Duration
}

func (k *kicking) Read(p []byte) (int, error) {
	k.timer.Reset(k.stall)
	return k.Reader.Read(p)
}

func (r *sourceReader) drop() {
	if r.timer != nil {
		r.timer.Stop()
	}
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
	if r.cancel != nil {
		r.cancel(nil)
		r.cancel = nil
	}
}

// Close ends the connection.
func (r *sourceReader) Close() error {
	r.drop()
	return nil
}
