package registry

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wherry-run/wherry/image/internal/blob"
)

const (
	maxAttempts = 5
	// patience is for all of a small answer: a registry that trickles does not
	// hold a pull up for ever.
	patience = 3 * time.Minute
	// mirrorPatience is less: somebody else has it too.
	mirrorPatience = 10 * time.Second
)

// order is in which order the places are asked for something: mirrors that are
// well, the registry, and at last the mirrors that rest, since a mirror may have
// what the registry has no more.
func (r *Repository) order(key string) []*place {
	r.mu.Lock()
	absent := slices.Concat(r.absent[key], r.absent[""])
	r.mu.Unlock()
	var first, resting []*place
	for _, p := range r.places[:len(r.places)-1] {
		switch {
		case slices.Contains(absent, p):
		case p.host.resting() || !p.host.gate.closedUntil().IsZero():
			resting = append(resting, p)
		default:
			first = append(first, p)
		}
	}
	return append(append(first, r.places[len(r.places)-1]), resting...)
}

// each asks one place after the other until one has what is wanted. Its errors
// are *tried, unless the context is done.
func (r *Repository) each(ctx context.Context, key string, f func(context.Context, *place) error) error {
	e := &tried{}
	for _, p := range r.order(key) {
		err := f(ctx, p)
		if err == nil {
			if p.mirror {
				p.host.worked()
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		why := failureOf(p.host.label, err)
		e.all = append(e.all, why)
		if !p.mirror {
			e.main = why
			continue
		}
		r.c.log.Debug("mirror has failed, asking the next place", "registry", r.label, "mirror", p.host.name, "err", why.text)
		r.blame(key, p, why)
	}
	return e
}

// blame keeps a mirror that failed from being asked again at once: for this
// one thing if it does not have it, for all if it does not work.
func (r *Repository) blame(key string, p *place, why *failure) {
	switch {
	case why.temporary || isCertificate(why):
		p.host.failed()
		return
	case why.kind == ErrDenied:
		key = "" // it would deny everything else too
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.absent[key], p) {
		r.absent[key] = append(r.absent[key], p)
	}
}

// retrying asks each place, again while time may cure the error.
func (r *Repository) retrying(ctx context.Context, key string, f func(context.Context, *place) error) error {
	for n := 1; ; n++ {
		err := r.each(ctx, key, func(ctx context.Context, p *place) error {
			limit := r.c.patience
			if p.mirror {
				limit = min(limit, r.c.mirrorPatience)
			}
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			err := f(ctx, p)
			if err != nil && ctx.Err() != nil {
				err = failureOf(p.host.label, &networkError{error: ctx.Err()})
			}
			return err
		})
		if err == nil {
			return nil
		}
		if err := r.Retry(ctx, n, err); err != nil {
			return err
		}
	}
}

// Retry waits before the next attempt after err, the attempt-th error in a row
// (from 1), and returns nil, or returns why there is none. It takes errors of
// Blob, of its body, and those that the caller found out itself: after a
// blob.MismatchError the next place is asked, if a mirror sent the bytes; what it
// does not know is taken for a fault of the connection.
func (r *Repository) Retry(ctx context.Context, attempt int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var mismatch *blob.MismatchError
	var known *failure
	switch {
	case errors.As(err, &mismatch):
		if !r.distrust(mismatch.Want) {
			return err
		}
		return nil
	case errors.As(err, &known):
		if !known.temporary {
			return err
		}
	default:
		r.mu.Lock()
		if r.last != nil && r.last.mirror {
			r.last.host.failed()
		}
		r.mu.Unlock()
	}
	wait, limit := r.c.opts.Backoff(attempt), maxAttempts
	if known != nil && !known.until.IsZero() {
		limit = 2 * maxAttempts // nobody was asked
	}
	until := r.closedUntil()
	if known != nil && known.until.After(until) {
		until = known.until // a token service's, or of where blobs lie
	}
	if !until.IsZero() {
		if wait = max(wait, time.Until(until)); wait > maxWait {
			return r.tooLong(until)
		}
	}
	if attempt >= limit {
		return err
	}
	r.c.log.Debug("registry request failed", "registry", r.label, "attempt", attempt, "err", err)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// closedUntil is when the registry's gate opens, zero if it is open or a mirror
// can be asked meanwhile.
func (r *Repository) closedUntil() time.Time {
	order := r.order("")
	if order[0].mirror {
		return time.Time{}
	}
	return order[0].host.gate.closedUntil()
}

func (r *Repository) tooLong(until time.Time) *failure {
	return failureOf(r.label, &closedError{r.label, until})
}

// distrust stops asking the mirror that sent wrong bytes for them. It tells
// whether there was one.
func (r *Repository) distrust(digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.served[digest]
	if p == nil || !p.mirror || slices.Contains(r.absent[digest], p) {
		return false
	}
	r.absent[digest] = append(r.absent[digest], p)
	r.c.log.Warn("mirror sent wrong bytes, asking the next place", "registry", r.label, "mirror", p.host.name, "digest", digest)
	return true
}
