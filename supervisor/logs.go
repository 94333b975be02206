package supervisor

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Logs yields the targets' output, several containers merged by time. Follow ends
// when all targets are removed or have ended for good; what they wrote until then
// is yielded. Of an instance that a later revision adds, it has what is written
// from then on.
func (s *Supervisor) Logs(ctx context.Context, r api.LogsRequest) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) {
		l, err := s.newLogReading(r)
		if err != nil {
			yield(api.LogLine{}, err)
			return
		}
		defer l.hold()()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		l.ctx, l.stop, l.yield = ctx, cancel, yield
		if at, ok := l.alone(); ok {
			l.source(at, l.options(at, true)).copy(yield)
			return
		}
		stored := l.stored()
		if mergeStored(stored, r.Tail, yield) && r.Follow {
			l.live(stored)
		}
	}
}

// logReading is one request for output being answered.
type logReading struct {
	s       *Supervisor
	r       api.LogsRequest
	after   map[string]runtime.LogPlace // by log
	targets []target
	places  []place // of all targets, each once
	ends    map[*entry]<-chan struct{}
	began   time.Time // before targets were looked up: what instances that are not among them write later belongs to the answer

	ctx   context.Context // of this one answer, which Logs gives in one call
	stop  context.CancelFunc
	yield func(api.LogLine, error) bool
}

func (s *Supervisor) newLogReading(r api.LogsRequest) (*logReading, error) {
	if r.Previous && r.Follow {
		return nil, invalid("logs: what a previous run wrote cannot be followed, for it has ended")
	}
	l := &logReading{s: s, r: r, after: map[string]runtime.LogPlace{}, ends: map[*entry]<-chan struct{}{}, began: time.Now()}
	for _, text := range r.After {
		c, err := api.ParseCursor(text)
		if err != nil {
			return nil, fmt.Errorf("logs: %w", err)
		}
		l.after[c.Log()] = runtime.LogPlace{Segment: c.Segment, Offset: c.Offset}
	}
	snap := s.snap.Load()
	seen := map[string]bool{}
	for _, word := range append([]string{r.Target}, r.More...) {
		t, err := snap.target(word)
		if err != nil {
			return nil, err
		}
		l.targets = append(l.targets, t)
		for _, at := range t.logs() {
			if key := at.log(); !seen[key] {
				seen[key] = true
				l.places = append(l.places, at)
			}
		}
	}
	return l, nil
}

// log names a container's log, as cursors do.
func (p place) log() string { return api.JoinTarget(p.instance, p.shown()) }

// hold keeps the units that are removed by themselves until their output has been read.
func (l *logReading) hold() (release func()) {
	for _, t := range l.targets {
		t.entry.readers.Add(1)
	}
	return func() {
		for _, t := range l.targets {
			t.entry.readers.Add(-1)
			if t.entry.lazy {
				l.s.post(nudge{})
			}
		}
	}
}

// alone is the one log that is meant, if there is nothing to merge, now or later.
func (l *logReading) alone() (place, bool) {
	if len(l.targets) > 1 || len(l.places) != 1 || l.r.Previous {
		return place{}, false
	}
	t := l.targets[0]
	// What `run` made keeps its one instance.
	return l.places[0], !l.r.Follow || t.instance != "" || t.entry.rev.Source == sourceRun
}

// options are those of one log.
func (l *logReading) options(at place, live bool) runtime.LogOptions {
	o := runtime.LogOptions{Tail: l.r.Tail, Since: l.r.Since, Until: l.r.Until, After: l.after[at.log()]}
	if live && l.r.Follow {
		o.Follow, o.Done, o.Whole = true, l.endOf(at), l.r.Whole
	}
	return o
}

func (l *logReading) source(at place, o runtime.LogOptions) *source {
	return &source{at: at, place: o.After, lines: runtime.ReadLog(l.ctx, l.s.paths.log(at.unit, at.instance, at.container), o)}
}

// stored are the logs as they are now.
func (l *logReading) stored() []*source {
	var list []*source
	for _, at := range l.places {
		o := l.options(at, false)
		if l.r.Previous {
			if o.Run = l.previous(at); o.Run == "" {
				continue
			}
		}
		list = append(list, l.source(at, o))
	}
	return list
}

// previous is the last run that has left output, other than one that is up. An error is
// one of the reading too, which tells it.
func (l *logReading) previous(at place) string {
	runs, _ := runtime.LogRuns(l.s.paths.log(at.unit, at.instance, at.container))
	if n := len(runs); n > 0 && runs[n-1] == l.up(at.instance) {
		runs = runs[:n-1]
	}
	if len(runs) == 0 {
		return ""
	}
	return runs[len(runs)-1]
}

// up is the instance's run, if it is up.
func (l *logReading) up(instance string) string {
	for _, t := range l.targets {
		for _, i := range t.entry.instances {
			if i.name == instance {
				return i.run
			}
		}
	}
	return ""
}

// live goes on behind what has been read, and with the instances that come.
func (l *logReading) live(stored []*source) {
	m := &liveMerge{ctx: l.ctx, stop: l.stop, yield: l.yield, items: make(chan liveItem), ended: make(chan struct{})}
	for _, from := range stored {
		o := l.options(from.at, true)
		o.Tail, o.After = 0, from.place
		m.follow(l.source(from.at, o))
	}
	m.run(l.later())
}

// later are the logs of instances that the units get from now on, until these have
// ended or ctx has.
func (l *logReading) later() <-chan *source {
	ch := make(chan *source)
	var all sync.WaitGroup
	for _, t := range l.targets {
		if t.instance == "" {
			all.Go(func() { l.laterOf(t, ch) })
		}
	}
	go func() {
		all.Wait()
		close(ch)
	}()
	return ch
}

func (l *logReading) laterOf(t target, ch chan<- *source) {
	known := map[string]bool{}
	for _, i := range t.entry.instances {
		known[i.name] = true
	}
	ctx, cancel := l.untilThen()
	defer cancel()
	_ = l.s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
		now := snap.find(t.entry.unit.Name)
		if now == nil || now.serial != t.entry.serial {
			return true, nil
		}
		for _, i := range now.instances { // also of a unit that has ended: what joined meanwhile has not been read
			if known[i.name] {
				continue
			}
			known[i.name] = true
			for _, at := range t.logsOf(i.name) {
				select {
				case ch <- l.source(at, l.fresh(at, t)):
				case <-l.ctx.Done():
				}
			}
		}
		return over(t.entry, now), nil
	})
}

// fresh are the options of a log that joins: its file may hold what an earlier
// revision wrote.
func (l *logReading) fresh(at place, t target) runtime.LogOptions {
	o := runtime.LogOptions{Since: l.r.Since, Until: l.r.Until, Follow: true, Done: l.ends[t.entry]}
	if l.began.After(o.Since) {
		o.Since = l.began
	}
	return o
}

// endOf is closed when the place's unit has ended for good or is gone, or when
// the time that is asked for is over.
func (l *logReading) endOf(at place) <-chan struct{} {
	for _, t := range l.targets {
		if t.entry.unit.Name != at.unit {
			continue
		}
		if l.ends[t.entry] == nil {
			l.ends[t.entry] = l.await(t.entry)
		}
		return l.ends[t.entry]
	}
	return nil
}

func (l *logReading) await(e *entry) <-chan struct{} {
	ctx, cancel := l.untilThen()
	done := make(chan struct{})
	go func() {
		defer cancel()
		defer close(done)
		_ = l.s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
			return over(e, snap.find(e.unit.Name)), nil
		})
	}()
	return done
}

// untilThen ends at the time up to which output is asked for.
func (l *logReading) untilThen() (context.Context, context.CancelFunc) {
	if l.r.Until.IsZero() {
		return context.WithCancel(l.ctx)
	}
	return context.WithDeadline(l.ctx, l.r.Until)
}

// over tells whether the unit is gone, or has ended for good.
func over(e, now *entry) bool {
	return now == nil || now.serial != e.serial || now.final && now.live == 0
}

// Events yields stored events after seq, then, with follow, new ones as they come.
func (s *Supervisor) Events(ctx context.Context, since uint64, follow bool) iter.Seq2[api.Event, error] {
	return s.events.Read(ctx, since, follow)
}
