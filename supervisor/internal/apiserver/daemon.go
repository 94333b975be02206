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
	Vitals(ctx context.Context, r api.VitalsRequest) (api.Vitals, error)
}

func (s *Server) getInfo(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, s.Backend.Info(), nil)
}

func (s *Server) postReload(w http.ResponseWriter, r *http.Request) error {
	res, err := s.Backend.Reload(r.Context(), peerOf(r.Context()).String())
	return reply(w, res, err)
}

func (s *Server) getVitals(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	v, err := s.Backend.Vitals(r.Context(), api.VitalsRequest{Collect: q.Get("collect") == "1", Stacks: q.Get("stacks") == "1"})
	return reply(w, v, err)
}
