package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/wherry-run/wherry/supervisor/security"
)

// Security is what a unit opens towards its host. GET /v1/units/NAME/security.
type Security = security.Report

// Security lists a unit's openings, with a score.
func (c *Client) Security(ctx context.Context, name string) (s Security, err error) {
	return s, c.call(ctx, http.MethodGet, "/units/"+url.PathEscape(name)+"/security", nil, nil, &s)
}
