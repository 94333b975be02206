package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// archiveType is the content type of what load reads and save writes.
const archiveType = "application/x-tar"

// postLoad reads an archive as it comes: the caller sends no faster than the
// store takes it.
func (s *Server) postLoad(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o := image.LoadOptions{Name: q.Get("name")}
	if p := q.Get("platform"); p != "" {
		var err error
		if o.Platform, err = parsePlatform(p); err != nil {
			return err
		}
	}
	folder := q.Get("folder")
	if folder != "" && !filepath.IsAbs(folder) {
		return fmt.Errorf("%w folder %q: not an absolute path", api.ErrInvalid, folder)
	}
	// Without this, HTTP/1 reads the whole body before the first line of progress goes out.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return err
	}
	// What is left of the body net/http reads after the answer, and from its end on reads ahead, which it stops no more:
	// the next request of this connection would panic at the end of its own body.
	w.Header().Set("Connection", "close")
	out := newStream(w, linesType)
	defer out.close()
	pace := newPace()
	o.Progress = func(p image.Progress) {
		if pace.due(p) {
			out.offer(func() error { return out.line(api.LoadMessage{Progress: wireProgress(p)}) })
		}
	}
	var loaded []image.Image
	var err error
	if folder != "" {
		loaded, err = s.Images.LoadFolder(r.Context(), folder, o)
	} else {
		loaded, err = s.Images.Load(r.Context(), r.Body, o)
	}
	if err != nil {
		err = s.explain(err)
		if began(w) {
			return out.line(api.LoadMessage{Error: toAPI(err)})
		}
		return err
	}
	m := api.LoadMessage{Images: make([]api.Image, 0, len(loaded))}
	for _, i := range loaded {
		m.Images = append(m.Images, wireImage(i))
	}
	return out.line(m)
}

// postSave sends an archive, or has the store write a folder.
func (s *Server) postSave(w http.ResponseWriter, r *http.Request) error {
	var req api.SaveRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if len(req.Refs) == 0 {
		return fmt.Errorf("%w: names no image", errBody)
	}
	if req.Folder != "" {
		return s.saveFolder(w, r.Context(), req)
	}
	format := image.Format(req.Format)
	switch format {
	case "":
		format = image.DockerArchive
	case image.DockerArchive, image.OCIArchive:
	default:
		return fmt.Errorf("%w format %q: want docker-archive or oci-archive, or a folder", api.ErrInvalid, req.Format)
	}
	out := &archiveWriter{w: w}
	err := s.Images.Save(r.Context(), out, format, req.Refs)
	if err == nil {
		out.begin()
		return nil
	}
	if !out.begun || r.Context().Err() != nil {
		return s.explain(err)
	}
	b, marshalErr := json.Marshal(toAPI(s.explain(err)))
	if marshalErr != nil {
		return marshalErr
	}
	w.Header().Set(api.ErrorTrailer, string(b))
	return nil
}

func (s *Server) saveFolder(w http.ResponseWriter, ctx context.Context, req api.SaveRequest) error {
	switch {
	case req.Format != "" && req.Format != string(image.OCIFolder):
		return fmt.Errorf("%w format %q: a folder is an OCI layout", api.ErrInvalid, req.Format)
	case !filepath.IsAbs(req.Folder):
		return fmt.Errorf("%w folder %q: not an absolute path", api.ErrInvalid, req.Folder)
	}
	err := s.Images.SaveFolder(ctx, req.Folder, req.Refs)
	return reply(w, struct{}{}, err)
}

// archiveWriter sends the header with the first bytes: an error before them is
// an answer of its own.
type archiveWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (a *archiveWriter) begin() {
	if !a.begun {
		a.begun = true
		a.w.Header().Set("Content-Type", archiveType)
		a.w.Header().Set("Trailer", api.ErrorTrailer)
		a.w.WriteHeader(http.StatusOK)
	}
}

func (a *archiveWriter) Write(p []byte) (int, error) {
	a.begin()
	return a.w.Write(p)
}

var _ io.Writer = (*archiveWriter)(nil)
