package image

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/internal/disk"
)

var gcNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// img makes a resident that was last used some days ago and has the parts.
func img(digest string, days int, parts ...string) resident {
	return resident{digest: digest, names: []string{digest + ":1"}, parts: parts, pulled: gcNow.AddDate(0, 0, -30), used: gcNow.AddDate(0, 0, -days)}
}

func nameless(s resident) resident {
	s.names = nil
	return s
}

func neededBy(s resident, why ...string) resident {
	s.needed = why
	return s
}

// aged is one that was pulled a while ago and never used.
func aged(s resident, d time.Duration) resident {
	s.pulled, s.used = gcNow.Add(-d), time.Time{}
	return s
}

// full is a disk of 1000 bytes and 1000 inodes.
func full(used, inodes int64) disk.Stat {
	return disk.Stat{Total: 1000, Used: used, Free: 1000 - used, Inodes: 1000, InodesFree: 1000 - inodes}
}

func TestDecide(t *testing.T) {
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		disk   disk.Stat
		images []resident
		fixed  []string
		o      GCOptions
		want   string // those that go, in order
	}{
		"there is room":                   {full(500, 0), []resident{img("a", 9, "p100")}, nil, GCOptions{}, ""},
		"nameless ones go in any case":    {full(500, 0), []resident{img("a", 9, "p100"), nameless(img("b", 1, "q1"))}, nil, GCOptions{}, "b"},
		"nameless, but used":              {full(500, 0), []resident{neededBy(nameless(img("b", 1, "q1")), "x")}, nil, GCOptions{All: true}, ""},
		"nameless, but young":             {full(500, 0), []resident{nameless(img("b", 1, "q1"))}, nil, GCOptions{MinAge: 2 * day}, ""},
		"all":                             {full(500, 0), []resident{img("a", 1, "p100"), img("b", 3, "q1"), neededBy(img("c", 9, "r1"), "x")}, nil, GCOptions{All: true}, "b a"},
		"the oldest, until Low":           {full(860, 0), []resident{img("a", 1, "p100"), img("b", 3, "q50"), img("c", 2, "r50")}, nil, GCOptions{}, "b c"},
		"High itself is too much":         {full(850, 0), []resident{img("a", 1, "p50")}, nil, GCOptions{}, "a"},
		"just below":                      {full(849, 0), []resident{img("a", 1, "p50")}, nil, GCOptions{}, ""},
		"other marks":                     {full(600, 0), []resident{img("a", 2, "p100"), img("b", 1, "q100")}, nil, GCOptions{High: 60, Low: 50}, "a"},
		"Low above High":                  {full(600, 0), []resident{img("a", 2, "p100"), img("b", 1, "q100")}, nil, GCOptions{High: 55, Low: 90}, "a"},
		"needed ones stay, however full":  {full(990, 0), []resident{neededBy(img("a", 9, "p100"), "container web.1 uses it")}, nil, GCOptions{}, ""},
		"young ones stay, however full":   {full(990, 0), []resident{aged(img("a", 9, "p100"), time.Hour), aged(img("b", 9, "q1"), 2*time.Hour)}, nil, GCOptions{MinAge: 2 * time.Hour}, "b"},
		"of a clock that was ahead":       {full(990, 0), []resident{aged(img("a", 9, "p100"), -300*day), aged(img("b", 9, "q1"), -30*time.Second)}, nil, GCOptions{MinAge: 2 * time.Hour}, "a"},
		"used lately is young too":        {full(990, 0), []resident{img("a", 1, "p100")}, nil, GCOptions{MinAge: 2 * day}, ""},
		"shared parts free nothing":       {full(860, 0), []resident{img("a", 3, "s60", "p10"), img("b", 2, "s60", "q50"), img("c", 1, "r60")}, nil, GCOptions{}, "a b"},
		"nor do those that a lease has":   {full(860, 0), []resident{img("a", 3, "s60"), img("b", 2, "q60"), img("c", 1, "r1")}, []string{"s60"}, GCOptions{}, "a b"},
		"nameless ones count":             {full(860, 0), []resident{img("a", 9, "p100"), nameless(img("b", 1, "q100"))}, nil, GCOptions{}, "b"},
		"room for a pull":                 {full(500, 0), []resident{img("a", 9, "p100"), img("b", 1, "q1")}, nil, GCOptions{Room: 550}, "a"},
		"room that is there":              {full(500, 0), []resident{img("a", 9, "p100"), img("b", 1, "q1")}, nil, GCOptions{Room: 500}, ""},
		"inodes":                          {full(100, 900), []resident{img("a", 9, "p1"), img("b", 1, "q1")}, nil, GCOptions{}, "a b"},
		"inodes, of which few are needed": {full(100, 850), []resident{img("a", 9, "p50"), img("b", 1, "q1")}, nil, GCOptions{}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			cs := census{now: gcNow, disk: c.disk, images: c.images, sizes: map[string]disk.Tree{}, fixed: map[string]bool{}}
			for _, s := range c.images {
				for _, p := range s.parts { // a part is named after its size
					var n int64
					fmt.Sscanf(p[1:], "%d", &n)
					cs.sizes[p] = disk.Tree{Bytes: n, Files: n}
				}
			}
			for _, p := range c.fixed {
				cs.fixed[p] = true
			}
			fates := decide(cs, c.o)
			var went []string
			for _, v := range fates {
				if len(v.reasons) == 0 {
					t.Errorf("%s: no reason", v.digest)
				}
				if v.goes {
					went = append(went, v.digest)
				}
			}
			if got := strings.Join(went, " "); got != c.want || len(fates) != len(c.images) {
				t.Errorf("goes: %q, want %q", got, c.want)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	sizes := map[string]disk.Tree{"p": {Bytes: 120 << 20}}
	for name, c := range map[string]struct {
		used int64
		s    resident
		o    GCOptions
		want []string
	}{
		"needed": {900, neededBy(img("a", 12, "p"), "container web.1-7f3k uses it", "revision 3 of unit web"), GCOptions{},
			[]string{"container web.1-7f3k uses it", "revision 3 of unit web"}},
		"young": {900, aged(img("a", 0, "p"), 2*time.Hour), GCOptions{MinAge: 24 * time.Hour}, []string{"pulled 2 h ago, younger than 24h"}},
		"used":  {900, img("a", 3, "p"), GCOptions{MinAge: 96*time.Hour + 30*time.Minute}, []string{"last used 3 days ago, younger than 96h30m"}},
		"room": {710, img("a", 12, "p"), GCOptions{},
			[]string{"nobody needs it", "disk 71 % used, below 85 %", "unused for 12 days: first of 1 to go, frees 125.8 MB"}},
		"full": {860, img("a", 12, "p"), GCOptions{},
			[]string{"nobody needs it", "disk 86 % used, above 85 %", "unused for 12 days: first of 1 to go, frees 125.8 MB"}},
		"nameless": {1, nameless(aged(img("a", 0, "p"), 40*time.Second)), GCOptions{},
			[]string{"nobody needs it", "it has no name any more", "unused for 40 s: first of 1 to go, frees 125.8 MB"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := decide(census{now: gcNow, disk: full(c.used, 0), images: []resident{c.s}, sizes: sizes}, c.o)
			if !slices.Equal(v[0].reasons, c.want) {
				t.Errorf("%q", v[0].reasons)
			}
		})
	}
}

// Whatever the host looks like: what is needed or young stays, nothing goes
// without need, and no image goes before one that is unused longer.
func TestDecideProperties(t *testing.T) {
	r := rand.New(rand.NewChaCha8([32]byte{7}))
	for range 2000 {
		c := census{now: gcNow, disk: full(r.Int64N(1000), r.Int64N(1000)), sizes: map[string]disk.Tree{}, fixed: map[string]bool{}}
		for i := range r.IntN(8) {
			s := img(fmt.Sprint("i", i), r.IntN(6))
			for range 1 + r.IntN(3) {
				p := fmt.Sprint("p", r.IntN(10))
				c.sizes[p] = disk.Tree{Bytes: r.Int64N(200), Files: r.Int64N(50)}
				c.fixed[p] = r.IntN(5) == 0
				if !slices.Contains(s.parts, p) {
					s.parts = append(s.parts, p)
				}
			}
			if r.IntN(4) == 0 {
				s.needed = []string{"x"}
			}
			if r.IntN(4) == 0 {
				s.names = nil
			}
			c.images = append(c.images, s)
		}
		o := GCOptions{High: 50, Low: 40, MinAge: 48 * time.Hour, All: r.IntN(4) == 0}
		after := c.disk
		users := c.users()
		var last fate
		for _, v := range decide(c, o) {
			young := c.now.Sub(v.last()) < o.MinAge
			switch {
			case !v.goes:
				if v.rank > 0 && (o.All || len(v.names) == 0) {
					t.Fatalf("%+v stays", v)
				}
				last = v
				continue
			case len(v.needed) > 0 || young:
				t.Fatalf("%+v goes", v)
			case last.rank > 0:
				t.Fatalf("%+v goes, but not the older %+v", v, last)
			case !o.All && len(v.names) > 0 && (overfull(c.disk, 50) == "" || overfull(after, 40.0001) == ""):
				t.Fatalf("%+v goes without need, disk %+v, then %+v", v, c.disk, after)
			}
			f := c.release(v.resident, users)
			after.Used -= f.Bytes
			after.Free += f.Bytes
			after.InodesFree += f.Files
		}
	}
}
