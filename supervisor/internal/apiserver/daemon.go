package apiserver

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Daemon is the supervisor as such.
type Daemon interface {
	Info() api.Info
	Reload(ctx context.Context, by string) (api.ReloadResult, error)
}

func (s *Server) getInfo(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, s.Backend.Info(), nil)
}

func (s *Server) postReload(w http.ResponseWriter, r *http.Request) error {
	res, err := s.Backend.Reload(r.Context(), peerOf(r.Context()).String())
	return reply(w, res, err)
}
