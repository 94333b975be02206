package term

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
)

// Stream is one of the process's standard streams.
type Stream struct {
	io.Writer
	TTY   bool // a terminal that understands cursor movement
	Color bool
	Width int // columns of a terminal; 0: not one, nothing is cut
}

// Open says what f is. getenv gives NO_COLOR, TERM and COLUMNS.
func Open(f *os.File, getenv func(string) string) Stream {
	s := Stream{Writer: f}
	if !term.IsTerminal(int(f.Fd())) {
		return s
	}
	s.Width = 80
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		s.Width = w
	}
	if w, err := strconv.Atoi(getenv("COLUMNS")); err == nil && w > 0 {
		s.Width = w
	}
	s.TTY = getenv("TERM") != "dumb"
	s.Color = s.TTY && getenv("NO_COLOR") == ""
	return s
}

// People reports whether a person reads the stream.
func (s Stream) People() bool { return s.Width > 0 }
