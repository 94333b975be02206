package supervisor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// haste is how much time a stop that is under way may still take. Nothing set:
// each container has its own grace period.
type haste struct {
	mu      sync.Mutex
	set     bool
	kill    bool
	until   time.Time
	most    time.Time     // by when all is to be over, whatever else is said; zero: nobody says
	changed chan struct{} // closed when there is less time than before
}

func newHaste() *haste { return &haste{changed: make(chan struct{})} }

// limit gives all of the run's containers together this long; below zero they are
// killed at once.
func (h *haste) limit(grace time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set, h.kill, h.until = true, grace < 0, time.Now().Add(grace)
	close(h.changed)
	h.changed = make(chan struct{})
}

// cap bounds the whole stop. Unlike limit it makes no grace period longer, and its time is
// divided between the containers that stop one after the other.
func (h *haste) cap(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = until
	close(h.changed)
	h.changed = make(chan struct{})
}

// turn is the haste of a run as one of its containers feels it.
type turn struct {
	*haste
	levels []time.Duration // the grace periods of its level and those after it, see plan.StopLevels

	most time.Time // of haste, by which end was divided
	end  time.Time // of its part; both under haste.mu
}

// grace is how long a container has now, and what tells that this has changed.
func (h *turn) grace(own time.Duration) (d time.Duration, kill bool, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set {
		own = max(time.Until(h.until), 0)
	}
	if end := h.part(); !end.IsZero() {
		own = min(own, max(time.Until(end), 0))
	}
	return own, h.set && h.kill, h.changed
}

// part is the end of the container's part of the time for all.
func (h *turn) part() time.Time {
	if h.haste.most != h.most {
		h.most = h.haste.most
		h.end = time.Now().Add(plan.Share(time.Until(h.most), h.levels, 1))
	}
	return h.end
}

// hurried tells whether somebody has set a limit.
func (h *turn) hurried() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.set || !h.haste.most.IsZero()
}

// reserve is what hooks leave of a time that nothing makes longer: room for the stop signal.
func (h *turn) reserve(grace time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.haste.most.IsZero() {
		return 0
	}
	return min(signalTime, grace/2)
}

// killAt is when a container is killed, by its own grace period at own.
func (h *turn) killAt(own time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set {
		own = h.until
	}
	if end := h.part(); !end.IsZero() && end.Before(own) {
		own = end
	}
	return own
}

// containerExit is how one container of a run ended.
type containerExit struct {
	name string
	exit runtime.Exit
}

// stopRun ends the given containers of a run and keeps trying until they have
// ended: each as soon as all that depend on it have. It takes at most the sum of
// the grace periods along the longest chain, see stopLimit.
func (s *Supervisor) stopRun(ctx context.Context, run string, list []*unit.Container, h *haste) (exits []containerExit, gaveUp bool) {
	done := map[string]chan struct{}{}
	for _, c := range list {
		done[c.Name] = make(chan struct{})
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range list {
		wg.Go(func() {
			defer close(done[c.Name])
			for _, user := range list {
				if user != c && slices.ContainsFunc(user.DependsOn, func(d unit.ContainerDependency) bool { return d.Container == c.Name }) {
					<-done[user.Name]
				}
			}
			x, ok := s.stopContainer(ctx, run, c, &turn{haste: h, levels: levelsFrom(c, list)})
			mu.Lock()
			defer mu.Unlock()
			if !ok {
				gaveUp = true
				return
			}
			exits = append(exits, containerExit{c.Name, x})
		})
	}
	wg.Wait()
	return exits, gaveUp
}

// stopContainer ends one container and keeps trying until it has ended; it is false if
// ctx ended first. Every container that is stopped, for whatever reason, is stopped here.
func (s *Supervisor) stopContainer(ctx context.Context, run string, c *unit.Container, h *turn) (runtime.Exit, bool) {
	id := containerID(run, c.Name)
	defer s.watchStop(ctx, run, c, time.Duration(c.StopGracePeriod), h)()
	grace := s.hookedIn(run, c).beforeStop(ctx, time.Duration(c.StopGracePeriod), h)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := s.stopOnce(ctx, id, grace, h)
		var x runtime.Exit
		if err == nil {
			x, err = s.rt.Wait(ctx, id)
		}
		switch {
		case err == nil:
			return x, true
		case errors.Is(err, runtime.ErrNotFound):
			return lost(time.Now()), true
		}
		if ctx.Err() == nil {
			s.log.Warn("stop tried again", "container", id, "err", err)
		}
		if !sleep(ctx, wait) {
			return runtime.Exit{}, false
		}
	}
}

// stopOnce stops once, with a shorter grace if somebody asks for it meanwhile.
func (s *Supervisor) stopOnce(ctx context.Context, id string, own time.Duration, h *turn) error {
	for {
		grace, kill, changed := h.grace(own)
		sub, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			if kill {
				done <- s.rt.Kill(sub, id)
				return
			}
			_, err := s.rt.Stop(sub, id, grace)
			done <- err
		}()
		select {
		case err := <-done:
			cancel()
			if errors.Is(err, runtime.ErrNotRunning) {
				err = nil
			}
			return err
		case <-changed:
			cancel()
			<-done
		}
	}
}

// levelsFrom are the grace periods of a container's level and of those after it, when the
// containers of list, in the order of their start, stop.
func levelsFrom(c *unit.Container, list []*unit.Container) []time.Duration {
	needed := map[string]bool{c.Name: true}
	var down []*unit.Container
	for _, other := range slices.Backward(list) {
		if needed[other.Name] {
			down = append(down, other)
			for _, d := range other.DependsOn {
				needed[d.Container] = true
			}
		}
	}
	slices.Reverse(down)
	return plan.StopLevels(down)
}

// stopLimit is how long the stop of a run may take by its containers' own grace periods.
func stopLimit(def *unit.Unit) time.Duration {
	total := map[string]time.Duration{}
	var longest time.Duration
	for _, c := range unit.StartOrder(def.Containers) {
		var before time.Duration
		for _, d := range c.DependsOn {
			before = max(before, total[d.Container])
		}
		total[c.Name] = before + time.Duration(c.StopGracePeriod)
		longest = max(longest, total[c.Name])
	}
	return longest
}
