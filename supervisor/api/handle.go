package api

import (
	"context"
	"net/http"
)

// TargetsRequest names containers that run: units, instances, or either with a
// container, see SplitTarget. POST /v1/containers:pause and :resume.
type TargetsRequest struct {
	Targets []string `json:"targets"`
}

// KillRequest sends a signal. POST /v1/containers:kill.
type KillRequest struct {
	TargetsRequest
	Signal string `json:"signal,omitempty"` // "HUP", "SIGHUP" or "1"; empty: SIGKILL
}

// TargetsResult is the containers that something was done to.
type TargetsResult struct {
	Containers []string `json:"containers"`
}

// Pause freezes the processes of containers.
func (c *Client) Pause(ctx context.Context, targets ...string) ([]string, error) {
	return c.handle(ctx, "pause", TargetsRequest{targets})
}

// Resume lets them go on.
func (c *Client) Resume(ctx context.Context, targets ...string) ([]string, error) {
	return c.handle(ctx, "resume", TargetsRequest{targets})
}

// Kill sends a signal to containers' main processes.
func (c *Client) Kill(ctx context.Context, r KillRequest) ([]string, error) {
	return c.handle(ctx, "kill", r)
}

func (c *Client) handle(ctx context.Context, verb string, r any) ([]string, error) {
	var res TargetsResult
	err := c.call(ctx, http.MethodPost, "/containers:"+verb, nil, r, &res)
	return res.Containers, err
}
