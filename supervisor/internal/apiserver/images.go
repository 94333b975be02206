package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Images is the image store.
type Images interface {
	Get(ref string) (image.Image, error)
	List() ([]image.Image, error)
	Remove(ctx context.Context, ref string) (image.RemoveResult, error)
	Load(ctx context.Context, r io.Reader, o image.LoadOptions) ([]image.Image, error)
	LoadFolder(ctx context.Context, dir string, o image.LoadOptions) ([]image.Image, error)
	Save(ctx context.Context, w io.Writer, f image.Format, refs []string) error
	SaveFolder(ctx context.Context, dir string, refs []string) error
	Verify(ctx context.Context, ref string, o image.VerifyOptions) ([]image.Verification, error)
}

func (s *Server) getImages(w http.ResponseWriter, _ *http.Request) error {
	all, err := s.Images.List()
	list := make([]api.Image, 0, len(all))
	for _, i := range all {
		list = append(list, wireImage(i))
	}
	return reply(w, list, err)
}

func (s *Server) getImage(w http.ResponseWriter, r *http.Request) error {
	i, err := s.Images.Get(r.PathValue("ref"))
	return reply(w, wireImage(i), err)
}

// deleteImage takes a name away. An image named by its id has all its names
// taken away, if it is one or force is set.
func (s *Server) deleteImage(w http.ResponseWriter, r *http.Request) error {
	ref := r.PathValue("ref")
	i, err := s.Images.Get(ref)
	if err != nil {
		return err
	}
	refs := []string{ref}
	if byID(i, ref) && len(i.Names) > 0 {
		refs = i.Names
		if len(refs) > 1 && r.URL.Query().Get("force") != "1" {
			return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("image %s has several names: %s", ref, strings.Join(refs, " ")),
				Hint: "name the one to remove, or take them all away with -f"}
		}
	}
	res := api.ImageRemoval{Untagged: []string{}, Deleted: []string{}}
	for _, ref := range refs {
		one, err := s.Images.Remove(r.Context(), ref)
		if err != nil && (len(refs) == 1 || !errors.Is(err, image.ErrNotFound)) {
			return err
		}
		res.Untagged = append(res.Untagged, one.Untagged...)
		res.Deleted = append(res.Deleted, one.Deleted...)
		res.Freed += one.Freed
	}
	return reply(w, res, nil)
}

// byID reports whether ref is a digest of the image, or the beginning of one.
func byID(i image.Image, ref string) bool {
	if slices.Contains(i.Names, ref) || len(ref) < 12 {
		return false
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	return strings.HasPrefix(strings.TrimPrefix(i.ConfigID, "sha256:"), hex) ||
		strings.HasPrefix(strings.TrimPrefix(i.Digest, "sha256:"), hex)
}

func parsePlatform(s string) (image.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return image.Platform{}, fmt.Errorf("%w platform %q: want os/architecture, such as linux/arm64", api.ErrInvalid, s)
	}
	p := image.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

func wireImage(i image.Image) api.Image {
	w := api.Image{
		Names: i.Names, Digest: i.Digest, ConfigID: i.ConfigID, Platform: i.Platform,
		Size: i.Size, Created: i.Created, PulledAt: i.PulledAt,
		Config: api.ImageConfig(i.Config),
		Layers: make([]api.ImageLayer, 0, len(i.Layers)),
	}
	for _, l := range i.Layers {
		w.Layers = append(w.Layers, api.ImageLayer(l))
	}
	return w
}

func wireProgress(p image.Progress) *api.Progress {
	w := api.Progress(p)
	return &w
}
