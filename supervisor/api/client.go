package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
)

// Client talks to a daemon. It is safe for concurrent use. Errors of the
// daemon are *Error; ErrUnreachable when nobody answers.
type Client struct {
	socket string
	http   *http.Client
}

// Dial makes a client of the daemon at socket. The first call connects.
func Dial(socket string) *Client {
	c := &Client{socket: socket}
	var d net.Dialer
	c.http = &http.Client{Transport: &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := d.DialContext(ctx, "unix", socket)
			if err != nil && ctx.Err() == nil {
				var op *net.OpError
				if errors.As(err, &op) {
					err = op.Err // the path stands in our own message
				}
				err = &UnreachableError{Socket: socket, Err: err}
			}
			return conn, err
		},
	}}
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// open makes a call and returns its answer, whose body the caller closes. A body
// that is a reader goes out as it is, any other as JSON.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	return c.openWith(ctx, method, path, query, body, nil)
}

// openWith is open with further headers.
func (c *Client) openWith(ctx context.Context, method, path string, query url.Values, body any, header http.Header) (*http.Response, error) {
	r, stream := body.(io.Reader)
	if body != nil && !stream {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	u := "http://wherry/" + Version + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, r)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	res, err := c.http.Do(req)
	for try := 0; try < lostTries && method == http.MethodGet && isLost(err) && ctx.Err() == nil; try++ {
		res, err = c.http.Do(req)
	}
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		return nil, answerError(res)
	}
	return res, nil
}

// lostTries is how often a question is asked again. A daemon that is being restarted may have taken the connection without reading from it; its
// socket is systemd's, and the next daemon answers.
const lostTries = 3

// isLost says whether somebody took the connection, but did not answer. net/http has many words for it, not all of them errors to compare with.
func isLost(err error) bool {
	var unreachable *UnreachableError
	return err != nil && !errors.As(err, &unreachable)
}

// transportError says that the daemon went away, without the URL that
// net/http puts in front.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var unreachable *UnreachableError
	if errors.As(err, &unreachable) {
		return unreachable
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	return &UnreachableError{Socket: c.socket, Err: fmt.Errorf("connection lost: %w", err)}
}

// answerError reads the Error that a failed call is answered with.
func answerError(res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	e := &Error{}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Code, e.Message = CodeInternal, fmt.Sprintf("the daemon answered %s", res.Status)
	}
	return e
}

// call makes a call and reads its answer into out.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	res, err := c.open(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return c.transportError(ctx, err)
	}
	return nil
}
