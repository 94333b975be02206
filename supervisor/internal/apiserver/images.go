package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Images is the image store.
type Images interface {
	Pull(ctx context.Context, ref string, o image.PullOptions) (image.Image, error)
	Get(ref string) (image.Image, error)
	List() ([]image.Image, error)
	Remove(ctx context.Context, ref string) (image.RemoveResult, error)
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

// postPull pulls an image. The pull goes on without the caller, who may ask
// again: two pulls of one image share their downloads.
func (s *Server) postPull(w http.ResponseWriter, r *http.Request) error {
	var req api.PullRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	o := image.PullOptions{Policy: image.Policy(req.Policy)}
	if req.Policy == "" {
		o.Policy = image.Missing
	}
	if req.Platform != "" {
		p, err := parsePlatform(req.Platform)
		if err != nil {
			return err
		}
		o.Platform = p
	}
	out := newStream(w, linesType)
	defer out.close()
	pace := newPace()
	o.Progress = func(p image.Progress) {
		if pace.due(p) {
			out.offer(func() error { return out.line(api.PullMessage{Progress: wireProgress(p)}) })
		}
	}
	i, err := s.Images.Pull(s.ctx, req.Ref, o)
	if err != nil {
		err = s.explain(err)
		if began(w) {
			return out.line(api.PullMessage{Error: toAPI(err)})
		}
		return err
	}
	img := wireImage(i)
	return out.line(api.PullMessage{Image: &img})
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
