package apiserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Runner starts units made of flags.
type Runner interface {
	RunUnit(ctx context.Context, r api.RunRequest, by string, progress func(image.Progress)) (name string, err error)
}

// postRun starts a unit. With Attach it stays: output, then the exit. The
// start belongs to the request, what follows to the daemon: a unit whose
// caller has gone goes on, and with Remove is still removed at its end.
func (s *Server) postRun(w http.ResponseWriter, r *http.Request) error {
	var req api.RunRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	by := peerOf(r.Context()).String()
	if wantsDuplex(r) {
		return s.postRunStream(w, req, by)
	}
	out := newStream(w, framesType)
	defer out.close()
	name, err := s.Backend.RunUnit(r.Context(), req, by, pullProgress(out))
	if err != nil {
		if began(w) {
			return out.control(api.Control{Error: toAPI(err)})
		}
		return err
	}
	if req.Attach && r.Context().Err() != nil && s.ctx.Err() == nil {
		// The caller went away as the start succeeded: it takes it for undone.
		_, err := s.Backend.Remove(s.ctx, api.ActRequest{Units: []string{name}, Force: true}, by)
		return err
	}
	_ = out.control(api.Control{Created: name})
	if !req.Attach {
		return nil
	}
	exit, err := s.attach(r.Context(), name, out)
	if err := s.removeAfter(req, name, by, err); err != nil {
		return out.control(api.Control{Error: toAPI(s.explain(err))})
	}
	return out.control(api.Control{Exit: &exit})
}

// pullProgress sends how far a pull is, now and then.
func pullProgress(out *streamWriter) func(image.Progress) {
	pace := newPace()
	return func(p image.Progress) {
		if pace.due(p) {
			out.offer(func() error { return out.control(api.Control{Progress: wireProgress(p)}) })
		}
	}
}

// removeAfter removes a unit that has ended if the request says so, and adds that to err.
func (s *Server) removeAfter(req api.RunRequest, name, by string, err error) error {
	if !req.Remove || s.ctx.Err() != nil {
		return err
	}
	_, rmErr := s.Backend.Remove(s.ctx, api.ActRequest{Units: []string{name}, Force: true}, by)
	if rmErr != nil && !errors.Is(rmErr, api.ErrNoSuchUnit) && err == nil {
		err = rmErr
	}
	return err
}

// attach sends the unit's output until it has ended for good and returns how.
func (s *Server) attach(ctx context.Context, name string, out *streamWriter) (api.Exit, error) {
	for line, err := range s.Backend.Logs(ctx, api.LogsRequest{Target: name, Follow: true, Whole: true}) {
		if err != nil {
			if ctx.Err() != nil {
				break // the caller has gone; the unit goes on
			}
			return api.Exit{}, err
		}
		if sendLine(out, line) != nil {
			break
		}
	}
	return s.Backend.WaitExit(s.ctx, name)
}

// sendLine sends a record as the bytes that the process wrote.
func sendLine(out *streamWriter, l api.LogLine) error {
	typ := api.FrameStdout
	if l.Stream == "stderr" {
		typ = api.FrameStderr
	}
	if l.Partial {
		return out.frame(typ, l.Text)
	}
	return out.frame(typ, l.Text, newline)
}

var newline = []byte{'\n'}

// explain turns the end of the server into an error that says so.
func (s *Server) explain(err error) error {
	if s.ctx.Err() != nil {
		return api.ErrUnavailable
	}
	return err
}
