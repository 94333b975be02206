package apiserver

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Logger reads output.
type Logger interface {
	Logs(ctx context.Context, r api.LogsRequest) iter.Seq2[api.LogLine, error]
}

// getLogs sends output as frames, or with format=json as lines of LogLine.
func (s *Server) getLogs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	req, err := logsRequest(q)
	if err != nil {
		return err
	}
	if req.Target, err = s.target(req.Target); err != nil {
		return err
	}
	for i := range req.More {
		if req.More[i], err = s.target(req.More[i]); err != nil {
			return err
		}
	}
	lines := q.Get("format") == "json"
	out := newStream(w, framesType)
	if lines {
		out = newStream(w, linesType)
	}
	defer out.close()
	if req.Follow {
		out.open()
	}
	for l, err := range s.Backend.Logs(r.Context(), req) {
		switch {
		case err != nil && r.Context().Err() != nil:
			return nil // the caller or the server has ended it
		case err != nil && !lines && began(w):
			return out.control(api.Control{Error: toAPI(err)})
		case err != nil:
			return err
		case lines:
			err = out.line(l)
		default:
			err = sendLine(out, l)
		}
		if err != nil {
			return nil // the caller has gone
		}
	}
	if req.Follow && r.Context().Err() != nil {
		// The daemon ends, and the output may go on: it must not look like the end of that.
		panic(http.ErrAbortHandler)
	}
	out.open()
	return nil
}

func logsRequest(q url.Values) (api.LogsRequest, error) {
	req := api.LogsRequest{Follow: q.Get("follow") == "1", Previous: q.Get("previous") == "1", After: q["after"]}
	for _, target := range q["target"] {
		switch {
		case target == "":
			return req, fmt.Errorf("%w: target is not set", api.ErrInvalid)
		case req.Target == "":
			req.Target = target
		default:
			req.More = append(req.More, target)
		}
	}
	if req.Target == "" {
		return req, fmt.Errorf("%w: target is not set", api.ErrInvalid)
	}
	if v := q.Get("tail"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return req, fmt.Errorf("%w tail: %q", api.ErrInvalid, v)
		}
		req.Tail = n
	}
	for name, to := range map[string]*time.Time{"since": &req.Since, "until": &req.Until} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return req, fmt.Errorf("%w %s: %q", api.ErrInvalid, name, v)
		}
		*to = t
	}
	return req, nil
}
