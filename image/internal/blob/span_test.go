package blob

import (
	"math/rand/v2"
	"testing"
)

// The spans agree with a plain array of what is there.
func TestSpansAgainstAnArray(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var s spans
		var there [64]bool
		for range 12 {
			from := rnd.Int64N(64)
			x := span{from, from + rnd.Int64N(65-from)}
			s = s.add(x)
			for i := x.from; i < x.to; i++ {
				there[i] = true
			}
			check(t, s, there[:])
		}
	}
}

func check(t *testing.T, s spans, there []bool) {
	t.Helper()
	var total int64
	for i := range s {
		if s[i].from >= s[i].to || i > 0 && s[i-1].to >= s[i].from {
			t.Fatal("not sorted and apart:", s)
		}
	}
	for i := range int64(len(there)) {
		reach := i
		for reach < int64(len(there)) && there[reach] {
			reach++
		}
		if got := s.reach(i); got != reach {
			t.Fatalf("%v: reach(%d) is %d, want %d", s, i, got, reach)
		}
		from := i
		for from < int64(len(there)) && there[from] {
			from++
		}
		to := from
		for to < int64(len(there)) && !there[to] {
			to++
		}
		gap, ok := s.gap(i, int64(len(there)))
		if ok != (from < int64(len(there))) || ok && gap != (span{from, to}) {
			t.Fatalf("%v: gap(%d) is %v %v, want %d to %d", s, i, gap, ok, from, to)
		}
		if there[i] {
			total++
		}
	}
	if s.total() != total {
		t.Fatal(s, s.total(), total)
	}
}
