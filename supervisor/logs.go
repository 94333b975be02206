package supervisor

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Logs yields a target's output, several instances merged by time. Follow ends
// when the target is removed or has ended for good; what it wrote until then
// is yielded. Of an instance that a later revision adds, it has what is written
// from then on.
func (s *Supervisor) Logs(ctx context.Context, r api.LogsRequest) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) {
		t, err := s.snap.Load().target(r.Target)
		if err != nil {
			yield(api.LogLine{}, err)
			return
		}
		e := t.entry
		e.readers.Add(1)
		defer func() {
			e.readers.Add(-1)
			if e.lazy {
				s.post(nudge{})
			}
		}()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		o := runtime.LogOptions{Follow: r.Follow, Tail: r.Tail, Since: r.Since, Done: s.endOf(ctx, e, r.Follow)}
		var sources []source
		for _, at := range t.logs() {
			sources = append(sources, s.source(ctx, at, o))
		}
		switch {
		case len(sources) == 1 && (!r.Follow || t.instance != "" || e.rev.Source == sourceRun):
			sources[0].copy(yield) // what `run` made keeps its one instance
		case r.Follow:
			mergeLive(ctx, cancel, sources, s.later(ctx, t, o), yield)
		default:
			mergeStored(sources, r.Tail, yield)
		}
	}
}

func (s *Supervisor) source(ctx context.Context, at place, o runtime.LogOptions) source {
	return source{at: at, lines: runtime.ReadLog(ctx, s.paths.log(at.unit, at.instance, at.container), o)}
}

// later are the logs of instances that the unit gets from now on, until it has
// ended or ctx has.
func (s *Supervisor) later(ctx context.Context, t target, o runtime.LogOptions) <-chan source {
	e := t.entry
	if began := time.Now(); began.After(o.Since) {
		o.Since = began // its file may hold what an earlier revision wrote
	}
	o.Tail = 0
	known := map[string]bool{}
	for _, i := range e.instances {
		known[i.name] = true
	}
	ch := make(chan source)
	go func() {
		defer close(ch)
		_ = s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
			now := snap.find(e.unit.Name)
			if over(e, now) {
				return true, nil
			}
			for _, i := range now.instances {
				if known[i.name] {
					continue
				}
				known[i.name] = true
				for _, at := range t.logsOf(i.name) {
					select {
					case ch <- s.source(ctx, at, o):
					case <-ctx.Done():
					}
				}
			}
			return false, nil
		})
	}()
	return ch
}

// over tells whether the unit is gone, or has ended for good.
func over(e, now *entry) bool {
	return now == nil || now.serial != e.serial || now.final && now.live == 0
}

// endOf is closed when the unit has ended for good or is gone.
func (s *Supervisor) endOf(ctx context.Context, e *entry, follow bool) <-chan struct{} {
	if !follow {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.awaitSnapshot(ctx, func(snap *snapshot) (bool, error) {
			return over(e, snap.find(e.unit.Name)), nil
		})
	}()
	return done
}

// source is one container's log.
type source struct {
	at    place
	lines iter.Seq2[runtime.LogLine, error]
}

func (s *source) line(l runtime.LogLine) api.LogLine {
	return api.LogLine{Unit: s.at.unit, Instance: s.at.instance, Container: s.at.shown(), Time: l.Time, Stream: l.Stream, Partial: l.Partial, Text: l.Text}
}

func (s *source) copy(yield func(api.LogLine, error) bool) bool {
	for l, err := range s.lines {
		if !yield(s.line(l), err) {
			return false
		}
	}
	return true
}

// mergeStored merges what is in the files by time.
func mergeStored(sources []source, tail int, yield func(api.LogLine, error) bool) {
	type head struct {
		line api.LogLine
		next func() (runtime.LogLine, error, bool)
		from *source
	}
	var heads []*head
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	// advance keeps the heads that have a line; false ends the merge.
	advance := func(h *head) (more, ok bool) {
		l, err, valid := h.next()
		if !valid {
			return false, true
		}
		if err != nil {
			return true, yield(api.LogLine{}, err)
		}
		h.line = h.from.line(l)
		return true, true
	}
	for i := range sources {
		next, stop := iter.Pull2(sources[i].lines)
		stops = append(stops, stop)
		h := &head{next: next, from: &sources[i]}
		more, ok := advance(h)
		if !ok {
			return
		}
		if more {
			heads = append(heads, h)
		}
	}
	var last []api.LogLine // with a tail: what is to be yielded at the end
	for len(heads) > 0 {
		h := slices.MinFunc(heads, func(a, b *head) int { return a.line.Time.Compare(b.line.Time) })
		if tail > 0 {
			h.line.Text = slices.Clone(h.line.Text)
			last = append(last, h.line)
		} else if !yield(h.line, nil) {
			return
		}
		more, ok := advance(h)
		if !ok {
			return
		}
		if !more {
			heads = slices.DeleteFunc(heads, func(x *head) bool { return x == h })
		}
	}
	for _, l := range last[max(0, len(last)-tail):] {
		if !yield(l, nil) {
			return
		}
	}
}

// lull is how long a live merge waits for a line that may be older than the
// one it has.
const lull = 20 * time.Millisecond

// mergeLive merges files that still grow, and those that join: what stands
// there by time, new lines nearly so. stop ends ctx, under which the sources
// are read.
func mergeLive(ctx context.Context, stop context.CancelFunc, sources []source, later <-chan source, yield func(api.LogLine, error) bool) {
	type item struct {
		line api.LogLine
		err  error
	}
	all := make(chan item)
	ended := make(chan struct{})
	left := 0
	follow := func(from source) {
		left++
		go func() {
			defer func() { ended <- struct{}{} }()
			from.copy(func(l api.LogLine, err error) bool {
				l.Text = slices.Clone(l.Text)
				select {
				case all <- item{l, err}:
					return true
				case <-ctx.Done():
					return false
				}
			})
		}()
	}
	defer func() {
		stop()
		for later != nil {
			if _, ok := <-later; !ok {
				later = nil
			}
		}
		for ; left > 0; left-- {
			<-ended
		}
	}()
	var held []item
	flush := func() bool {
		slices.SortStableFunc(held, func(a, b item) int { return a.line.Time.Compare(b.line.Time) })
		for _, h := range held {
			if !yield(h.line, h.err) {
				return false
			}
		}
		held = held[:0]
		return true
	}
	for _, from := range sources {
		follow(from)
	}
	for left > 0 || later != nil {
		var quiet <-chan time.Time
		if len(held) > 0 {
			quiet = time.After(lull)
		}
		select {
		case from, ok := <-later:
			if ok {
				follow(from)
			} else {
				later = nil
			}
		case i := <-all:
			if held = append(held, i); (len(held) >= 4096 || left == 1) && !flush() {
				return
			}
		case <-ended:
			left--
		case <-quiet:
			if !flush() {
				return
			}
		}
	}
	flush()
}

// Events yields stored events after seq, then, with follow, new ones as they come.
func (s *Supervisor) Events(ctx context.Context, since uint64, follow bool) iter.Seq2[api.Event, error] {
	return s.events.Read(ctx, since, follow)
}
