package keeper

import (
	"log/slog"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/logfile"
)

// output is a container's log. What cannot be written there is counted in it once that works again; until then only the
// keeper's own log tells of it. As the Writer, it is for one caller at a time.
type output struct {
	file   *logfile.Writer
	logger *slog.Logger
	told   time.Time // when it was
}

// tellEvery is how often it is told at most: where a marker still fits on the disk and nothing behind it, dropping begins again and again.
const tellEvery = time.Minute

// openLog opens a container's log, for output of its run; no path means that nobody wants it.
func openLog(c runtime.LogConfig, run string, logger *slog.Logger) (*output, error) {
	if c.Path == "" {
		return nil, nil
	}
	w, err := logfile.Open(c.Path, c.MaxSize, c.MaxFile)
	if err != nil {
		return nil, err
	}
	// What stands there already may be of another run, also when a keeper goes on: this one has been silent until now.
	if err := w.StartRun(run, time.Now()); err != nil {
		w.Close()
		return nil, err
	}
	return &output{file: w, logger: logger}, nil
}

func (o *output) write(stream string, at time.Time, p []byte) {
	o.tell(at, o.file.Write(stream, at, p))
}

func (o *output) drop(stream string, d logfile.Dropped) {
	o.tell(d.To, o.file.Drop(stream, d, logfile.ErrSlow))
}

// tell is given what began to be dropped, and why.
func (o *output) tell(at time.Time, err error) {
	if err == nil || at.Sub(o.told) < tellEvery && !at.Before(o.told) {
		return
	}
	o.told = at
	o.logger.Warn("a container's output is dropped until it can be written", "err", err)
}

func (o *output) close() {
	if err := o.file.Close(); err != nil {
		o.logger.Warn("close a container's log", "err", err)
	}
}
