package keeper

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// newLogger writes lines for people to f. To the journal of systemd they begin with their priority, "<4>" (sd-daemon(3)), and lack
// what it adds by itself.
func newLogger(f *os.File) *slog.Logger {
	if !isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(slog.NewTextHandler(f, nil))
	}
	logrus.SetFormatter(journalFormatter{&logrus.TextFormatter{DisableTimestamp: true, DisableColors: true}})
	return slog.New(newPriorityHandler(f))
}

// isJournal says whether f leads to the journal: stream is what systemd says of the stream it has given to the service.
func isJournal(f *os.File, stream string) bool {
	var st unix.Stat_t
	return stream != "" && unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// priorityHandler is a text handler whose lines begin with a priority.
type priorityHandler struct {
	slog.Handler
	out *priorityWriter
}

// priorityWriter is shared by all handlers that were derived from one.
type priorityWriter struct {
	mu   sync.Mutex
	line bytes.Buffer
	to   io.Writer
}

func newPriorityHandler(to io.Writer) priorityHandler {
	out := &priorityWriter{to: to}
	return priorityHandler{out: out, Handler: slog.NewTextHandler(&out.line, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		}})}
}

func (h priorityHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.line.Reset()
	h.out.line.WriteString(priority(r.Level))
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.to.Write(h.out.line.Bytes())
	return err
}

func (h priorityHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return priorityHandler{h.Handler.WithAttrs(attrs), h.out}
}

func (h priorityHandler) WithGroup(name string) slog.Handler {
	return priorityHandler{h.Handler.WithGroup(name), h.out}
}

func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// journalFormatter is for what libcontainer logs.
type journalFormatter struct{ logrus.Formatter }

func (f journalFormatter) Format(e *logrus.Entry) ([]byte, error) {
	b, err := f.Formatter.Format(e)
	l := slog.LevelInfo
	switch {
	case e.Level <= logrus.ErrorLevel:
		l = slog.LevelError
	case e.Level == logrus.WarnLevel:
		l = slog.LevelWarn
	}
	return append([]byte(priority(l)), b...), err
}
