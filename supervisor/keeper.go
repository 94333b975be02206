package supervisor

import (
	"context"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// renewer is a keeper that can become another build in place.
type renewer interface {
	Outdated(ctx context.Context) (bool, error)
	Renew(ctx context.Context) (renewed bool, err error)
}

// renewLimit bounds how long a start may be held up by the keeper's upgrade:
// the new build may take 20 s to prove that it can take over.
const renewLimit = 30 * time.Second

// renewKeeper upgrades the keeper if its binary is another build than what
// runs. It is never fatal: a keeper that cannot be upgraded goes on as it is,
// and a notice says so until it can be. No start is under way meanwhile: the
// keeper would finish it, but nobody would hear of it.
func (s *Supervisor) renewKeeper(ctx context.Context) (renewed bool) {
	k, ok := s.rt.(renewer)
	if !ok {
		return false
	}
	s.renewing.Lock()
	defer s.renewing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	outdated, err := k.Outdated(ctx)
	if err == nil && outdated {
		renewed, err = s.renewBetweenStarts(ctx, k)
	}
	fields := map[string]any{"pid": s.rt.KeeperPid()}
	switch {
	case err != nil:
		s.log.Warn("keeper not upgraded, it goes on as it is", "err", err)
		if s.notices.set(aboutKeeper, "keeper not upgraded, an older build goes on: "+err.Error()) {
			s.event(api.Event{Type: event.Keeper, Message: "not upgraded, goes on as it is: " + err.Error(), Fields: fields})
		}
	case renewed:
		s.event(api.Event{Type: event.Keeper, Message: "upgraded in place", Fields: fields})
		fallthrough
	default:
		s.notices.set(aboutKeeper)
	}
	return renewed
}

// renewBetweenStarts holds all starts up for the upgrade.
func (s *Supervisor) renewBetweenStarts(ctx context.Context, k renewer) (renewed bool, err error) {
	for range startsAtOnce { // every start holds one
		select {
		case s.starts <- struct{}{}:
			defer func() { <-s.starts }()
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return k.Renew(ctx)
}
