package supervisor

import (
	"context"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// examined is a keeper that tells how it fares.
type examined interface {
	KeeperVitals(ctx context.Context, collect, stacks bool) (runtime.Vitals, error)
}

// Vitals tells how daemon and keeper fare. That the keeper does not tell is no error:
// it may be away, or of a release that cannot.
func (s *Supervisor) Vitals(ctx context.Context, r api.VitalsRequest) (api.Vitals, error) {
	v := api.Vitals{Daemon: api.ProcessVitals(runtime.OwnVitals(r.Collect, r.Stacks))}
	select {
	case <-s.ready:
	default:
		return v, nil
	}
	k, ok := s.rt.(examined)
	if !ok {
		return v, nil
	}
	keeper, err := k.KeeperVitals(ctx, r.Collect, r.Stacks)
	if err != nil {
		s.log.Debug("keeper does not tell how it fares", "err", err)
		return v, ctx.Err()
	}
	p := api.ProcessVitals(keeper)
	v.Keeper = &p
	return v, nil
}
