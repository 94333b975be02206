package api

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// ShutdownRequest stops everything because the host goes down. What units should be
// does not change: they start again with the next daemon. POST /v1/shutdown.
type ShutdownRequest struct {
	// Budget is how long all of it may take; 0: the daemon's shutdown.budget. What
	// has not ended by then is killed.
	Budget unit.Duration `json:"budget,omitempty"`
}

// ShutdownResult says how it went.
type ShutdownResult struct {
	Stopped []string `json:"stopped"`          // units, in the order of their ends
	Killed  []string `json:"killed,omitempty"` // instances that used up the time
}

// Shutdown waits until nothing runs.
func (c *Client) Shutdown(ctx context.Context, r ShutdownRequest) (ShutdownResult, error) {
	var res ShutdownResult
	err := c.call(ctx, http.MethodPost, "/shutdown", nil, r, &res)
	return res, err
}
