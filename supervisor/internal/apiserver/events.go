package apiserver

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strconv"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Eventer tells what happened.
type Eventer interface {
	Events(ctx context.Context, since uint64, follow bool) iter.Seq2[api.Event, error]
}

func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	var since uint64
	if v := q.Get("since"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return fmt.Errorf("%w since: %q", api.ErrInvalid, v)
		}
		since = n
	}
	follow := q.Get("follow") == "1"
	out := newStream(w, linesType)
	defer out.close()
	if follow {
		out.open()
	}
	for e, err := range s.Backend.Events(r.Context(), since, follow) {
		switch {
		case err != nil && r.Context().Err() != nil:
			return nil
		case err != nil:
			return err
		case out.line(e) != nil:
			return nil // the caller has gone
		}
	}
	out.open()
	return nil
}
