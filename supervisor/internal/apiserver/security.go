package apiserver

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Assessor tells how closed units are.
type Assessor interface {
	Security(ctx context.Context, name string) (api.Security, error)
}

func (s *Server) getSecurity(w http.ResponseWriter, r *http.Request) error {
	name, err := s.unitOf(r.PathValue("name"))
	if err != nil {
		return err
	}
	report, err := s.Backend.Security(r.Context(), name)
	return reply(w, report, err)
}
