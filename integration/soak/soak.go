package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/supervisor/api"
)

// soak is one of them, from its first unit to its verdict.
type soak struct {
	o     options
	h     *host
	shelf *shelf
	all   []*cargo
	watch *watch
	began time.Time

	mu       sync.Mutex
	failures []string
	counts   map[string]*tally
}

// tally counts what became of one kind of operation.
type tally struct {
	done, refused, cut int // as it should, for an expected reason, by something that we killed
	longest            time.Duration
}

// config of the daemon: what is unneeded goes at once, so that a collection has work.
const config = "gc: {min_age: 1s, keep_revisions: 2}\nlogging: {max_size: %dMiB, max_file: 3}\n"

// run is a whole soak. An error says that something has failed or leaked; all is taken
// away in any case.
func run(ctx context.Context, o options) (err error) {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1 << 32)
	}
	if o.workers == 0 {
		o.workers = 4 + o.units/12
	}
	if o.warmup == 0 {
		o.warmup = min(max(o.duration/6, 8*time.Second), time.Minute)
	}
	// What the shell has open beside the usual three is handed down to daemon and keeper, and
	// would seem to come and go with them.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close-on-exec: %w", err)
	}
	s := &soak{o: o, counts: map[string]*tally{}}
	if s.shelf, err = newShelf(); err != nil {
		return err
	}
	defer s.shelf.Close()
	if s.h, err = newHost(o, s.failed); err != nil {
		return err
	}
	o.say("soak of %v with %d units in %s, --seed %d", o.duration, o.units, s.h.dir, o.seed)
	defer func() {
		if serr := s.end(err != nil); err == nil {
			err = serr
		}
	}()
	if err := s.h.start(ctx, fmt.Sprintf(config, 10)); err != nil {
		return err
	}
	return s.phases(ctx)
}

// phases are the noise to get warm, the first measurement, the noise, and the second one.
func (s *soak) phases(ctx context.Context) error {
	s.watch = newWatch(s)
	s.o.say("getting warm for %v", s.o.warmup)
	if err := s.noise(ctx, 0, s.o.warmup); err != nil {
		return err
	}
	before, err := s.settle(ctx, nil)
	if err != nil {
		return err
	}
	s.o.say("noise for %v", s.o.duration)
	s.began = time.Now()
	s.counts = map[string]*tally{}
	s.h.forgetKills()
	if err := s.noise(ctx, 1, s.o.duration); err != nil {
		return err
	}
	after, err := s.settle(ctx, before)
	if err != nil {
		return err
	}
	s.report()
	if leaks := compare(os.Stdout, before, after); len(leaks) > 0 {
		s.explain(ctx)
		return fmt.Errorf("%d figures are not what they were: %s", len(leaks), strings.Join(leaks, "; "))
	}
	return s.verdict()
}

// noise makes the units and does things to them for a while, then lets what should
// run come up, and reads all logs.
func (s *soak) noise(ctx context.Context, part uint64, d time.Duration) error {
	s.all = deal(newRand(s.o.seed, 0), s.o.units) // the same names each time: their volumes stay
	watching, quit := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	s.watch.start(watching, &watchers)
	defer watchers.Wait()
	defer quit()
	over := make(chan struct{})
	var workers sync.WaitGroup
	for i := range s.o.workers {
		r := newRand(s.o.seed, part<<32+100+uint64(i))
		workers.Go(func() { s.work(ctx, over, r, i) })
	}
	// The last part is without kills: what leaks in a process needs one that lives.
	workers.Go(func() { s.havoc(ctx, newRand(s.o.seed, part<<32+1), d*7/10) })
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	close(over)
	workers.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.comesUp(ctx)
	s.readAll(ctx)
	return ctx.Err()
}

// comeUp is how long a unit may take to run again once nobody disturbs it: the longest
// back-off of the units, and starts of all of them on a loaded machine.
const comeUp = 4 * time.Minute

// comesUp waits until what should run does.
func (s *soak) comesUp(ctx context.Context) {
	var last []string
	was := map[string]bool{}
	for end := time.Now().Add(comeUp); ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		units, err := s.h.client.Units(ctx)
		if err == nil {
			if last = s.down(units, was); len(last) == 0 {
				return
			}
		} else {
			last = []string{err.Error()}
		}
		if time.Now().After(end) {
			s.failed("after %v of quiet these do not run:\n  %s", comeUp, strings.Join(last, "\n  "))
			return
		}
	}
}

// down lists units that should run and do not. For one that crashes by design it is enough to
// have been up once, or to have waited for its next try, which was then notes.
func (s *soak) down(units []api.Unit, was map[string]bool) (down []string) {
	is := map[string]api.Unit{}
	for _, u := range units {
		is[u.Name] = u
	}
	for _, c := range s.all {
		u, there := is[c.name]
		switch {
		case !c.there || c.stopped || was[c.name]:
			continue
		case !there:
			down = append(down, c.name+" is not there")
		case c.kind.steady && (u.State != "running" || u.Running != u.Replicas),
			!c.kind.steady && u.State != "running" && u.State != "backoff" && u.State != "starting" && !c.kind.once,
			c.kind.once && u.State != "running" && u.State != "completed" && u.State != "failed":
			down = append(down, fmt.Sprintf("%s is %s, %d of %d run: %s", c.name, u.State, u.Running, u.Replicas, u.Reason))
		default:
			was[c.name] = !c.kind.steady
		}
	}
	return down
}

// readAll reads every log from its beginning.
func (s *soak) readAll(ctx context.Context) {
	for _, c := range s.all {
		if c.there && ctx.Err() == nil {
			s.watch.readLog(ctx, c)
		}
	}
}

// settle removes everything, waits for quiet, and measures.
func (s *soak) settle(ctx context.Context, before *measures) (*measures, error) {
	call, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if _, err := s.h.client.Remove(call, api.ActRequest{All: true, Force: true}); err != nil {
		return nil, fmt.Errorf("remove all units: %w\n%s", err, s.h.logs())
	}
	for _, c := range s.all {
		c.there = false
	}
	if _, err := s.h.client.CollectImages(call, api.GCRequest{All: true}); err != nil {
		return nil, fmt.Errorf("collect images: %w", err)
	}
	if err := s.beginAll(call); err != nil {
		return nil, err
	}
	for _, name := range images { // the same ones each time
		if _, err := s.h.client.Pull(call, api.PullRequest{Ref: s.shelf.ref(name)}, nil, nil); err != nil {
			return nil, fmt.Errorf("pull: %w", err)
		}
		if _, err := s.h.client.RemoveImage(call, s.shelf.ref(name), false); err != nil {
			return nil, fmt.Errorf("remove image: %w", err)
		}
	}
	time.Sleep(1100 * time.Millisecond) // gc.min_age
	if _, err := s.h.client.CollectImages(call, api.GCRequest{All: true}); err != nil {
		return nil, fmt.Errorf("collect images: %w", err)
	}
	return s.measure(ctx, before)
}

// beginAll uses what is opened for good when it is first used: each measurement is of processes that have done so,
// whatever they came to since the last kill.
func (s *soak) beginAll(ctx context.Context) error {
	for _, network := range []string{"none", "host", "bridge"} {
		code, _, errs, err := s.ctl(ctx, "run", "--rm", "--net", network, s.shelf.ref(images[0]), "true")
		if err != nil || code != 0 {
			return fmt.Errorf("run --net %s: exit code %d, %v: %s", network, code, err, errs)
		}
	}
	return nil
}

// end takes everything away. What is left fails the soak.
func (s *soak) end(early bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if early {
		if _, err := s.h.client.Remove(ctx, api.ActRequest{All: true, Force: true}); err != nil {
			s.o.say("remove all units: %v", err)
		}
	}
	s.h.client.Close()
	s.h.stop()
	left := s.h.left()
	for end := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(end); left = s.h.left() {
		time.Sleep(100 * time.Millisecond)
	}
	for _, l := range left {
		s.failed("left behind after daemon and units: %s", l)
	}
	err := s.verdict()
	if s.o.keep || err != nil {
		s.o.say("logs are in %s", s.h.keepLogs())
	}
	return errorsJoin(err, sweepAll(s.h.dir))
}

// failed records what must not be. The soak goes on: there may be more.
func (s *soak) failed(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.failures = append(s.failures, text)
	n := len(s.failures)
	s.mu.Unlock()
	if n <= 40 {
		s.o.say("FAILED: %s", text)
	}
}

func (s *soak) verdict() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.failures); n > 0 {
		return fmt.Errorf("%d failures, the first: %s", n, s.failures[0])
	}
	return nil
}

func (s *soak) count(op string, took time.Duration, what func(*tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.counts[op]
	if t == nil {
		t = &tally{}
		s.counts[op] = t
	}
	what(t)
	t.longest = max(t.longest, took)
}
