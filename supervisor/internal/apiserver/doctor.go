package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Physician looks at the host.
type Physician interface {
	Doctor(ctx context.Context, r api.DoctorRequest) (api.Diagnosis, error)
}

// getDoctor is for everybody who may read: it changes nothing and shows no secret,
// and those who ask at once share one look.
func (s *Server) getDoctor(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	req := api.DoctorRequest{Registries: q.Get("registries") == "true"}
	if text := q.Get("limit"); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil || limit <= 0 {
			return fmt.Errorf("%w: limit %q: want a duration such as 5s", api.ErrInvalid, text)
		}
		req.Limit = min(limit, time.Minute)
	}
	d, err := s.Backend.Doctor(r.Context(), req)
	return reply(w, d, err)
}
