package registry

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// Ask asks the registry host itself, not its mirrors, whether it lets us in, by
// GET /v2/ as the distribution spec has it. from is where the credentials come from,
// if it wanted any, and date is its own clock, zero if it does not say.
func (c *Client) Ask(ctx context.Context, host string) (from string, date time.Time, err error) {
	n, err := name.NewRepository(host+"/wherry", name.WeakValidation)
	if err != nil {
		return "", date, fmt.Errorf("registry %s: %w", host, err)
	}
	h := c.host(realHost(n.RegistryStr()), nil)
	p := &place{host: h, login: newLogin(c, h, n, c.opts.Auth)}
	p.login.scope = "" // a login and nothing else
	resp, err := p.once(ctx, http.MethodGet, "/v2/", "", nil)
	if err != nil {
		return "", date, p.failure(ctx, err)
	}
	date, _ = http.ParseTime(resp.Header.Get("Date"))
	if resp.StatusCode == http.StatusUnauthorized {
		header, err := p.answerChallenge(ctx, resp)
		drain(resp)
		if err != nil {
			return p.login.from, date, p.failure(ctx, err)
		}
		if resp, err = p.once(ctx, http.MethodGet, "/v2/", header, nil); err != nil {
			return p.login.from, date, p.failure(ctx, err)
		}
	}
	if resp.StatusCode != http.StatusOK {
		return p.login.from, date, p.answer(ctx, resp)
	}
	drain(resp)
	return p.login.from, date, nil
}

// answerChallenge is the header that a first 401 asks for.
func (p *place) answerChallenge(ctx context.Context, resp *http.Response) (string, error) {
	ch, _ := parseChallenges(resp.Header.Values("WWW-Authenticate"))
	if ch == nil {
		return "", nil
	}
	if err := p.login.lock(ctx); err != nil {
		return "", err
	}
	defer p.login.unlock()
	if err := p.login.obtain(ctx, resp.Request.URL.Scheme, ch); err != nil {
		return "", err
	}
	return p.login.header, nil
}
