package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// defaultSplit is from which size on a blob is fetched in parts. Below, a
	// second request costs more than it brings.
	defaultSplit = 32 << 20
	defaultPart  = 16 << 20 // of one request then

	maxConns  = 4                      // for one blob
	rampEvery = 250 * time.Millisecond // at most so often another one is added

	noteEvery = 1 << 20  // bytes between two lines of a partial's log
	forgiven  = 1 << 20  // bytes after which failures count from the beginning again
	slowPiece = 64 << 10 // a connection that needs more than Remote.Stall for it is broken
	writeFrom = 128 << 10
)

// claim is the part of a blob that one connection is at.
type claim struct {
	span
	noted int64 // up to here it stands in the log
}

// connState is what decides how many connections a download has.
type connState struct {
	n       int           // open ones
	limit   int           // so many there may be
	single  bool          // the other side does not serve parts
	whole   bool          // nor a rest
	waiting int           // readers that wait
	starved time.Duration // they have waited so long in all
	last    struct {      // time the number was looked at
		at      time.Time
		starved time.Duration
	}
}

// fetchAll brings all that is missing. It is the first connection, and the
// others are its helpers: they may fail, it goes on for them.
func (d *Download) fetchAll(ctx context.Context) error {
	d.mu.Lock()
	missing := d.size - d.have.total()
	d.conns.limit = maxConns
	d.mu.Unlock()
	if missing == 0 {
		return nil
	}
	release, err := d.remote.Connections.acquire(ctx, d.remote.Host)
	if err != nil {
		return err
	}
	defer release()
	hctx, cancel := context.WithCancelCause(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel(nil)
	d.mu.Lock()
	d.conns.n, d.conns.last.at = 1, time.Now()
	d.mu.Unlock()
	more := func() { d.addHelper(hctx, &helpers) }

	failures, failedAt := 0, d.there()
	for {
		c, complete, changed := d.claim()
		if complete {
			return nil
		}
		if c == nil { // helpers are at all that is left
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := d.fetch(ctx, &link{c: c, more: more})
		d.unclaim(c)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var local *localError
		if errors.As(err, &local) {
			return local.error
		}
		if errors.Is(err, ErrRange) && d.wholeOnly() {
			continue
		}
		if there := d.there(); there-failedAt > forgiven {
			failures, failedAt = 1, there
		} else {
			failures++
		}
		if err := d.remote.Retry(ctx, failures, err); err != nil {
			return err
		}
	}
}

// addHelper opens another connection, if the bytes come too slowly for those
// who read them and there is something left for it to do.
func (d *Download) addHelper(ctx context.Context, helpers *sync.WaitGroup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.conns
	now := time.Now()
	passed := now.Sub(s.last.at)
	if passed < rampEvery || s.single || d.size < d.s.splitFrom || s.n >= s.limit {
		return
	}
	waited := s.starved - s.last.starved
	s.last.at, s.last.starved = now, s.starved
	if _, left := d.unclaimed(0); !left || waited < passed/2 && s.waiting == 0 {
		return
	}
	release, ok := d.remote.Connections.try(d.remote.Host)
	if !ok {
		return
	}
	s.n++
	helpers.Go(func() {
		defer release()
		d.help(ctx)
	})
}

// help fetches parts until none is left or one cannot be had.
func (d *Download) help(ctx context.Context) {
	defer func() {
		d.mu.Lock()
		d.conns.n--
		d.changed()
		d.mu.Unlock()
	}()
	for {
		c, _, _ := d.claim()
		if c == nil {
			return
		}
		from := c.from
		err := d.fetch(ctx, &link{c: c, more: func() {}, helps: true})
		d.unclaim(c)
		if err != nil {
			d.mu.Lock()
			if c.from == from { // it brought nothing: do not try as many again
				d.conns.limit = max(1, d.conns.n-1)
			}
			d.mu.Unlock()
			return
		}
	}
}

func (d *Download) there() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resumed + d.fetched
}

// wholeOnly notes that only the whole blob is to be had. It tells whether that
// is news.
func (d *Download) wholeOnly() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := !d.conns.whole
	d.conns.single, d.conns.whole = true, true
	return news
}

// unclaimed is the first hole from offset on that no connection is at.
func (d *Download) unclaimed(from int64) (span, bool) {
	taken := slices.Clone(d.have)
	for _, c := range d.claims {
		taken = taken.add(c.span)
	}
	return taken.gap(from, d.size)
}

// claim takes the next part. Without one it says whether all is there, and
// otherwise when to ask again.
func (d *Download) claim() (c *claim, complete bool, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hole, ok := d.unclaimed(0)
	if !ok {
		if d.wake == nil {
			d.wake = make(chan struct{})
		}
		return nil, len(d.claims) == 0, d.wake
	}
	if d.size >= d.s.splitFrom && !d.conns.single {
		hole.to = min(hole.to, hole.from+d.s.partSize)
	}
	c = &claim{hole, hole.from}
	d.claims = append(d.claims, c)
	return c, false, nil
}

// extend moves a claim to the next hole from offset on, for a connection that
// goes on longer than it was asked to.
func (d *Download) extend(c *claim, at int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns.single = true
	d.noteLocked(c)
	hole, ok := d.unclaimed(at)
	if ok {
		c.span, c.noted = hole, hole.from
	}
	return ok
}

func (d *Download) unclaim(c *claim) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(c)
	d.claims = slices.DeleteFunc(d.claims, func(o *claim) bool { return o == c })
	d.changed()
}

// changed wakes all who wait for the download to go on.
func (d *Download) changed() {
	if d.wake != nil {
		close(d.wake)
		d.wake = nil
	}
}

// noteLocked writes down what has come of a claim. c.from moves with the bytes.
func (d *Download) noteLocked(c *claim) {
	if d.part != nil {
		d.part.note(span{c.noted, c.from})
	}
	c.noted = c.from
}

// localError is one that no other connection cures.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

// put writes bytes of a claim to the file.
func (d *Download) put(c *claim, p []byte) error {
	if _, err := d.file.WriteAt(p, c.from); err != nil {
		return &localError{err}
	}
	d.mu.Lock()
	to := c.from + int64(len(p))
	d.have = d.have.add(span{c.from, to})
	d.fetched += int64(len(p))
	c.from = to
	d.changed()
	var lines int
	var due bool
	if c.from-c.noted >= noteEvery {
		d.noteLocked(c)
		lines, due = d.part.due(time.Now())
	}
	d.mu.Unlock()
	if due {
		if err := d.part.sync(lines); err != nil {
			return &localError{err}
		}
	}
	return nil
}

// fetch reads one part over one connection.
func (d *Download) fetch(ctx context.Context, l *link) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.remote.Stall, func() { cancel(errStalled) })
	defer stall.Stop()
	l.stall, l.patience = stall, d.remote.Stall
	err := d.fetchOver(ctx, l)
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w for %s", errStalled, d.remote.Stall)
	}
	return err
}

// link is one connection's stream.
type link struct {
	c        *claim
	body     io.ReadCloser
	at       int64 // offset of the next byte
	stall    *time.Timer
	patience time.Duration
	more     func() // called now and then
	helps    bool   // it is not the first connection
	since    int    // bytes since the timer was set
}

// read is body.Read, and keeps the timer from firing.
func (l *link) read(p []byte) (int, error) {
	n, err := l.body.Read(p)
	l.at += int64(n)
	if l.since += n; l.since >= slowPiece {
		l.since = 0
		l.stall.Reset(l.patience)
	}
	return n, err
}

// fill reads until there is something worth a system call.
func (l *link) fill(p []byte) (n int, err error) {
	for n < min(writeFrom, len(p)) && err == nil {
		var m int
		m, err = l.read(p[n:])
		n += m
	}
	return n, err
}

func (d *Download) fetchOver(ctx context.Context, l *link) error {
	offset, length := l.c.from, l.c.to-l.c.from
	d.mu.Lock()
	if d.conns.whole {
		offset = 0
	}
	d.mu.Unlock()
	if l.c.to == d.size || offset != l.c.from {
		length = -1
	}
	body, at, err := d.remote.Open(ctx, offset, length)
	if err != nil {
		return err
	}
	defer body.Close()
	if at > offset || at < 0 {
		return fmt.Errorf("asked for bytes from %d on, got them from %d on", offset, at)
	}
	l.body, l.at = body, at
	if at < offset {
		d.mu.Lock()
		d.conns.single = true
		d.mu.Unlock()
		if l.helps {
			return ErrRange
		}
	}
	buf := pieces.Get().(*piece)
	defer pieces.Put(buf)
	for {
		done, err := d.fetchPart(l, buf[:])
		if done || err != nil {
			return err
		}
	}
}

// fetchPart reads what is claimed, and looks whether the stream goes on.
func (d *Download) fetchPart(l *link, buf []byte) (done bool, err error) {
	for l.at < l.c.from { // there already
		if _, err := l.read(buf[:min(int64(len(buf)), l.c.from-l.at)]); err != nil {
			return false, d.broken(l, err)
		}
	}
	for l.at < l.c.to {
		n, err := l.fill(buf[:min(int64(len(buf)), l.c.to-l.at)])
		if n > 0 {
			if err := d.put(l.c, buf[:n]); err != nil {
				return false, err
			}
			l.more()
		}
		if err != nil && l.at < l.c.to {
			return false, d.broken(l, err)
		}
	}
	n, _ := io.ReadFull(l.body, buf[:1])
	l.at += int64(n)
	if n == 0 {
		return true, nil // whatever the end was like: all is there
	}
	if l.at > d.size {
		return true, &localError{&MismatchError{Want: d.digest, WantSize: d.size, GotSize: l.at}}
	}
	if !d.extend(l.c, l.at-1) {
		return true, nil
	}
	if l.c.from == l.at-1 {
		return false, d.put(l.c, buf[:1])
	}
	return false, nil
}

// broken describes a stream that ended too early.
func (d *Download) broken(l *link, err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("connection closed after %d of %d bytes", l.at, d.size)
	}
	return err
}
