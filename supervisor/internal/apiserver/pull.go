package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Operator does long work that goes on without its caller.
type Operator interface {
	StartPull(ref string, o image.PullOptions, by string) (id string, wait func(context.Context) (image.Image, error), err error)
	Operations() []api.Operation
	AbortOperation(id, by string) (api.Abort, error)
}

func (s *Server) getOperations(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, s.Backend.Operations(), nil)
}

// abortPath is what stands behind the id in a path: the mux has no wildcards
// within a segment.
const abortPath = ":abort"

func (s *Server) postOperation(w http.ResponseWriter, r *http.Request) error {
	id, ok := strings.CutSuffix(r.PathValue("id"), abortPath)
	if !ok {
		return noSuchCall(r)
	}
	res, err := s.Backend.AbortOperation(id, peerOf(r.Context()).String())
	return reply(w, res, err)
}

// postPull pulls an image. The pull goes on without the caller, who may ask
// again: two pulls of one image share their downloads.
func (s *Server) postPull(w http.ResponseWriter, r *http.Request) error {
	var req api.PullRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	o, err := pullOptions(req)
	if err != nil {
		return err
	}
	// A name that is none is an answer of its own, not one of a stream.
	if _, err := s.Images.Get(req.Ref); errors.Is(err, image.ErrInvalid) {
		return err
	}
	out := newStream(w, linesType)
	defer out.close()
	pace := newPace()
	o.Progress = func(p image.Progress) {
		if pace.due(p) {
			out.offer(func() error { return out.line(api.PullMessage{Progress: wireProgress(p)}) })
		}
	}
	// The operation's id is the first line, whatever the pull says meanwhile.
	held := &heldBack{out: o.Progress}
	o.Progress = held.progress
	id, wait, err := s.Backend.StartPull(req.Ref, o, peerOf(r.Context()).String())
	if err != nil {
		return err
	}
	if err := out.line(api.PullMessage{Operation: id}); err != nil {
		return nil // the caller has gone; the pull goes on
	}
	held.release()
	i, err := wait(r.Context())
	if err != nil {
		return out.line(api.PullMessage{Error: toAPI(s.explain(err))})
	}
	img := wireImage(i)
	return out.line(api.PullMessage{Image: &img})
}

func pullOptions(req api.PullRequest) (o image.PullOptions, err error) {
	switch p := image.Policy(req.Policy); p {
	case "":
		o.Policy = image.Missing
	case image.Missing, image.Always, image.Never, image.Newer:
		o.Policy = p
	default:
		return o, fmt.Errorf("%w pull policy %q: want missing, always, never or newer", api.ErrInvalid, req.Policy)
	}
	if req.Platform != "" {
		o.Platform, err = parsePlatform(req.Platform)
	}
	return o, err
}

// heldBack keeps progress until it may go out.
type heldBack struct {
	out func(image.Progress)

	mu      sync.Mutex
	free    bool
	waiting []image.Progress
}

func (h *heldBack) progress(p image.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.free {
		h.waiting = append(h.waiting, p)
		return
	}
	h.out(p)
}

func (h *heldBack) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.waiting {
		h.out(p)
	}
	h.free, h.waiting = true, nil
}

// pace thins out the progress of downloads: every new step of a layer, but
// bytes only ten times a second.
type pace struct {
	mu   sync.Mutex
	sent map[string]sentProgress // by layer
}

type sentProgress struct {
	step string
	at   time.Time
}

const paceOf = 100 * time.Millisecond

func newPace() *pace { return &pace{sent: map[string]sentProgress{}} }

// due reports whether p is worth sending now.
func (c *pace) due(p image.Progress) bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	last, ok := c.sent[p.Layer]
	if ok && last.step == p.Step && now.Sub(last.at) < paceOf && p.Done != p.Total {
		return false
	}
	c.sent[p.Layer] = sentProgress{p.Step, now}
	return true
}
