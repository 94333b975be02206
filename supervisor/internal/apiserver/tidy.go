package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Tidier knows what is needed and deletes the rest.
type Tidier interface {
	CollectImages(ctx context.Context, o image.GCOptions) (image.GCResult, error)
	ExplainImage(ctx context.Context, ref string) (image.Explanation, error)
	DiskUsage(ctx context.Context) (api.DiskUsage, error)
}

func (s *Server) postCollect(w http.ResponseWriter, r *http.Request) error {
	var req api.GCRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	res, err := s.Backend.CollectImages(r.Context(), image.GCOptions{All: req.All, DryRun: req.DryRun})
	return reply(w, wireGC(res), err)
}

func wireGC(r image.GCResult) api.GCResult {
	out := api.GCResult{Images: r.Images, Blobs: r.Blobs, Deleted: r.Deleted, Freed: r.Freed, Disk: wireDisk(r.Disk)}
	if out.Images == nil {
		out.Images = []string{}
	}
	if out.Blobs == nil {
		out.Blobs = []string{}
	}
	if out.Deleted == nil {
		out.Deleted = []string{}
	}
	return out
}

func wireDisk(d image.DiskState) api.Disk {
	return api.Disk{Path: d.Path, Total: d.Total, Free: d.Free, Reserve: d.Reserve, Used: d.Used, Inodes: d.Inodes, InodesFree: d.InodesFree}
}

func (s *Server) getExplanation(w http.ResponseWriter, r *http.Request) error {
	ref := r.URL.Query().Get("ref")
	if ref == "" {
		return fmt.Errorf("%w: names no image", errBody)
	}
	e, err := s.Backend.ExplainImage(r.Context(), ref)
	if e.Reasons == nil {
		e.Reasons = []string{}
	}
	return reply(w, api.Explanation(e), err)
}

func (s *Server) getDisk(w http.ResponseWriter, r *http.Request) error {
	d, err := s.Backend.DiskUsage(r.Context())
	return reply(w, d, err)
}

// verify is the handler of verify and repair, which are for different callers.
func (s *Server) verify(repair bool) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		var req api.VerifyRequest
		if err := readJSON(r, &req); err != nil {
			return err
		}
		if req.Repair != repair {
			return fmt.Errorf("%w: repair goes to images:repair", errBody)
		}
		refs := req.Refs
		if len(refs) == 0 {
			refs = []string{""} // all
		}
		out := newStream(w, linesType)
		defer out.close()
		pace := newPace()
		o := image.VerifyOptions{Repair: repair, Progress: func(p image.Progress) {
			if pace.due(p) {
				out.offer(func() error { return out.line(api.VerifyMessage{Progress: wireProgress(p)}) })
			}
		}}
		for _, ref := range refs {
			if err := s.verifyOne(r.Context(), out, ref, o); err != nil {
				err = s.explain(err)
				if began(w) {
					return out.line(api.VerifyMessage{Error: toAPI(err)})
				}
				return err
			}
		}
		return out.line(api.VerifyMessage{Done: true})
	}
}

// verifyOne sends what is found. Damage that is left is a finding, no error.
func (s *Server) verifyOne(ctx context.Context, out *streamWriter, ref string, o image.VerifyOptions) error {
	found, err := s.Images.Verify(ctx, ref, o)
	damaged := false
	for _, v := range found {
		damaged = damaged || len(v.Damage) > 0
		if err := out.line(api.VerifyMessage{Image: wireVerification(v)}); err != nil {
			return err
		}
	}
	if damaged && errors.Is(err, image.ErrCorrupt) {
		return nil
	}
	return err
}

func wireVerification(v image.Verification) *api.Verification {
	w := &api.Verification{Image: v.Image, Digest: v.Digest, Layers: v.Layers, Files: v.Files, Bytes: v.Bytes, Damage: []api.Damage{}}
	for _, d := range v.Damage {
		w.Damage = append(w.Damage, api.Damage(d))
	}
	return w
}
