package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Operation is long work under way that goes on without its caller. GET
// /v1/operations lists them; one that has ended is not there any more.
type Operation struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"`           // pull
	Object    string    `json:"object"`         // the image, as it was asked for
	Unit      string    `json:"unit,omitempty"` // whose start needs it
	Instance  string    `json:"instance,omitempty"`
	By        string    `json:"by,omitempty"` // who asked for it
	StartedAt time.Time `json:"started_at"`

	// The latest that it said of itself, as in Progress.
	Step  string        `json:"step,omitempty"`
	Done  int64         `json:"done,omitempty"`
	Total int64         `json:"total,omitempty"`
	Rate  int64         `json:"rate,omitempty"`
	Left  time.Duration `json:"left,omitempty"` // nanoseconds
}

// Abort is what became of an operation that somebody aborted. POST
// /v1/operations/ID:abort.
type Abort struct {
	Operation Operation `json:"operation"`
	GoesOn    bool      `json:"goes_on,omitempty"` // another operation does the same
}

// Operations lists what is under way, the oldest first.
func (c *Client) Operations(ctx context.Context) (o []Operation, err error) {
	return o, c.call(ctx, http.MethodGet, "/operations", nil, nil, &o)
}

// Abort ends an operation.
func (c *Client) Abort(ctx context.Context, id string) (a Abort, err error) {
	return a, c.call(ctx, http.MethodPost, "/operations/"+url.PathEscape(id)+":abort", nil, nil, &a)
}
