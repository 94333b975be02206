package supervisor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

const healEvery = 30 * time.Second

// heal keeps the network as it should be, whoever changes it.
func (s *Supervisor) heal(ctx context.Context) {
	n, ok := s.net.(interface{ Heal(context.Context) error })
	if !ok {
		return
	}
	for sleep(ctx, healEvery) {
		var err error
		if len(s.net.Leases()) > 0 {
			err = n.Heal(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		for _, m := range s.judge(ctx, err) {
			s.post(m)
		}
	}
}

// judge sorts what is wrong with the network: runs that have lost their device
// are returned, everything else is for the operator to see to.
func (s *Supervisor) judge(ctx context.Context, err error) []severed {
	var gone []severed
	var notes []string
	for _, err := range split(err) {
		var of *network.RunError
		if errors.As(err, &of) && errors.Is(err, network.ErrDeviceGone) {
			gone = append(gone, severed{of.Run})
			continue
		}
		notes = append(notes, "network: "+err.Error())
	}
	if s.notices.set(aboutNetwork, notes...) {
		for _, note := range notes {
			s.log.Warn("network not healed", "err", note)
		}
		if len(notes) == 0 {
			s.log.Info("network healed")
		}
	}
	return s.stillUp(ctx, gone)
}

// stillUp leaves out runs that have just ended: their devices go with them.
func (s *Supervisor) stillUp(ctx context.Context, gone []severed) []severed {
	if len(gone) == 0 {
		return nil
	}
	all, err := s.rt.List(ctx)
	return slices.DeleteFunc(gone, func(m severed) bool {
		return err != nil || !slices.ContainsFunc(all, func(st runtime.Status) bool {
			return st.Run == m.run && st.State == runtime.Running
		})
	})
}

// split takes joined errors apart, but not one error with several causes.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}

// severed is a live run that has lost its network device.
type severed struct{ run string }

const severedReason = "its network device was removed, only a new run gets another"

// handle has the run replaced: the plan starts the next one. It is no failure
// of the run's. What its policy never starts again is left to its work, and
// to the operator.
func (m severed) handle(l *loop) {
	r := l.runs[m.run]
	if r == nil || r.phase != plan.Up || l.work[r.Run] != nil || l.work[r.Instance] != nil || l.ending || l.descent != nil {
		return
	}
	if r.Revision.Definition.Restart.Condition == unit.Never {
		if !r.severed {
			r.severed = true
			l.event(api.Event{Type: event.Severed, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run,
				Message: "its network device was removed; it is left alone, its policy is not to start it again"})
		}
		return
	}
	l.event(api.Event{Type: event.Severed, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Message: severedReason})
	l.dispatchStop(plan.Action{Kind: plan.Stop, Unit: r.Unit.Name, Instance: r.Instance, Run: r.Run, Reason: severedReason})
	l.touch(r.Unit.Name)
}
