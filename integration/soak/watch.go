package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// watch checks all along what must hold.
type watch struct {
	s *soak

	mu     sync.Mutex
	exits  map[string]bool // records that were looked at
	byEnd  map[string]int  // how programs ended
	seq    uint64          // of the last event
	events map[string]int  // by type
	lines  int             // of counters
	losses int             // that the logs tell of
	worst  time.Duration   // of ctl status
	asked  int
}

func newWatch(s *soak) *watch {
	return &watch{s: s, exits: map[string]bool{}, byEnd: map[string]int{}, events: map[string]int{}}
}

// start watches until ctx ends; watchers are waited for by the caller.
func (w *watch) start(ctx context.Context, watchers *sync.WaitGroup) {
	watchers.Go(func() { every(ctx, time.Second, func() { w.lookAtExits(ctx) }) })
	watchers.Go(func() { every(ctx, 2*time.Second, func() { w.askStatus(ctx) }) })
	watchers.Go(func() { every(ctx, 10*time.Second, func() { w.tell(ctx) }) })
	watchers.Go(func() { w.followEvents(ctx) })
	for i, c := range w.s.all {
		if c.kind.name == "flood" || i%5 != 0 && !strings.HasPrefix(c.name, "multi") {
			continue // what floods may be gone before it is read
		}
		watchers.Go(func() { w.followLog(ctx, c, newRand(w.s.o.seed, 1000+uint64(i))) })
	}
}

func every(ctx context.Context, d time.Duration, do func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			do()
		}
	}
}

// lookAtExits compares what was recorded with what the programs said.
func (w *watch) lookAtExits(ctx context.Context) {
	for _, c := range w.s.all {
		began := time.Now()
		list, err := w.s.h.client.Exits(ctx, c.name)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, api.ErrNoSuchUnit), err != nil && w.s.h.troubled(began, time.Now()):
			continue
		case err != nil:
			w.s.failed("exits of %s: %v", c.name, err)
			continue
		}
		for _, rec := range list {
			w.lookAt(c, rec)
		}
	}
}

func (w *watch) lookAt(c *cargo, rec api.ExitRecord) {
	key := fmt.Sprint(rec.Run, "/", rec.Container, rec.StartedAt.UnixNano(), rec.At.UnixNano())
	w.mu.Lock()
	seen := w.exits[key]
	w.exits[key] = true
	w.mu.Unlock()
	if seen {
		return
	}
	how, err := w.judge(c, rec)
	w.mu.Lock()
	w.byEnd[how]++
	w.mu.Unlock()
	if err != nil {
		w.s.failed("%s of %s: %v (started %s, at %s, stopped %v, exit %+v, last words %q)", rec.Container, rec.Run, err,
			rec.StartedAt.Format(clock), rec.At.Format(clock), rec.Stopped, rec.Exit, lastWords(rec))
	}
}

const clock = "15:04:05.000"

// judge says how a container ended, and whether the record is true.
func (w *watch) judge(c *cargo, rec api.ExitRecord) (how string, err error) {
	x := rec.Exit
	troubled := w.s.h.troubled(rec.At.Add(-20*time.Second), rec.At.Add(time.Second))
	if x == nil {
		if troubled || c.nudgedSince(rec.At.Add(-20*time.Second)) {
			return "start cut off", nil
		}
		return "start failed", fmt.Errorf("start failed: %s: %s", rec.Step, rec.Error)
	}
	excused := rec.Stopped || c.nudgedSince(rec.StartedAt.Add(-time.Second))
	word, said := lastWord(rec)
	code, cerr := strconv.Atoi(word)
	switch {
	case x.Unknown && c.kind.name == "bare" && troubled:
		return "unknown", nil // without an init its end is seen by keeper and daemon alone, and both were killed
	case x.Unknown:
		return "unknown", errors.New("nobody knows how it ended")
	case said && cerr == nil && x.Code == code && x.Signal == "":
		return "code", nil
	case said && strings.HasPrefix(word, "SIG") && x.Signal == word:
		return "signal", nil
	case said && word == "OOM" && x.Signal == "SIGKILL" && (x.OOM || troubled):
		return "oom", nil
	case excused && x.Signal != "":
		return "stopped", nil
	case c.kind.name == "tty" && troubled:
		return "terminal lost", nil // with both daemon and keeper
	case c.kind.name == "bare" && troubled && !said && x.Signal == "":
		return "last words lost", nil // likewise: without an init nobody else holds its pipes
	case said:
		return "wrong", fmt.Errorf("it said that it ends with %s", word)
	case excused:
		return "stopped", fmt.Errorf("it was stopped, and has a code of its own")
	}
	return "without a word", errors.New("it ended by itself, without having said so")
}

// lastWord is how a program said that it is going to end.
func lastWord(rec api.ExitRecord) (word string, said bool) {
	for _, l := range rec.Output {
		if after, ok := strings.CutPrefix(strings.TrimSpace(l.Text), "bye "); ok {
			word, said = after, true
		}
	}
	return word, said
}

func lastWords(rec api.ExitRecord) (last []string) {
	for _, l := range rec.Output[max(0, len(rec.Output)-3):] {
		last = append(last, l.Text)
	}
	return last
}

// askStatus runs `wherry ctl status`, which always answers while a daemon is there.
func (w *watch) askStatus(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	began := time.Now()
	c := exec.CommandContext(limited, w.s.h.bin+"/wherry", "ctl", "--socket", w.s.h.socket, "status")
	out, err := c.CombinedOutput()
	took := time.Since(began)
	w.mu.Lock()
	w.asked++
	w.worst = max(w.worst, took)
	w.mu.Unlock()
	if err != nil && ctx.Err() == nil && !w.s.h.troubled(began, time.Now()) {
		w.s.failed("ctl status after %v: %v\n%s", took, err, out)
	}
}

// followEvents follows from the first event on, and again from the last one that it has seen
// whenever the connection is lost.
func (w *watch) followEvents(ctx context.Context) {
	r := newRand(w.s.o.seed, 2)
	for ctx.Err() == nil {
		began := time.Now()
		cut, cancel := context.WithTimeout(ctx, time.Duration(2+r.IntN(20))*time.Second)
		err := w.someEvents(cut)
		mine := cut.Err() != nil
		cancel()
		if err != nil && !mine && !w.s.h.troubled(began, time.Now()) {
			w.s.failed("events: %v", err)
		}
		pause(ctx, time.Duration(r.IntN(300))*time.Millisecond)
	}
}

func (w *watch) someEvents(ctx context.Context) error {
	for e, err := range w.s.h.client.Events(ctx, w.seq, true) {
		if err != nil {
			return err
		}
		if w.seq != 0 && e.Seq != w.seq+1 {
			w.s.failed("event %d comes after event %d: %s %s %s", e.Seq, w.seq, e.Type, e.Unit, e.Message)
		}
		w.mu.Lock()
		w.seq = e.Seq
		w.events[e.Type]++
		w.mu.Unlock()
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// followLog follows a unit's log, with connections that are cut and taken up again by cursors.
func (w *watch) followLog(ctx context.Context, c *cargo, r *rand.Rand) {
	g := newGaps(w, c, true)
	cursors := api.Cursors{}
	for ctx.Err() == nil {
		began := time.Now()
		cut, cancel := context.WithTimeout(ctx, time.Duration(1+r.IntN(15))*time.Second)
		var err error
		for l, lerr := range w.s.h.client.LogLines(cut, api.LogsRequest{Target: c.name, Follow: true, After: cursors.List()}) {
			if err = lerr; err != nil {
				break
			}
			cursors.Note(l)
			g.note(l)
		}
		mine := cut.Err() != nil
		cancel()
		switch {
		case errors.Is(err, api.ErrNoSuchUnit), err == nil && !mine:
			// Removed; a unit of the same name begins anew.
			g, cursors = newGaps(w, c, true), api.Cursors{}
			pause(ctx, 300*time.Millisecond)
		case err != nil && !mine && !w.s.h.troubled(began, time.Now()):
			w.s.failed("logs -f %s: %v", c.name, err)
			cursors = api.Cursors{}
			g = newGaps(w, c, true)
			pause(ctx, time.Second)
		case err != nil:
			pause(ctx, 100*time.Millisecond)
		}
	}
}

// readLog reads all that is kept of a unit's log. One that floods goes on meanwhile, and
// what is deleted before it is read is missing.
func (w *watch) readLog(ctx context.Context, c *cargo) {
	g := newGaps(w, c, c.kind.name != "flood")
	for l, err := range w.s.h.client.LogLines(ctx, api.LogsRequest{Target: c.name}) {
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, api.ErrNoSuchUnit) {
				w.s.failed("logs %s: %v", c.name, err)
			}
			return
		}
		g.note(l)
	}
}

// gaps checks the numbers of one unit's log.
type gaps struct {
	w      *watch
	c      *cargo
	strict bool // no number may be missing
	last   map[string]int
	deaths map[string]int // of keepers, when a log was last in order
}

func newGaps(w *watch, c *cargo, strict bool) *gaps {
	return &gaps{w: w, c: c, strict: strict, last: map[string]int{}, deaths: map[string]int{}}
}

func (g *gaps) note(l api.LogLine) {
	key := l.Run + "/" + l.Container
	text := strings.TrimSpace(string(l.Text))
	if strings.HasPrefix(text, "wherry: ") && strings.Contains(text, "dropped") {
		g.w.mu.Lock()
		g.w.losses++
		g.w.mu.Unlock()
		g.w.s.failed("log of %s: %s", key, text)
		delete(g.last, key)
		return
	}
	number, ok := strings.CutPrefix(text, "n ")
	if !ok || l.Partial {
		return
	}
	number, _, _ = strings.Cut(number, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		g.w.s.failed("log of %s: %q", key, text)
		return
	}
	g.w.mu.Lock()
	g.w.lines++
	g.w.mu.Unlock()
	last, known := g.last[key]
	g.last[key] = n
	deaths := g.w.s.h.keeperDeaths()
	switch {
	case !known, n == last+1:
	case l.Container == "side" && n == 1: // started again within its run
	case l.Container != "" && n == 1 && g.w.s.h.troubled(l.Time.Add(-20*time.Second), l.Time): // likewise, as its start was cut off
	case n > last+1 && g.strict:
		g.w.s.failed("log of %s: after %d comes %d, at %s", key, last, n, l.Time.Format(clock))
	case n <= last && deaths == g.deaths[key]:
		g.w.s.failed("log of %s: after %d comes %d again, at %s, without a kill of the keeper", key, last, n, l.Time.Format(clock))
	}
	if n <= last {
		g.deaths[key] = deaths
	}
}
