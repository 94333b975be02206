package runtime

import (
	"context"
	"errors"
	"iter"
	"time"
)

// LogLine is one record of a container's output.
type LogLine struct {
	Time    time.Time
	Stream  string // "stdout" or "stderr"
	Partial bool   // the line goes on in the next record
	Text    []byte // without the newline
}

// LogOptions select what ReadLog yields.
type LogOptions struct {
	Follow bool // wait for more until ctx ends or Until says the writer is done
	Tail   int  // only the last n lines; 0 or less: all
	Since  time.Time
	// Done, if set, ends a Follow: once it is closed, what is in the files is
	// still yielded, then the iteration ends.
	Done <-chan struct{}
}

// ReadLog yields the records of a container's log file and its rotated
// segments, oldest first. Follow survives rotation. The yielded Text is valid
// until the next step. An absent file yields nothing (or waits, with Follow).
func ReadLog(ctx context.Context, path string, o LogOptions) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) { yield(LogLine{}, errors.ErrUnsupported) }
}
