package api

import (
	"fmt"
	"strconv"
	"strings"
)

// Cursor is a position in the log of one container, behind a line. It stays true
// when files are rotated, and over restarts of the daemon. Who has lost a
// connection asks for what comes after the last cursor of each log, and so gets
// every line once.
type Cursor struct {
	Instance  string
	Container string // empty: the unit has only one
	Segment   uint64
	Offset    int64
}

// String is the form that stands in LogLine and LogsRequest: "web.1@12.3456",
// "web.1/php@12.3456". What it is made of may change.
func (c Cursor) String() string {
	return fmt.Sprintf("%s@%d.%d", JoinTarget(c.Instance, c.Container), c.Segment, c.Offset)
}

// Log names the log that the cursor belongs to.
func (c Cursor) Log() string { return JoinTarget(c.Instance, c.Container) }

// ParseCursor is the inverse of Cursor.String.
func ParseCursor(text string) (Cursor, error) {
	name, place, ok := strings.Cut(text, "@")
	segment, offset, dotted := strings.Cut(place, ".")
	var c Cursor
	c.Instance, c.Container = SplitTarget(name)
	var serr, oerr error
	c.Segment, serr = strconv.ParseUint(segment, 10, 64)
	c.Offset, oerr = strconv.ParseInt(offset, 10, 64)
	if !ok || !dotted || name == "" || serr != nil || oerr != nil || c.Offset < 0 || c.String() != text {
		return Cursor{}, fmt.Errorf("%w cursor: %q", ErrInvalid, text)
	}
	return c, nil
}

// Cursors are the last ones of several logs.
type Cursors map[string]string

// Note keeps the cursor of a line that has been dealt with.
func (c Cursors) Note(l LogLine) {
	if l.Cursor != "" {
		c[JoinTarget(l.Instance, l.Container)] = l.Cursor
	}
}

// List is what LogsRequest.After wants.
func (c Cursors) List() []string {
	var list []string
	for _, text := range c {
		list = append(list, text)
	}
	return list
}
