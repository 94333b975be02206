package daemon

import (
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

// entry is what was sent to a journal.
type entry struct {
	message  string
	priority journal.Priority
	fields   map[string]string
}

// journalOf logs to a journal that keeps its last entry.
func journalOf(level slog.Level) (*slog.Logger, *entry) {
	e := &entry{}
	return slog.New(newJournalHandler(level, func(message string, p journal.Priority, fields map[string]string) error {
		*e = entry{message, p, fields}
		return nil
	})), e
}

func TestJournal(t *testing.T) {
	log, e := journalOf(slog.LevelInfo)
	check := func(message string, p journal.Priority, fields map[string]string) {
		t.Helper()
		fields["SYSLOG_IDENTIFIER"] = "wherry"
		if e.message != message || e.priority != p || !maps.Equal(e.fields, fields) {
			t.Errorf("sent %q, %d, %v", e.message, e.priority, e.fields)
		}
	}
	log.Warn("container does not end", "unit", "web", "container", "web.1-7f3k.app", "err", errors.New("it sleeps"))
	check(`container does not end unit=web container=web.1-7f3k.app err="it sleeps"`, journal.PriWarning,
		map[string]string{"WHERRY_UNIT": "web", "WHERRY_CONTAINER": "web.1-7f3k.app", "WHERRY_INSTANCE": "web.1", "WHERRY_ERR": "it sleeps"})
	log.Debug("nobody asked for this")
	check(`container does not end unit=web container=web.1-7f3k.app err="it sleeps"`, journal.PriWarning, e.fields)
	log.With("unit", "db").WithGroup("disk").Error("full", "free-bytes", 12, slog.Group("inodes", "free", 3))
	check("full unit=db disk.free-bytes=12 disk.inodes.free=3", journal.PriErr,
		map[string]string{"WHERRY_UNIT": "db", "WHERRY_DISK_FREE_BYTES": "12", "WHERRY_DISK_INODES_FREE": "3"})
	log.Info("ready")
	check("ready", journal.PriInfo, map[string]string{})
}

func TestInstanceOf(t *testing.T) {
	for container, want := range map[string]string{"web.1": "web.1", "web.1/app": "web.1", "web.1-7f3k": "web.1", "web.12-7f3k.app": "web.12",
		"my.site.3-aaaa.x": "my.site.3", "web": "", "sha256:12": ""} {
		if got := instanceOf(container); got != want {
			t.Errorf("%s: %q, want %q", container, got, want)
		}
	}
}
