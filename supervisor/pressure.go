package supervisor

import (
	"fmt"
	"sync"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// aboutDisk is what notices about a full disk are about.
const aboutDisk = "disk"

// level is how short the disk is.
type level int

const (
	roomy    level = iota
	tight          // above the high mark, with nothing left to delete
	critical       // into the reserve: pulls are refused
)

// What must be better, before a level ends, than what began it.
const (
	slackPercent = 2.0
	slackReserve = 1.1
)

// pressure remembers how short the disk was last, so that what hovers at a mark
// is told once.
type pressure struct {
	mu   sync.Mutex
	now  level
	text string
}

// judge says how short the disk is, given how short it was.
func (was level) judge(d image.DiskState, high int) level {
	reserve, mark := float64(d.Reserve), float64(high)
	if was == critical {
		reserve *= slackReserve
	}
	if was >= tight {
		mark -= slackPercent
	}
	switch {
	case d.Reserve > 0 && float64(d.Free) < reserve:
		return critical
	case d.Used >= mark, inodesUsed(d) >= mark:
		return tight
	}
	return roomy
}

// inodesUsed is in percent.
func inodesUsed(d image.DiskState) float64 {
	if d.Inodes <= 0 {
		return 0
	}
	return 100 * float64(d.Inodes-d.InodesFree) / float64(d.Inodes)
}

// words says it for people.
func (l level) words(d image.DiskState, high int) string {
	short := fmt.Sprintf("%s is %.0f %% full, above %d %%, and no image can be deleted: %s free", d.Path, d.Used, high, sizeWords(d.Free))
	if d.Used < float64(high)-slackPercent {
		short = fmt.Sprintf("%s has used %.0f %% of its inodes, above %d %%: %d left", d.Path, inodesUsed(d), high, d.InodesFree)
	}
	switch l {
	case critical:
		return fmt.Sprintf("%s is full, images cannot be pulled: %s free, %s are kept free", d.Path, sizeWords(d.Free), sizeWords(d.Reserve))
	case tight:
		return short
	}
	return fmt.Sprintf("%s has room again: %.0f %% used, %s free", d.Path, d.Used, sizeWords(d.Free))
}

// note takes in how full the disk is. A change is an event; until it is over,
// `status` shows it. It tells whether pulls that were refused may work now.
func (s *Supervisor) note(d image.DiskState) (eased bool) {
	high := s.opts.Load().GC.High
	s.pressure.mu.Lock()
	defer s.pressure.mu.Unlock()
	was := s.pressure.now
	now := was.judge(d, high)
	text := now.words(d, high)
	if now == roomy {
		s.pressure.text = ""
		s.notices.set(aboutDisk)
	} else {
		s.pressure.text = text
		s.notices.set(aboutDisk, text)
	}
	if now == was {
		return false
	}
	s.pressure.now = now
	s.event(api.Event{Type: event.DiskPressure, Message: text, Fields: map[string]any{
		"pressure": now != roomy, "pulls_refused": now == critical, "path": d.Path, "used": d.Used, "free": d.Free, "reserve": d.Reserve,
		"total": d.Total, "inodes": d.Inodes, "inodes_free": d.InodesFree}})
	return was == critical
}

// sizeWords prints bytes for people, in the units of the command line's tables.
func sizeWords(n int64) string {
	const unit = 1000
	f, i := float64(n), 0
	for f >= unit && i < 5 {
		f, i = f/unit, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTP"[i-1])
}
