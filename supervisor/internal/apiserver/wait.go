package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Waiter waits for units.
type Waiter interface {
	WaitExit(ctx context.Context, name string) (api.Exit, error)
	WaitState(ctx context.Context, names []string, state string) error
	WaitUp(ctx context.Context, names []string) error
}

// postWait waits for a state of all named units, or for the end of each.
func (s *Server) postWait(w http.ResponseWriter, r *http.Request) error {
	var req api.WaitRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if len(req.Units) == 0 {
		return fmt.Errorf("%w: names no unit", errBody)
	}
	names, err := s.Backend.Match(req.Units)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.Timeout))
		defer cancel()
	}
	var res api.WaitResult
	switch {
	case req.State == api.WaitUp:
		err = s.Backend.WaitUp(ctx, names)
	case req.State != "":
		err = s.Backend.WaitState(ctx, names, req.State)
	}
	for _, name := range names {
		waited := api.Waited{Name: name}
		if req.State == "" {
			var exit api.Exit
			if exit, err = s.Backend.WaitExit(ctx, name); err == nil {
				waited.Exit = &exit
			}
		}
		if err != nil {
			break
		}
		res.Units = append(res.Units, waited)
	}
	if errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil {
		err = fmt.Errorf("%w after %s", api.ErrTimeout, time.Duration(req.Timeout))
	}
	return reply(w, res, err)
}
