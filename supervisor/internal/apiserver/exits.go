package apiserver

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Obituarist tells how containers have ended.
type Obituarist interface {
	Exits(ctx context.Context, name string) ([]api.ExitRecord, error)
}

func (s *Server) getExits(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Backend.Exits(r.Context(), r.PathValue("name"))
	return reply(w, list, err)
}
