package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// refusal is an answer that an operation may get.
type refusal string

func (r refusal) Error() string { return string(r) }

func errorsJoin(errs ...error) error { return errors.Join(errs...) }

// judge says what to make of an operation's end.
func (s *soak) judge(ctx context.Context, o *op, c *cargo, began time.Time, err error) {
	now := time.Now()
	took := now.Sub(began)
	var refused refusal
	switch {
	case err == nil:
		s.count(o.name, took, func(t *tally) { t.done++ })
	case ctx.Err() != nil: // Ctrl-C
	case errors.Is(err, context.DeadlineExceeded):
		s.failed("%s of %s: no end within %v: %v\n%s", o.name, c.name, took, err, s.h.logs())
	case errors.As(err, &refused), o.expected(c, err), c.kind.name == "tty" && errors.Is(err, api.ErrNotRunning) && s.h.troubled(began.Add(-comeBack), now):
		s.count(o.name, took, func(t *tally) { t.refused++ })
	case s.h.troubled(began, now) && cutOff(err):
		s.count(o.name, took, func(t *tally) { t.cut++ })
	default:
		s.failed("%s of %s after %v: %v", o.name, c.name, took.Round(time.Millisecond), err)
	}
}

// comeBack is how long a container may be away that somebody has killed: its back-off, of a minute
// at most, and its start.
const comeBack = 75 * time.Second

// expected are the answers of a daemon that somebody else has asked for something meanwhile.
func (o *op) expected(c *cargo, err error) bool {
	switch {
	case o.refused != nil && o.refused(err):
		return true
	case o.lock == free || !c.kind.steady, c.nudgedSince(time.Now().Add(-comeBack)):
		return errors.Is(err, api.ErrNotRunning) || errors.Is(err, api.ErrNoSuchUnit) || errors.Is(err, api.ErrNoFile)
	}
	return false
}

// cutOff are the errors of who was connected to something that was killed.
func cutOff(err error) bool {
	var e *api.Error
	return errors.Is(err, api.ErrUnreachable) || errors.Is(err, api.ErrUnavailable) || errors.Is(err, api.ErrAborted) || errors.Is(err, api.ErrNotRunning) ||
		errors.Is(err, errBeforeItBegan) || errors.As(err, &e) && strings.Contains(e.Message, "keeper")
}
