package image

import (
	"context"
	"sync"
)

// configs are the configs that running pulls have fetched, by digest: until the first
// of them is stored, which takes as long as its layers do, the others find it here.
type configs struct {
	mu sync.Mutex
	m  map[string]*config
}

// config is one config on its way. Who has the turn may read and set body.
type config struct {
	turn chan struct{}
	refs int
	body []byte
}

// fetch returns the config that another pull has fetched, after waiting for the one
// that is at it, or what get brings. Unless there is an error, leave must follow.
func (cs *configs) fetch(ctx context.Context, digest string, get func() ([]byte, error)) ([]byte, error) {
	c := cs.enter(digest)
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		cs.leave(digest)
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.turn }()
	var err error
	if c.body == nil {
		if c.body, err = get(); err != nil {
			c.body = nil
			cs.leave(digest)
			return nil, err
		}
	}
	return c.body, nil
}

func (cs *configs) enter(digest string) *config {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.m == nil {
		cs.m = map[string]*config{}
	}
	c := cs.m[digest]
	if c == nil {
		c = &config{turn: make(chan struct{}, 1)}
		cs.m[digest] = c
	}
	c.refs++
	return c
}

// leave ends a pull's interest.
func (cs *configs) leave(digest string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.m[digest]; c != nil {
		if c.refs--; c.refs == 0 {
			delete(cs.m, digest)
		}
	}
}
