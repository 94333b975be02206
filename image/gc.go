package image

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// What a collection does unless its options say otherwise, in percent.
const (
	defaultHigh = 85
	defaultLow  = 80
)

func (o GCOptions) withDefaults() GCOptions {
	if o.High <= 0 {
		o.High = defaultHigh
	}
	if o.Low <= 0 {
		o.Low = defaultLow
	}
	o.Low = min(o.Low, o.High)
	return o
}

// census is all that the fate of images depends on. Making it reads the disk;
// deciding it does not.
type census struct {
	now     time.Time
	disk    disk.Stat
	reserve int64
	images  []resident
	fixed   map[string]bool      // blobs and layers that stay in any case
	sizes   map[string]disk.Tree // of blobs and layers
}

// resident is one image.
type resident struct {
	digest string
	names  []string
	parts  []string // its blobs and layers, each once
	pulled time.Time
	used   time.Time // last; zero: never
	needed []string  // who needs it, the weightiest first
}

// last is when anybody last wanted it.
func (s resident) last() time.Time {
	if s.used.After(s.pulled) {
		return s.used
	}
	return s.pulled
}

// fate says what becomes of an image.
type fate struct {
	resident
	goes    bool
	reasons []string
	rank    int       // among those that nobody needs: 1 goes first; 0: it is needed or too young
	unique  disk.Tree // what it does not share
}

// decide decides about all images. Those that go come first, in their order.
func decide(c census, o GCOptions) []fate {
	o = o.withDefaults()
	users := c.users()
	var stay, free []fate
	for _, s := range c.images {
		v := fate{resident: s, unique: c.unique(s, users)}
		if v.reasons = slices.Clone(s.needed); len(v.reasons) == 0 {
			v.reasons = tooYoung(s, c.now, o.MinAge)
		}
		if len(v.reasons) > 0 {
			stay = append(stay, v)
			continue
		}
		free = append(free, v)
	}
	slices.SortFunc(free, func(a, b fate) int {
		named := func(v fate) int { return min(len(v.names), 1) }
		return cmp.Or(cmp.Compare(named(a), named(b)), a.last().Compare(b.last()), cmp.Compare(a.digest, b.digest))
	})
	slices.SortFunc(stay, func(a, b fate) int { return cmp.Compare(a.digest, b.digest) })
	return append(c.choose(free, users, o), stay...)
}

// choose says which of the images that nobody needs go: nameless ones always,
// others as long as there is too little room.
func (c census) choose(free []fate, users map[string]int, o GCOptions) []fate {
	over, goal := shortage(c.disk, c.reserve, o)
	var freed disk.Tree
	gone := 0
	for i := range free {
		v := &free[i]
		v.rank = i + 1
		enough := freed.Bytes >= goal.Bytes && freed.Files >= goal.Files
		v.goes = len(v.names) == 0 || o.All || !enough
		if v.goes {
			gone++
			freed = freed.Plus(c.release(v.resident, users))
		}
	}
	for i := range free {
		v := &free[i]
		v.reasons = []string{"nobody needs it"}
		switch {
		case len(v.names) == 0:
			v.reasons = append(v.reasons, "it has no name any more")
		case o.All:
		case over == "":
			v.reasons = append(v.reasons, fullness(c.disk, o.High))
		case !v.goes:
			v.reasons = append(v.reasons, fmt.Sprintf("%s, but the %d before it free enough", over, gone))
		default:
			v.reasons = append(v.reasons, over)
		}
		v.reasons = append(v.reasons, fmt.Sprintf("unused for %s: %s of %d to go, frees %s",
			age(c.now.Sub(v.last())), ordinal(v.rank), len(free), disk.Bytes(v.unique.Bytes)))
	}
	return free
}

// shortage says what is short, "" if nothing is, and how much must go.
func shortage(st disk.Stat, reserve int64, o GCOptions) (over string, goal disk.Tree) {
	if over = overfull(st, float64(o.High)); over != "" {
		goal = excess(st, float64(o.Low))
	}
	if o.Room <= 0 {
		return over, goal
	}
	if missing := o.Room + reserve - st.Free; missing > goal.Bytes {
		goal.Bytes = missing
		over = cmp.Or(over, fmt.Sprintf("a pull needs %s more than is free above the reserve", disk.Bytes(missing)))
	}
	return over, goal
}

// users counts for each blob and layer the images that have it.
func (c census) users() map[string]int {
	n := map[string]int{}
	for _, s := range c.images {
		for _, p := range s.parts {
			n[p]++
		}
	}
	return n
}

// unique is what only this image takes.
func (c census) unique(s resident, users map[string]int) disk.Tree {
	var sum disk.Tree
	for _, p := range s.parts {
		if users[p] == 1 && !c.fixed[p] {
			sum = sum.Plus(c.sizes[p])
		}
	}
	return sum
}

// release takes an image out of users and returns what is free then.
func (c census) release(s resident, users map[string]int) disk.Tree {
	sum := c.unique(s, users)
	for _, p := range s.parts {
		users[p]--
	}
	return sum
}

// clockSlack is how far ahead of the clock an image's last use may lie. One further ahead was
// noted before the clock was set back: it says nothing, and must not keep the image for a year.
const clockSlack = time.Minute

func tooYoung(s resident, now time.Time, least time.Duration) []string {
	old := now.Sub(s.last())
	if least <= 0 || old >= least || old < -clockSlack {
		return nil
	}
	what := "pulled"
	if s.used.After(s.pulled) {
		what = "last used"
	}
	return []string{fmt.Sprintf("%s %s ago, younger than %s", what, age(old), brief(least))}
}

// overfull says what is at or above the mark; "" if nothing is.
func overfull(st disk.Stat, mark float64) string {
	switch {
	case st.Percent() >= mark:
		return fmt.Sprintf("disk %.0f %% used, above %.0f %%", st.Percent(), mark)
	case st.InodePercent() >= mark:
		return fmt.Sprintf("%.0f %% of the disk's inodes used, above %.0f %%", st.InodePercent(), mark)
	}
	return ""
}

func fullness(st disk.Stat, mark int) string {
	return fmt.Sprintf("disk %.0f %% used, below %d %%", st.Percent(), mark)
}

// excess is how much must go for the disk to be below the mark.
func excess(st disk.Stat, mark float64) disk.Tree {
	over := func(used, whole int64) int64 { return max(0, used-int64(float64(whole)*mark/100)) }
	return disk.Tree{Bytes: over(st.Used, st.Used+st.Free), Files: over(st.Inodes-st.InodesFree, st.Inodes)}
}

// age says a span as people do.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/day)
}

// brief is a duration without zeros at its end: 24h, 1h30m.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func ordinal(n int) string {
	switch n {
	case 1:
		return "first"
	case 2:
		return "second"
	case 3:
		return "third"
	}
	return fmt.Sprintf("%d.", n)
}
