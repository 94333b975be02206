package supervisor

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// source is one container's log being read.
type source struct {
	at    place
	place runtime.LogPlace // behind the last line read
	lines iter.Seq2[runtime.LogLine, error]
}

func (s *source) line(l runtime.LogLine) api.LogLine {
	s.place = l.At
	cursor := api.Cursor{Instance: s.at.instance, Container: s.at.shown(), Segment: l.At.Segment, Offset: l.At.Offset}
	return api.LogLine{Unit: s.at.unit, Instance: s.at.instance, Container: s.at.shown(), Run: l.Run, Time: l.Time, Stream: l.Stream,
		Partial: l.Partial, Text: l.Text, Cursor: cursor.String()}
}

func (s *source) copy(yield func(api.LogLine, error) bool) bool {
	for l, err := range s.lines {
		if err != nil {
			if !yield(api.LogLine{}, err) {
				return false
			}
		} else if !yield(s.line(l), nil) {
			return false
		}
	}
	return true
}

// head is the next line of a source in a merge.
type head struct {
	from *source
	next func() (runtime.LogLine, error, bool)
	line api.LogLine
}

// storedMerge merges what is in the files by time. Lines of the same time keep the
// order of the sources, and those of one source their own, whatever the clock did.
type storedMerge struct {
	heads []*head
	tail  int
	last  []api.LogLine // with a tail: what is to be yielded at the end
	yield func(api.LogLine, error) bool
}

// mergeStored tells whether the consumer wants more.
func mergeStored(sources []*source, tail int, yield func(api.LogLine, error) bool) bool {
	m := &storedMerge{tail: tail, yield: yield}
	for _, from := range sources {
		next, stop := iter.Pull2(from.lines)
		defer stop()
		if h := (&head{from: from, next: next}); !m.join(h) {
			return false
		}
	}
	for len(m.heads) > 0 {
		h := slices.MinFunc(m.heads, func(a, b *head) int { return a.line.Time.Compare(b.line.Time) })
		if !m.give(h.line) || !m.advance(h) {
			return false
		}
	}
	for _, l := range lastLines(m.last, max(tail, 0)) {
		if !yield(l, nil) {
			return false
		}
	}
	return true
}

// join adds a source that has a line.
func (m *storedMerge) join(h *head) bool {
	m.heads = append(m.heads, h)
	return m.advance(h)
}

// advance goes on to the head's next line, or drops the head. What a source cannot
// read does not keep the others from being read.
func (m *storedMerge) advance(h *head) bool {
	for {
		l, err, valid := h.next()
		switch {
		case !valid:
			m.heads = slices.DeleteFunc(m.heads, func(x *head) bool { return x == h })
			return true
		case err == nil:
			h.line = h.from.line(l)
			return true
		case !m.yield(api.LogLine{}, err):
			return false
		}
	}
}

// give yields a line, or keeps it for the end.
func (m *storedMerge) give(l api.LogLine) bool {
	if m.tail <= 0 {
		return m.yield(l, nil)
	}
	l.Text = slices.Clone(l.Text)
	m.last = append(m.last, l)
	if len(m.last) > 2*m.tail+tailSlack {
		m.last = append(m.last[:0], lastLines(m.last, m.tail)...)
	}
	return true
}

// tailSlack is how many lines more than wanted are kept before some are let go.
const tailSlack = 1024

// lull is how long a live merge waits for a line that may be older than the
// first one it has.
const lull = 20 * time.Millisecond

// mostHeld bounds what a live merge keeps meanwhile.
const mostHeld = 4096

type liveItem struct {
	line api.LogLine
	err  error
}

// liveMerge merges files that still grow, and those that join, nearly by time.
type liveMerge struct {
	ctx   context.Context // of the sources; stop ends it
	stop  context.CancelFunc
	yield func(api.LogLine, error) bool

	items chan liveItem
	ended chan struct{} // of one source
	left  int
	held  []liveItem
}

// follow begins to read a source.
func (m *liveMerge) follow(from *source) {
	m.left++
	go func() {
		defer func() { m.ended <- struct{}{} }()
		from.copy(func(l api.LogLine, err error) bool {
			l.Text = slices.Clone(l.Text)
			select {
			case m.items <- liveItem{l, err}:
				return true
			case <-m.ctx.Done():
				return false
			}
		})
	}()
}

// run yields until all sources have ended and no further one comes, or until the
// consumer wants no more.
func (m *liveMerge) run(later <-chan *source) {
	defer func() { m.end(later) }()
	timer := time.NewTimer(lull)
	defer timer.Stop()
	for m.left > 0 || later != nil {
		select {
		case from, ok := <-later:
			if ok {
				m.follow(from)
			} else {
				later = nil
			}
		case i := <-m.items:
			if len(m.held) == 0 {
				timer.Reset(lull)
			}
			m.held = append(m.held, i)
			if (len(m.held) >= mostHeld || m.left == 1) && !m.flush() {
				return
			}
		case <-m.ended:
			m.left--
		case <-timer.C:
			if !m.flush() {
				return
			}
		}
	}
	m.flush()
}

// end waits for everything that was begun.
func (m *liveMerge) end(later <-chan *source) {
	m.stop()
	for later != nil {
		if _, ok := <-later; !ok {
			later = nil
		}
	}
	for ; m.left > 0; m.left-- {
		<-m.ended
	}
}

func (m *liveMerge) flush() bool {
	slices.SortStableFunc(m.held, func(a, b liveItem) int { return a.line.Time.Compare(b.line.Time) })
	for _, h := range m.held {
		if !m.yield(h.line, h.err) {
			return false
		}
	}
	m.held = m.held[:0]
	return true
}

// lastLines are the last n lines. Pieces of a long line count as the one that it is,
// except where another source's come between.
func lastLines(lines []api.LogLine, n int) []api.LogLine {
	open := map[string]bool{} // by source and stream: its latest piece belongs to a line that is counted
	for i := len(lines) - 1; i >= 0; i-- {
		l := lines[i]
		key := api.JoinTarget(l.Instance, l.Container) + " " + l.Stream
		if !l.Partial || !open[key] {
			if n--; n < 0 {
				return lines[i+1:]
			}
		}
		open[key] = true
	}
	return lines
}
