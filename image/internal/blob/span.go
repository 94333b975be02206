package blob

import "slices"

// span is the bytes from the first offset up to the second.
type span struct{ from, to int64 }

// spans are sorted and do not touch each other.
type spans []span

// add returns s with x in it.
func (s spans) add(x span) spans {
	if x.from >= x.to {
		return s
	}
	i, _ := slices.BinarySearchFunc(s, x.from, func(e span, from int64) int {
		if e.to < from {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(s) && s[j].from <= x.to; j++ {
		x.from, x.to = min(x.from, s[j].from), max(x.to, s[j].to)
	}
	return slices.Replace(s, i, j, x)
}

// reach is where the bytes end that are there from at on without a hole; at
// itself if there is none.
func (s spans) reach(at int64) int64 {
	for _, e := range s {
		if e.from <= at && at < e.to {
			return e.to
		}
	}
	return at
}

// gap is the first hole at or after from and before to.
func (s spans) gap(from, to int64) (span, bool) {
	for _, e := range s {
		if e.to <= from {
			continue
		}
		if e.from > from {
			return span{from, min(e.from, to)}, from < to
		}
		from = e.to
	}
	return span{from, to}, from < to
}

func (s spans) total() (n int64) {
	for _, e := range s {
		n += e.to - e.from
	}
	return n
}
