package api

import (
	"context"
	"net/http"
	"net/url"
)

// Info describes the daemon.
func (c *Client) Info(ctx context.Context) (i Info, err error) {
	return i, c.call(ctx, http.MethodGet, "/info", nil, nil, &i)
}

// Reload makes the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (r ReloadResult, err error) {
	return r, c.call(ctx, http.MethodPost, "/reload", nil, nil, &r)
}

// Units returns the units that the patterns name, sorted; all without patterns.
// A pattern is a name, a unique prefix or a glob; one that names nothing is
// ErrNoSuchUnit.
func (c *Client) Units(ctx context.Context, patterns ...string) (u []Unit, err error) {
	q := url.Values{}
	for _, p := range patterns {
		q.Add("match", p)
	}
	return u, c.call(ctx, http.MethodGet, "/units", q, nil, &u)
}

// Unit returns one unit with its definition and revisions.
func (c *Client) Unit(ctx context.Context, name string) (d UnitDetail, err error) {
	return d, c.call(ctx, http.MethodGet, "/units/"+url.PathEscape(name), nil, nil, &d)
}

// Apply makes units what the files say, all or none.
func (c *Client) Apply(ctx context.Context, r ApplyRequest) (a ApplyResult, err error) {
	return a, c.call(ctx, http.MethodPost, "/apply", nil, r, &a)
}

// Start, Stop, Restart and Remove return the units acted on. When ctx ends
// meanwhile, the daemon goes on.
func (c *Client) Start(ctx context.Context, r ActRequest) ([]string, error) {
	return c.act(ctx, "start", r)
}

// Stop stops units.
func (c *Client) Stop(ctx context.Context, r ActRequest) ([]string, error) {
	return c.act(ctx, "stop", r)
}

// Restart replaces the units' runs by new ones.
func (c *Client) Restart(ctx context.Context, r ActRequest) ([]string, error) {
	return c.act(ctx, "restart", r)
}

// Remove stops units and forgets them.
func (c *Client) Remove(ctx context.Context, r ActRequest) ([]string, error) {
	return c.act(ctx, "rm", r)
}

func (c *Client) act(ctx context.Context, verb string, r ActRequest) ([]string, error) {
	var res ActResult
	err := c.call(ctx, http.MethodPost, "/units:"+verb, nil, r, &res)
	return res.Units, err
}

// Wait waits for a state or for the end of units.
func (c *Client) Wait(ctx context.Context, r WaitRequest) (w WaitResult, err error) {
	return w, c.call(ctx, http.MethodPost, "/wait", nil, r, &w)
}

// Images lists the images of the store.
func (c *Client) Images(ctx context.Context) (i []Image, err error) {
	return i, c.call(ctx, http.MethodGet, "/images", nil, nil, &i)
}

// Image finds an image by name, digest or the beginning of one.
func (c *Client) Image(ctx context.Context, ref string) (i Image, err error) {
	return i, c.call(ctx, http.MethodGet, "/images/"+url.PathEscape(ref), nil, nil, &i)
}

// RemoveImage takes a name away, or with force all names of the image with
// this id.
func (c *Client) RemoveImage(ctx context.Context, ref string, force bool) (r ImageRemoval, err error) {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	return r, c.call(ctx, http.MethodDelete, "/images/"+url.PathEscape(ref), q, nil, &r)
}
