package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
)

const (
	// lookEvery is how often the disk is looked at; tidyEvery how often the
	// store is tidied without a reason, give or take a fifth.
	lookEvery = 15 * time.Second
	tidyEvery = 5 * time.Minute
	// tidyApart is the least time between two collections, whatever happens.
	tidyApart = 5 * time.Second
	// retryApart is the least time between two retries of what had no room, if
	// no image was deleted meanwhile: room that only a pull's own failure has
	// freed is not enough for it.
	retryApart = time.Minute

	// Runs that have ended stay to be looked at, but not for ever.
	endedAge = 7 * 24 * time.Hour
	endedMax = 100
)

// tidying is what asks the tidier to come.
type tidying struct {
	mu   sync.Mutex
	why  string
	room int64 // bytes that a pull needs
	kick chan struct{}
}

// ask has the store tidied soon. room is how much a pull needs, if one has failed.
func (t *tidying) ask(why string, room int64) {
	t.mu.Lock()
	t.why, t.room = cmp.Or(t.why, why), max(t.room, room)
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *tidying) take() (why string, room int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	why, room = t.why, t.room
	t.why, t.room = "", 0
	return why, room
}

const (
	whyRoom    = "a pull had too little room"
	whyRemoved = "a unit was removed"
	whyAsked   = "it was asked for"
)

// unknownRoom stands for a pull that failed without knowing how much it needs:
// all that can go does.
const unknownRoom = 1 << 60

// noteNoSpace has the store tidied if err says that a pull had too little room.
func (s *Supervisor) noteNoSpace(err error) {
	if need, short := image.SpaceNeeded(err); short {
		s.tidying.ask(whyRoom, cmp.Or(need, unknownRoom))
	}
}

// keepTidy deletes what nobody needs, until ctx ends.
func (s *Supervisor) keepTidy(ctx context.Context) {
	every := cmp.Or(s.opts.Load().hooks.look, lookEvery)
	apart := min(tidyApart, every)
	var last, retried time.Time
	owed := false // a retry, since there is room again
	retry := func(now bool) {
		if now || owed && time.Since(retried) >= retryApart {
			owed, retried = false, time.Now()
			s.post(retryPulls{})
		}
	}
	for wait := every; ; {
		asked := s.awaitKick(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		if since := time.Since(last); !last.IsZero() && since < apart {
			if !sleep(ctx, apart-since) {
				return
			}
		}
		wait = every
		if !asked && !s.due(last) {
			owed = s.look() || owed
			retry(false)
			continue
		}
		deleted, eased := s.tidyOnce(ctx)
		last, owed = time.Now(), owed || eased
		retry(deleted)
		s.post(tidyRuns{last})
	}
}

// awaitKick waits for somebody to ask, but not longer than limit.
func (s *Supervisor) awaitKick(ctx context.Context, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		return false
	case <-s.tidying.kick:
	}
	return true
}

// due tells whether it is time to tidy: every few minutes, and at once when the
// disk has become too full.
func (s *Supervisor) due(last time.Time) bool {
	if last.IsZero() || time.Since(last) >= tidyEvery+rand.N(tidyEvery/5) {
		return true
	}
	d, err := s.img.Disk()
	s.pressure.mu.Lock()
	defer s.pressure.mu.Unlock()
	return err == nil && s.pressure.now == roomy && roomy.judge(d, s.opts.Load().GC.High) != roomy
}

// look only looks at the disk.
func (s *Supervisor) look() (eased bool) {
	d, err := s.img.Disk()
	if err != nil {
		s.log.Warn("disk not looked at", "err", err)
		return false
	}
	return s.note(d)
}

// tidyOnce collects once. Between it and the next look the operator hears of
// what was deleted and of what could not be.
func (s *Supervisor) tidyOnce(ctx context.Context) (deleted, eased bool) {
	why, room := s.tidying.take()
	o := s.gcOptions(image.GCOptions{Room: room})
	if room == unknownRoom {
		o.Room, o.All = 0, true
	}
	res, err := s.img.Collect(ctx, o)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("images not tidied", "err", err)
	}
	s.tell(res, why)
	if res.Disk.Total > 0 {
		eased = s.note(res.Disk)
	}
	return len(res.Images)+len(res.Blobs) > 0, eased
}

// gcOptions fills in what the configuration says.
func (s *Supervisor) gcOptions(o image.GCOptions) image.GCOptions {
	g := s.opts.Load().GC
	o.High, o.Low = cmp.Or(o.High, g.High), cmp.Or(o.Low, g.Low)
	if o.MinAge == 0 && !o.All {
		o.MinAge = g.MinAge
	}
	return o
}

// tell makes an event of what was deleted.
func (s *Supervisor) tell(res image.GCResult, why string) {
	if len(res.Images)+len(res.Blobs) == 0 {
		if res.Freed > 0 {
			s.log.Debug("leftovers of pulls deleted", "bytes", res.Freed)
		}
		return
	}
	var what []string
	if n := len(res.Images); n > 0 {
		what = append(what, plural(n, "image")+" deleted")
	}
	if n := len(res.Blobs); n > 0 {
		what = append(what, plural(n, "compressed layer")+" of images in use deleted")
	}
	msg := fmt.Sprintf("%s, %s freed", strings.Join(what, ", "), sizeWords(res.Freed))
	if why != "" {
		msg += ": " + why
	}
	s.lastGC.Store(&api.LastGC{At: time.Now(), Images: len(res.Images), Freed: res.Freed})
	s.event(api.Event{Type: event.ImageGC, Message: msg, Fields: map[string]any{
		"images": res.Images, "names": res.Untagged, "blobs": len(res.Blobs), "freed": res.Freed, "used": res.Disk.Used, "free": res.Disk.Free}})
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// CollectImages deletes images that nobody needs. What o leaves at 0 comes from
// Options.GC, but for MinAge with All: then none is too young.
func (s *Supervisor) CollectImages(ctx context.Context, o image.GCOptions) (image.GCResult, error) {
	if o.All && !o.DryRun {
		s.tidying.take() // there is no more room to be made for a pull that asked for some
	}
	res, err := s.img.Collect(ctx, s.gcOptions(o))
	if !o.DryRun {
		s.tell(res, whyAsked)
		if res.Disk.Total > 0 {
			s.note(res.Disk)
		}
		if len(res.Images)+len(res.Blobs) > 0 {
			s.post(retryPulls{})
		}
	}
	return res, err
}

// ExplainImage says whether the next collection would delete the image, and why.
func (s *Supervisor) ExplainImage(ctx context.Context, ref string) (image.Explanation, error) {
	return s.img.Explain(ctx, ref, s.gcOptions(image.GCOptions{}))
}

// retryPulls starts at once what waits, or has given up, because its image had
// no room.
type retryPulls struct{}

func (retryPulls) handle(l *loop) {
	for instance, err := range l.failures {
		a, known := l.attempts[instance]
		if !known || !errors.Is(err, image.ErrNoSpace) {
			continue
		}
		a.Attempts = a.Attempts.Reset()
		l.setAttempts(instance, a)
	}
}

// tidyRuns removes ended runs, with what they wrote, that were there to be
// looked at: old ones, the oldest if there are too many, and under
// pressure all that are no younger than an image has to be.
type tidyRuns struct{ now time.Time }

func (m tidyRuns) handle(l *loop) {
	l.pressure.mu.Lock()
	short := l.pressure.now != roomy
	l.pressure.mu.Unlock()
	age := endedAge
	if short {
		age = min(age, max(l.opts.Load().GC.MinAge, 0))
	}
	var ended []*run
	for id, r := range l.runs {
		if r.phase.Ended() && !r.gone && l.work[id] == nil && l.work[r.Instance] == nil {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(a, b *run) int { return b.endedAt.Compare(a.endedAt) })
	for i, r := range ended {
		if old := m.now.Sub(r.endedAt); i >= endedMax || old >= age {
			l.dispatch(plan.Action{Kind: plan.Remove, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run,
				Reason: fmt.Sprintf("it ended %s ago", old.Round(time.Second))})
		}
	}
}
