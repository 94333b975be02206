package logfile

import (
	"bytes"
	"time"
)

// Streams of a container. The numbers index a Writer's state per stream.
const (
	Stdout = "stdout"
	Stderr = "stderr"

	streamOut = 0
	streamErr = 1
)

// maxText is the longest text of one record; a longer line becomes several
// partial ones. Log shippers set their buffers by this size, which is also what
// other runtimes cut at.
const maxText = 16 << 10

// stampLen is the length of "2006-01-02T15:04:05.999999999Z".
const stampLen = 30

// headLen is the length of all that stands before a record's text.
const headLen = stampLen + len(" stdout F ")

// secondLayout is the part of a time stamp that changes once a second.
const secondLayout = "2006-01-02T15:04:05."

// Record is one line of a segment, taken apart.
type Record struct {
	Time    time.Time
	Stream  string
	Partial bool   // the line goes on in the next record of the stream
	Run     string // the run that wrote it
	Text    []byte // without the newline
	At      Place  // behind the record: where to go on
}

// Place is a position in a log that stays true through rotations: the segment's
// number, and an offset in it. The zero value is the beginning.
type Place struct {
	Segment uint64
	Offset  int64
}

// stamp formats times; within a second only the fraction is formatted anew.
type stamp struct {
	second int64
	text   [stampLen]byte
	valid  bool
}

// set makes s the text of at and tells whether its second is a new one.
func (s *stamp) set(at time.Time) (newSecond bool) {
	if sec := at.Unix(); !s.valid || sec != s.second {
		s.second, s.valid, newSecond = sec, true, true
		at.UTC().AppendFormat(s.text[:0], secondLayout)
		s.text[stampLen-1] = 'Z'
	}
	n := at.Nanosecond()
	for i := stampLen - 2; i >= len(secondLayout); i-- {
		s.text[i] = byte('0' + n%10)
		n /= 10
	}
	return newSecond
}

// head is everything of a record before its text.
func (s *stamp) head(stream string, partial bool) (h [headLen]byte) {
	copy(h[:], s.text[:])
	h[stampLen] = ' '
	copy(h[stampLen+1:], stream)
	h[headLen-3], h[headLen-2], h[headLen-1] = ' ', 'F', ' '
	if partial {
		h[headLen-2] = 'P'
	}
	return h
}

// parser takes records apart. It remembers the last second it has parsed.
type parser struct {
	second []byte
	base   time.Time
	last   time.Time
}

// parse takes one line without its newline apart. What is not a record (a
// damaged block after a power cut, a foreign file) is passed on whole rather
// than lost: as stderr, with the time of the record before it.
func (p *parser) parse(line []byte) Record {
	if r, ok := p.record(line); ok {
		p.last = r.Time
		return r
	}
	return Record{Time: p.last, Stream: Stderr, Text: line}
}

func (p *parser) record(line []byte) (r Record, ok bool) {
	if isOurs(line) {
		if r.Time, ok = p.time(line[:stampLen]); ok {
			r.Stream = Stdout
			if line[stampLen+4] == 'e' { // std-e-rr
				r.Stream = Stderr
			}
			r.Partial, r.Text = line[headLen-2] == 'P', line[headLen:]
			return r, true
		}
	}
	i := bytes.IndexByte(line, ' ')
	if i < 0 {
		return r, false
	}
	if r.Time, ok = p.time(line[:i]); !ok {
		return r, false
	}
	line = line[i+1:]
	switch {
	case bytes.HasPrefix(line, []byte(Stdout+" ")):
		r.Stream = Stdout
	case bytes.HasPrefix(line, []byte(Stderr+" ")):
		r.Stream = Stderr
	default:
		return r, false
	}
	line = line[len(Stdout)+1:]
	// The tag may be a list, "P:x"; only its first letter is defined. An empty
	// text may come without the space before it.
	tag, text, _ := bytes.Cut(line, []byte{' '})
	if len(tag) == 0 || (tag[0] != 'F' && tag[0] != 'P') || (len(tag) > 1 && tag[1] != ':') {
		return r, false
	}
	r.Partial, r.Text = tag[0] == 'P', text
	return r, true
}

// isOurs tells whether a line begins as a Writer's records do, all of which
// have their parts at the same places.
func isOurs(line []byte) bool {
	if len(line) < headLen || line[stampLen] != ' ' || line[headLen-3] != ' ' || line[headLen-1] != ' ' {
		return false
	}
	if s := string(line[stampLen+1 : headLen-3]); s != Stdout && s != Stderr {
		return false
	}
	return line[headLen-2] == 'F' || line[headLen-2] == 'P'
}

// time parses our own form quickly and any other RFC 3339 form at all.
func (p *parser) time(b []byte) (time.Time, bool) {
	const cut = len(secondLayout)
	if len(b) != stampLen || b[stampLen-1] != 'Z' {
		t, err := time.Parse(time.RFC3339Nano, string(b))
		return t, err == nil
	}
	if !bytes.Equal(b[:cut], p.second) {
		t, err := time.Parse(time.RFC3339Nano, string(b[:cut-1])+"Z")
		if err != nil || b[cut-1] != '.' {
			return time.Time{}, false
		}
		p.second, p.base = append(p.second[:0], b[:cut]...), t
	}
	var n time.Duration
	for _, c := range b[cut : stampLen-1] {
		if c < '0' || c > '9' {
			return time.Time{}, false
		}
		n = n*10 + time.Duration(c-'0')
	}
	return p.base.Add(n), true
}

// isPartial tells by the tag alone whether a line is a partial record.
func isPartial(line []byte) bool {
	if isOurs(line) {
		return line[headLen-2] == 'P'
	}
	var p parser
	r, ok := p.record(line)
	return ok && r.Partial
}
