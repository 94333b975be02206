package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// lock says what an operation needs of its unit.
type lock int

const (
	free   lock = iota // nothing: the unit may change or go meanwhile
	shared             // that it stays as it is
	alone              // nobody else, it changes the unit
)

// op is something that is done to a unit.
type op struct {
	name    string
	weight  int
	lock    lock
	when    func(c *cargo) bool // nil: always; with the lock held
	do      func(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error
	refused func(error) bool // answers that are as good
}

func up(c *cargo) bool    { return c.there && !c.stopped && c.kind.steady }
func there(c *cargo) bool { return c.there }

// opLimit is how long an operation may take on a loaded machine: a multiple of a stop's
// grace period, of a restart of the daemon, and of a pull.
const opLimit = 4 * time.Minute

var ops = []*op{
	{name: "apply", weight: 10, lock: alone, do: apply},
	{name: "stop", weight: 4, lock: alone, when: there, do: stop},
	{name: "start", weight: 5, lock: alone, when: func(c *cargo) bool { return c.there && c.stopped }, do: start},
	{name: "restart", weight: 4, lock: alone, when: there, do: restart},
	{name: "rm", weight: 3, lock: alone, when: there, do: remove},
	{name: "update", weight: 4, lock: alone, when: up, do: update},
	{name: "pause, resume", weight: 3, lock: alone, when: up, do: freeze},
	{name: "kill", weight: 3, lock: alone, when: up, do: kill},
	{name: "exec", weight: 14, lock: shared, when: up, do: execute},
	{name: "exec storm", weight: 3, lock: shared, when: up, do: storm},
	{name: "exec anyway", weight: 5, lock: free, do: execute, refused: func(err error) bool { return errors.Is(err, api.ErrInvalid) || paused(err) }},
	{name: "exec on a terminal", weight: 3, lock: shared, when: up, do: terminal},
	{name: "attach, detach", weight: 4, lock: shared, when: up, do: attach},
	{name: "copy in and out", weight: 4, lock: shared, when: up, do: copyFiles},
	{name: "logs", weight: 5, lock: free, do: logs},
	{name: "logs -f, cut", weight: 4, lock: free, do: followLogs},
	{name: "top, stats", weight: 3, lock: free, do: usage},
	{name: "inspect, exits", weight: 3, lock: free, do: inspect},
	{name: "fetch the page", weight: 6, lock: shared, when: func(c *cargo) bool { return up(c) && c.kind.name == "web" }, do: fetchPage},
	{name: "pull", weight: 4, lock: free, do: pull},
	{name: "image rm", weight: 2, lock: free, do: removeImage,
		refused: func(err error) bool { return errors.Is(err, api.ErrExists) || errors.Is(err, api.ErrNoSuchImage) }},
	{name: "image gc", weight: 1, lock: free, do: collect},
	{name: "reload", weight: 1, lock: free, do: reload},
	{name: "run --rm", weight: 5, lock: free, do: runOnce},
	{name: "run -d, rm", weight: 2, lock: free, do: runDetached},
	{name: "wait", weight: 1, lock: free, do: wait, refused: func(err error) bool { return errors.Is(err, api.ErrTimeout) }},
}

// work does one operation after the other until the noise is over.
func (s *soak) work(ctx context.Context, over <-chan struct{}, r *rand.Rand, worker int) {
	// First its share of the units, for there is nothing yet.
	for i := worker; i < len(s.all); i += s.o.workers {
		s.one(ctx, ops[0], r, s.all[i])
	}
	total := 0
	for _, o := range ops {
		total += o.weight
	}
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(r.IntN(60)) * time.Millisecond):
		}
		at := r.IntN(total)
		for _, o := range ops {
			if at -= o.weight; at < 0 {
				s.one(ctx, o, r, s.all[r.IntN(len(s.all))])
				break
			}
		}
	}
}

// one does an operation, unless the unit is not in a state for it.
func (s *soak) one(ctx context.Context, o *op, r *rand.Rand, c *cargo) {
	switch o.lock {
	case shared:
		if !c.mu.TryRLock() {
			return
		}
		defer c.mu.RUnlock()
	case alone:
		if !c.mu.TryLock() {
			return
		}
		defer c.mu.Unlock()
	}
	if o.when != nil && !o.when(c) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	began := time.Now()
	err := o.do(limited, s, r, c)
	s.judge(ctx, o, c, began, err)
}

// insist repeats what must happen until it has, whoever is killed meanwhile.
func (s *soak) insist(ctx context.Context, do func() error) error {
	for {
		began := time.Now()
		err := do()
		if err == nil || ctx.Err() != nil || !cutOff(err) || !s.h.troubled(began, time.Now()) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
