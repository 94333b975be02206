package api

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// UpdateRequest changes limits of units, and of what runs of them. POST
// /v1/units:update.
type UpdateRequest struct {
	Units     []string          `json:"units"`               // names, prefixes or globs
	Container string            `json:"container,omitempty"` // of a unit with several
	Change    unit.LimitsChange `json:"change"`
	NoWait    bool              `json:"no_wait,omitempty"`
}

// UpdateResult is what became of the units.
type UpdateResult struct {
	Units []UnitChange `json:"units"`
}

// Update changes limits without a restart.
func (c *Client) Update(ctx context.Context, r UpdateRequest) (u UpdateResult, err error) {
	return u, c.call(ctx, http.MethodPost, "/units:update", nil, r, &u)
}
