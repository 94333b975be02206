package api

import (
	"context"
	"net/http"
	"net/url"
)

// Vitals is how the daemon's own processes fare: what grows where something leaks.
// GET /v1/vitals, with collect=1 after a collection of garbage, with stacks=1 with what
// each goroutine is doing.
type Vitals struct {
	Daemon ProcessVitals  `json:"daemon"`
	Keeper *ProcessVitals `json:"keeper,omitempty"` // nil: it is away, or too old to tell
}

// ProcessVitals is how one process fares.
type ProcessVitals struct {
	Pid        int    `json:"pid"`
	Goroutines int    `json:"goroutines"`
	Heap       uint64 `json:"heap"` // bytes of objects
	Stacks     string `json:"stacks,omitempty"`
}

// VitalsRequest says what to do before and what to tell besides.
type VitalsRequest struct {
	Collect bool // garbage, so that Heap is what is in use
	Stacks  bool
}

// Vitals tells how daemon and keeper fare.
func (c *Client) Vitals(ctx context.Context, r VitalsRequest) (v Vitals, err error) {
	q := url.Values{}
	if r.Collect {
		q.Set("collect", "1")
	}
	if r.Stacks {
		q.Set("stacks", "1")
	}
	return v, c.call(ctx, http.MethodGet, "/vitals", q, nil, &v)
}
