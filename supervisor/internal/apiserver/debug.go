package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Debugger runs tools in the namespaces of containers.
type Debugger interface {
	Debug(ctx context.Context, r api.DebugRequest, by string, progress func(image.Progress)) (api.Attached, error)
	DebugInput(ctx context.Context, a api.Attached) (*os.File, error)
	EndDebug(ctx context.Context, a api.Attached) error
}

// debugEnd is how long the removal of a debug container may take.
const debugEnd = 30 * time.Second

// postDebug runs a command in the namespaces of a container, and removes all of it when either
// side has ended.
func (s *Server) postDebug(w http.ResponseWriter, r *http.Request) error {
	var req api.DebugRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if !wantsDuplex(r) {
		return errNoUpgrade
	}
	if req.Image == "" {
		return fmt.Errorf("%w: no image", errBody)
	}
	target, err := s.target(req.Target)
	if err != nil {
		return err
	}
	req.Target = target
	by := peerOf(r.Context()).String()
	d, err := s.upgrade(w)
	if err != nil {
		return err
	}
	defer s.closeDuplex(d)
	at, err := s.Backend.Debug(d.gone, req, by, pullProgress(d.out))
	if err != nil {
		return s.lastFrame(d, api.Exit{}, err)
	}
	exit, err := s.debug(d, at, by)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), debugEnd)
	defer cancel()
	if eerr := s.Backend.EndDebug(ctx, at); err == nil {
		err = eerr
	}
	return s.lastFrame(d, exit, err)
}

// debug connects the caller with the container until either goes.
func (s *Server) debug(d *duplex, at api.Attached, by string) (api.Exit, error) {
	file, err := s.Backend.DebugInput(d.gone, at)
	if err != nil {
		return api.Exit{}, err
	}
	to := s.sinkOf(d, at, file, by)
	if file != nil {
		defer file.Close()
	}
	if !at.Stdin {
		to.file, to.end = nil, nil
	}
	_ = d.out.control(api.Control{Created: at.Unit})
	d.connect(to)
	s.sendOutput(d, s.Backend.Output(d.gone, at, -1))
	if d.gone.Err() != nil {
		return api.Exit{}, d.gone.Err()
	}
	return s.Backend.WaitRun(s.ctx, at)
}
