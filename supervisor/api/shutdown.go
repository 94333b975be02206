package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// ShutdownRequest stops everything because the host goes down. What units should be
// does not change: they start again with the next daemon. POST /v1/shutdown.
type ShutdownRequest struct {
	// Budget is how long all of it may take; 0: the daemon's shutdown.budget. What
	// has not ended by then is killed.
	Budget unit.Duration `json:"budget,omitempty"`
}

// EventShutdown is the type of a shutdown's events: one of its own for each unit that has
// stopped, with no instance, and for each container that was killed.
const EventShutdown = "shutdown"

// ShutdownResult says how it went.
type ShutdownResult struct {
	Stopped []string `json:"stopped"`          // units, in the order of their ends
	Killed  []string `json:"killed,omitempty"` // instances, or INSTANCE/CONTAINER, that used up their time
	Left    []string `json:"left,omitempty"`   // instances that not even the kill has ended
}

// String says it for people.
func (r ShutdownResult) String() string {
	s := fmt.Sprintf("%d units stopped", len(r.Stopped))
	if len(r.Stopped) == 1 {
		s = "1 unit stopped"
	}
	if len(r.Killed) > 0 {
		s += "; not in time, and killed: " + strings.Join(r.Killed, ", ")
	}
	if len(r.Left) > 0 {
		s += "; still there: " + strings.Join(r.Left, ", ")
	}
	return s
}

// Shutdown waits until nothing runs. Its end calls nothing off.
func (c *Client) Shutdown(ctx context.Context, r ShutdownRequest) (ShutdownResult, error) {
	var res ShutdownResult
	err := c.call(ctx, http.MethodPost, "/shutdown", nil, r, &res)
	return res, err
}

// CancelShutdown calls a shutdown off: what was stopped starts again. DELETE /v1/shutdown.
func (c *Client) CancelShutdown(ctx context.Context) error {
	var done struct{}
	return c.call(ctx, http.MethodDelete, "/shutdown", nil, nil, &done)
}
