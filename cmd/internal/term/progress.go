package term

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Progress shows transfers of several parts: on a terminal a bar each and a
// total with rate and time left, redrawn in place; elsewhere one line when a part
// is done.
type Progress struct {
	out  Stream
	noun string // what the parts are part of
	now  func() time.Time

	mu    sync.Mutex
	parts []part
	whole whole
	drawn int // lines of bars on the terminal
	at    time.Time
}

type part struct {
	name, step  string
	done, total int64
	ended       bool
}

// whole is what is known of all parts together.
type whole struct {
	done, total int64
	rate        int64 // per second; 0: not known
	left        time.Duration
}

// drawEvery bounds how often bars are redrawn.
const drawEvery = 60 * time.Millisecond

// NewProgress shows on out how noun is transferred.
func NewProgress(out Stream, noun string) *Progress {
	return &Progress{out: out, noun: noun, now: time.Now}
}

// Update says how far a part is. ended parts get their line.
func (p *Progress) Update(name, step string, done, total int64, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.parts, func(x part) bool { return x.name == name })
	if i < 0 {
		i = len(p.parts)
		p.parts = append(p.parts, part{name: name})
	}
	x := &p.parts[i]
	first := ended && !x.ended
	x.step, x.done, x.ended = step, max(x.done, done), ended
	x.total = max(x.total, total)
	if !p.out.TTY {
		if first {
			fmt.Fprintf(p.out, "%s: %s: %s%s\n", p.noun, Clean(x.name), step, sizeNote(x.total))
		}
		return
	}
	if now := p.now(); first || now.Sub(p.at) >= drawEvery {
		p.at = now
		p.draw()
	}
}

// Whole says how far all parts together are. Without it, the total is their sum.
func (p *Progress) Whole(done, total, rate int64, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = whole{max(p.whole.done, done), max(p.whole.total, total), rate, left}
	if now := p.now(); p.out.TTY && len(p.parts) > 0 && now.Sub(p.at) >= drawEvery {
		p.at = now
		p.draw()
	}
}

func sizeNote(n int64) string {
	if n == 0 {
		return ""
	}
	return " (" + Size(n) + ")"
}

// Clear takes the bars away, so that something else can be printed.
func (p *Progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn > 0 {
		fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

// Finish draws the last state; what is printed next stands below it.
func (p *Progress) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out.TTY && len(p.parts) > 0 {
		p.draw()
		p.drawn = 0
	}
}

// draw redraws all bars; mu is held.
func (p *Progress) draw() {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	sum := part{name: "total"}
	ended := true
	for _, x := range p.parts {
		b.WriteString("\x1b[K" + bar(x, p.out.Width, "") + "\n")
		sum.done += x.done
		sum.total += x.total
		ended = ended && x.ended
	}
	p.drawn = len(p.parts)
	if w := p.whole; w.total > 0 {
		sum.done, sum.total = w.done, w.total
	}
	if note := p.whole.note(); len(p.parts) > 1 || note != "" {
		if ended {
			note = ""
		}
		b.WriteString("\x1b[K" + bar(sum, p.out.Width, note) + "\n")
		p.drawn++
	}
	_, _ = p.out.Write([]byte(b.String()))
}

// note is rate and time left.
func (w whole) note() string {
	if w.rate <= 0 {
		return ""
	}
	text := "  " + Size(w.rate) + "/s"
	if w.left > 0 {
		text += ", " + Short(w.left+time.Second-1) + " left"
	}
	return text
}

// bar is one line: name, step, bar, bytes, note. It leaves the last column free,
// or the terminal would wrap.
func bar(x part, width int, note string) string {
	if x.ended {
		x.done = x.total
	}
	head := fmt.Sprintf("%-12s  %-8s ", cut(Clean(x.name), 12), cut(Clean(x.step), 24))
	tail := fmt.Sprintf(" %s/%s", Size(x.done), Size(x.total)) + note
	if x.total == 0 {
		return cut(strings.TrimRight(head, " "), width-1)
	}
	room := min(width-1-len([]rune(head))-len(tail)-2, 40)
	if room < 4 {
		return cut(head+strings.TrimLeft(tail, " "), width-1)
	}
	full := int(int64(room) * min(x.done, x.total) / x.total)
	return head + "[" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "]" + tail
}
