package blob

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Connections bounds how many connections fetch blobs, in total and for each
// host. Those who wait are served in the order in which they came.
type Connections struct {
	total *semaphore.Weighted
	each  int64

	mu    sync.Mutex
	hosts map[string]*semaphore.Weighted
}

// NewConnections allows total connections, each of them to one host.
func NewConnections(total, each int) *Connections {
	return &Connections{total: semaphore.NewWeighted(int64(total)), each: int64(each), hosts: map[string]*semaphore.Weighted{}}
}

func (c *Connections) host(name string) *semaphore.Weighted {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.hosts[name]
	if !ok {
		h = semaphore.NewWeighted(c.each)
		c.hosts[name] = h
	}
	return h
}

// acquire waits for a connection; release gives it back.
func (c *Connections) acquire(ctx context.Context, name string) (release func(), err error) {
	if c == nil {
		return func() {}, nil
	}
	h := c.host(name)
	if err := h.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := c.total.Acquire(ctx, 1); err != nil {
		h.Release(1)
		return nil, context.Cause(ctx)
	}
	return func() { c.total.Release(1); h.Release(1) }, nil
}

// try takes a connection only if nobody has to wait for it.
func (c *Connections) try(name string) (release func(), ok bool) {
	if c == nil {
		return func() {}, true
	}
	h := c.host(name)
	if !h.TryAcquire(1) {
		return nil, false
	}
	if !c.total.TryAcquire(1) {
		h.Release(1)
		return nil, false
	}
	return func() { c.total.Release(1); h.Release(1) }, true
}
