package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// What changes units. That somebody is killed meanwhile does not excuse the daemon from
// doing in the end what it was asked for, so these insist.

func act(c *cargo) api.ActRequest {
	return api.ActRequest{Units: []string{c.name}, NoWait: !c.kind.steady}
}

func apply(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	text := c.text(r, s.shelf.ref(images[r.IntN(len(images))]))
	defer c.nudge() // what it leads to may come late
	err := s.insist(ctx, func() error {
		c.nudge()
		_, err := s.h.client.Apply(ctx, api.ApplyRequest{Files: []api.File{{Source: "/soak/" + c.name + ".yaml", Dir: "/", Text: text}}})
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	c.there = true
	if c.stopped || !c.kind.steady {
		return nil
	}
	return awaitUp(ctx, s, c)
}

// awaitUp waits until a unit runs that should. A start that was cut off by our own doing is tried
// again by the daemon; we wait with it.
func awaitUp(ctx context.Context, s *soak, c *cargo) error {
	for {
		began := time.Now()
		_, err := s.h.client.Wait(ctx, api.WaitRequest{Units: []string{c.name}, State: api.WaitUp, Timeout: unit.Duration(opLimit - 10*time.Second)})
		if err == nil || ctx.Err() != nil || !s.h.troubled(began, time.Now()) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func stop(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	defer c.nudge() // what it leads to may come late
	c.stopped = true
	return s.insist(ctx, func() error {
		c.nudge()
		_, err := s.h.client.Stop(ctx, api.ActRequest{Units: []string{c.name}})
		return err
	})
}

func start(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	c.stopped = false
	return s.insist(ctx, func() error {
		_, err := s.h.client.Start(ctx, act(c))
		return s.forgiven(ctx, c, err)
	})
}

func restart(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	defer c.nudge() // what it leads to may come late
	c.stopped = false
	return s.insist(ctx, func() error {
		c.nudge() // each try may end a container that the one before has started
		began := time.Now()
		_, err := s.h.client.Restart(ctx, act(c))
		if err != nil && s.h.troubled(began, time.Now()) {
			return s.forgiven(ctx, c, err)
		}
		return err
	})
}

// forgiven waits for a start that failed because something was killed.
func (s *soak) forgiven(ctx context.Context, c *cargo, err error) error {
	now := time.Now()
	if err == nil || cutOff(err) || !c.kind.steady || !s.h.troubled(now, now) {
		return err
	}
	return awaitUp(ctx, s, c)
}

func remove(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	defer c.nudge() // what it leads to may come late
	force := r.IntN(2) == 0
	tries := 0
	err := s.insist(ctx, func() error {
		c.nudge()
		tries++
		_, err := s.h.client.Remove(ctx, api.ActRequest{Units: []string{c.name}, Force: force})
		if tries > 1 && errors.Is(err, api.ErrNoSuchUnit) {
			return nil // the first try, whose answer was lost
		}
		return err
	})
	if err == nil {
		c.there, c.stopped = false, false
	}
	return err
}

func update(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	cpus, pids, memory := 0.25+float64(r.IntN(8))/4, int64(64+r.IntN(200)), int64(32+r.IntN(64))<<20
	req := api.UpdateRequest{Units: []string{c.name}, Change: unit.LimitsChange{CPUs: &cpus, Pids: &pids, Memory: &memory}}
	if c.kind.name == "multi" {
		req.Container = "main"
	}
	return s.insist(ctx, func() error {
		_, err := s.h.client.Update(ctx, req)
		return err
	})
}

func freeze(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	_, err := s.h.client.Pause(ctx, c.name)
	time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
	// Whether or not it was: it must not stay so.
	rerr := s.insist(ctx, func() error {
		_, err := s.h.client.Resume(ctx, c.name)
		return err
	})
	return errors.Join(err, rerr)
}

// paused tells whether somebody has frozen the container.
func paused(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && strings.Contains(e.Message, "is paused")
}

func kill(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	defer c.nudge() // what it leads to may come late
	c.nudge()
	sig := []string{"KILL", "TERM", "INT", "HUP", "SEGV"}[r.IntN(5)]
	_, err := s.h.client.Kill(ctx, api.KillRequest{TargetsRequest: api.TargetsRequest{Targets: []string{target(c)}}, Signal: sig})
	return err
}

// target names one container of a unit.
func target(c *cargo) string {
	if c.kind.name == "multi" {
		return c.name + "/main"
	}
	return c.name
}
