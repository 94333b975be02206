package apiserver

import (
	"context"
	"net/http"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Physician looks at the host.
type Physician interface {
	Doctor(ctx context.Context, askRegistries bool) (api.Diagnosis, error)
}

// getDoctor is for everybody who may read: it changes nothing and shows no secret,
// and those who ask at once share one look.
func (s *Server) getDoctor(w http.ResponseWriter, r *http.Request) error {
	d, err := s.Backend.Doctor(r.Context(), r.URL.Query().Get("registries") == "true")
	return reply(w, d, err)
}
