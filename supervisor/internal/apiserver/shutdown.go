package apiserver

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Undertaker stops everything when the host goes down.
type Undertaker interface {
	Shutdown(ctx context.Context, r api.ShutdownRequest, by string) (api.ShutdownResult, error)
	CancelShutdown(ctx context.Context, by string) error
}

func (s *Server) postShutdown(w http.ResponseWriter, r *http.Request) error {
	var req api.ShutdownRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	res, err := s.Backend.Shutdown(r.Context(), req, peerOf(r.Context()).String())
	return reply(w, res, err)
}

func (s *Server) deleteShutdown(w http.ResponseWriter, r *http.Request) error {
	return reply(w, struct{}{}, s.Backend.CancelShutdown(r.Context(), peerOf(r.Context()).String()))
}
