package supervisor

import (
	"log/slog"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// troubles are the events that somebody who looks for what went wrong wants to find.
var troubles = map[string]bool{
	event.ApplyFailed: true, event.StartFailed: true, event.OOM: true, event.Backoff: true, event.GiveUp: true, event.Severed: true, event.DiskPressure: true,
}

// levelOf is the level of an event in the log.
func levelOf(e api.Event) slog.Level {
	if troubles[e.Type] || e.Exit != nil && (e.Exit.Unknown || e.Exit.OOM || e.Exit.Signal == "" && e.Exit.Code != 0) {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
