package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// newLogger writes to the journal of systemd if stderr leads there, with a field for each attribute, so that
// `journalctl -u wherry WHERRY_UNIT=web -p warning` works; else lines to stderr.
func newLogger(level slog.Level) *slog.Logger {
	if ok, err := journal.StderrIsJournalStream(); err == nil && ok && journal.Enabled() {
		return slog.New(newJournalHandler(level, journal.Send))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// send has the signature of journal.Send.
type send func(message string, priority journal.Priority, fields map[string]string) error

// journalHandler gives each record to the journal: the message with all attributes as people read it, and each attribute as a field
// of its own, WHERRY_UNIT, WHERRY_EVENT and so on.
type journalHandler struct {
	level  slog.Level
	text   slog.Handler // writes attributes into out.line
	out    *journalOut
	prefix string            // of groups
	fields map[string]string // of With
}

// journalOut is shared by all handlers that were derived from one.
type journalOut struct {
	mu   sync.Mutex
	line bytes.Buffer
	send send
}

func newJournalHandler(level slog.Level, to send) journalHandler {
	out := &journalOut{send: to}
	return journalHandler{level: level, out: out, text: slog.NewTextHandler(&out.line, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
				return slog.Attr{}
			}
			return a
		}})}
}

func (h journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.fields = maps.Clone(h.fields)
	if h.fields == nil {
		h.fields = map[string]string{}
	}
	for _, a := range attrs {
		addField(h.fields, h.prefix, a)
	}
	h.text = h.text.WithAttrs(attrs)
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "_"
		h.text = h.text.WithGroup(name)
	}
	return h
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "wherry"}
	maps.Copy(fields, h.fields)
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.prefix, a)
		return true
	})
	if c := fields["WHERRY_CONTAINER"]; c != "" {
		if i := instanceOf(c); i != "" {
			fields["WHERRY_INSTANCE"] = i
		}
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.line.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	message := strings.TrimSpace(r.Message + " " + h.out.line.String())
	err := h.out.send(message, priorityOf(r.Level), fields)
	if err != nil { // a journal that is being restarted: stderr is a stream to the next one
		_, _ = os.Stderr.WriteString(message + "\n")
	}
	return err
}

func priorityOf(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

func addField(to map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, b := range v.Group() {
			addField(to, prefix, b)
		}
		return
	}
	if a.Key != "" {
		to[fieldName(prefix+a.Key)] = v.String()
	}
}

// fieldName is a key as the journal allows it: capitals, digits and underscores, at most 64 (systemd.journal-fields(7)).
func fieldName(key string) string {
	name := "WHERRY_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), 64)]
}

// instances are "web.1", the beginning of "web.1/app", of "web.1-7f3k" and of "web.1-7f3k.app".
var instances = regexp.MustCompile(`^(.+?\.[0-9]+)([-/].*)?$`)

// instanceOf is the instance that a container of the log belongs to; empty if it does not say.
func instanceOf(container string) string {
	if m := instances.FindStringSubmatch(container); m != nil {
		return m[1]
	}
	return ""
}
