package runtime

import (
	"context"
	"iter"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/logfile"
)

// LogLine is one record of a container's output.
type LogLine struct {
	Time    time.Time
	Stream  string // "stdout" or "stderr"
	Partial bool   // the line goes on in the next record
	Run     string // the run that wrote it
	Text    []byte // without the newline
	At      LogPlace
}

// LogPlace is a position in a container's log, behind a record, that stays true
// through rotations; the zero value is the beginning. Whoever reads on After it
// misses nothing and gets nothing twice.
type LogPlace = logfile.Place

// LogOptions select what ReadLog yields.
type LogOptions struct {
	Follow bool // wait for more until ctx ends or Done is closed
	Tail   int  // only the last n lines; 0 or less: all
	Since  time.Time
	Until  time.Time // only what was written then or earlier; zero: all
	Run    string    // only what this run wrote; empty: all runs
	After  LogPlace  // only what comes behind it
	// Done, if set, ends a Follow: once it is closed, what is in the files is
	// still yielded, then the iteration ends.
	Done <-chan struct{}

	// Whole has a Follow miss nothing from its first look on: files that rotation
	// deletes are held, and take space, until they are read. What is missed all the
	// same is ErrMissed. With Run there is no telling.
	Whole bool
}

// ErrMissed says that output was rotated away before it could be read.
var ErrMissed = logfile.ErrMissed

// ReadLog yields the records of a container's log file and its rotated
// segments, oldest first. Follow survives rotation. The yielded Text is valid
// until the next step. An absent file yields nothing (or waits, with Follow).
//
// A Follow that ctx ends just ends; any other reading that ctx cuts short ends
// with its error.
func ReadLog(ctx context.Context, path string, o LogOptions) iter.Seq2[LogLine, error] {
	records := logfile.Read(ctx, path, logfile.ReadOptions(o))
	return func(yield func(LogLine, error) bool) {
		for r, err := range records {
			if !yield(LogLine(r), err) {
				return
			}
		}
	}
}

// LogRuns returns the runs of which the container's log has something, oldest
// first.
func LogRuns(path string) ([]string, error) { return logfile.Runs(path) }

// TrimLogs deletes the oldest files of all the logs below dir until they take at most
// total bytes together. What may still be written stays.
func TrimLogs(dir string, total int64) (removed int, freed int64, err error) {
	return logfile.Trim(dir, total)
}
