package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/wherry-run/wherry/runtime/copying"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Copier opens the root folders of containers.
type Copier interface {
	OpenRoot(ctx context.Context, target, what, by string) (copying.Root, error)
}

// maxSkipped bounds how many skipped files are named.
const maxSkipped = 100

// openRoot opens the root folder that a request is about.
func (s *Server) openRoot(r *http.Request, what string) (copying.Root, string, error) {
	q := r.URL.Query()
	name := q.Get("path")
	if name == "" {
		return copying.Root{}, "", fmt.Errorf("%w: path is not set", api.ErrInvalid)
	}
	target, err := s.target(q.Get("target"))
	if err != nil {
		return copying.Root{}, "", err
	}
	if what != "" {
		what += " " + name
	}
	root, err := s.Backend.OpenRoot(r.Context(), target, what, peerOf(r.Context()).String())
	return root, name, err
}

// getFileInfo tells what a path leads to.
func (s *Server) getFileInfo(w http.ResponseWriter, r *http.Request) error {
	root, name, err := s.openRoot(r, "")
	if err != nil {
		return err
	}
	defer root.Dir.Close()
	i, err := root.Stat(name, r.URL.Query().Get("follow") == "1")
	return reply(w, api.FileInfo(i), fileError(err))
}

// getFiles sends a file or a folder as an archive. Whether it is whole stands in the trailer.
func (s *Server) getFiles(w http.ResponseWriter, r *http.Request) error {
	root, name, err := s.openRoot(r, "copy from")
	if err != nil {
		return err
	}
	defer root.Dir.Close()
	q := r.URL.Query()
	follow := q.Get("follow") == "1"
	if _, err := root.Stat(name, follow); err != nil {
		return fileError(err) // while an answer with a status can still be given
	}
	var skipped []string
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Trailer", api.ErrorTrailer+", "+api.SkippedTrailer)
	err = root.Read(r.Context(), w, name, copying.ReadOptions{As: q.Get("as"), Follow: follow, Skipped: bounded(&skipped)})
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	if err != nil {
		b, _ := json.Marshal(toAPI(fileError(err)))
		w.Header().Set(api.ErrorTrailer, string(b))
	}
	if len(skipped) > 0 {
		b, _ := json.Marshal(skipped)
		w.Header().Set(api.SkippedTrailer, string(b))
	}
	return nil
}

// bounded collects what is skipped, up to a bound.
func bounded(list *[]string) func(string) {
	return func(text string) {
		if len(*list) < maxSkipped {
			*list = append(*list, text)
		}
	}
}

// putFiles unpacks an archive.
func (s *Server) putFiles(w http.ResponseWriter, r *http.Request) error {
	root, name, err := s.openRoot(r, "copy to")
	if err != nil {
		return err
	}
	defer root.Dir.Close()
	res := api.CopyResult{}
	o := copying.WriteOptions{Owners: r.URL.Query().Get("owners") == "1", Skipped: bounded(&res.Skipped)}
	err = root.Write(r.Context(), r.Body, name, o)
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body) // what stands behind the archive's end
	}
	return reply(w, res, fileError(err))
}

// fileError gives errors about files their codes.
func fileError(err error) error {
	e := &api.Error{Code: api.CodeInvalid}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, copying.ErrReadOnly):
		e.Hint = "the container's root or volume is read-only; a volume that can be written would do"
	case errors.Is(err, fs.ErrNotExist):
		e.Code = api.CodeNoFile
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.ELOOP):
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Code = api.CodeNoSpace
	default:
		return err
	}
	e.Message = err.Error()
	return e
}
