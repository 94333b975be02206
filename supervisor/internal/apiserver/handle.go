package apiserver

import (
	"context"
	"fmt"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Handler handles containers that run.
type Handler interface {
	Update(ctx context.Context, r api.UpdateRequest, by string) (api.UpdateResult, error)
	Pause(ctx context.Context, r api.TargetsRequest, by string) ([]string, error)
	Resume(ctx context.Context, r api.TargetsRequest, by string) ([]string, error)
	Kill(ctx context.Context, r api.KillRequest, by string) ([]string, error)
	Top(ctx context.Context, target string) ([]api.Process, error)
	Stats(ctx context.Context, targets []string) ([]api.Usage, error)
}

func (s *Server) postUpdate(w http.ResponseWriter, r *http.Request) error {
	var req api.UpdateRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	res, err := s.Backend.Update(r.Context(), req, peerOf(r.Context()).String())
	return reply(w, res, err)
}

// handleTargets is the handler of pause and resume.
func (s *Server) handleTargets(verb func(context.Context, api.TargetsRequest, string) ([]string, error)) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		var req api.TargetsRequest
		if err := readJSON(r, &req); err != nil {
			return err
		}
		if len(req.Targets) == 0 {
			return fmt.Errorf("%w: names no target", errBody)
		}
		names, err := verb(r.Context(), req, peerOf(r.Context()).String())
		return reply(w, api.TargetsResult{Containers: names}, err)
	}
}

func (s *Server) postKill(w http.ResponseWriter, r *http.Request) error {
	var req api.KillRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if len(req.Targets) == 0 {
		return fmt.Errorf("%w: names no target", errBody)
	}
	names, err := s.Backend.Kill(r.Context(), req, peerOf(r.Context()).String())
	return reply(w, api.TargetsResult{Containers: names}, err)
}

func (s *Server) getTop(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Backend.Top(r.Context(), r.URL.Query().Get("target"))
	return reply(w, list, err)
}

func (s *Server) getStats(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Backend.Stats(r.Context(), r.URL.Query()["target"])
	return reply(w, list, err)
}
