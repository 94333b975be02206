package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/archive"
	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/layer"
	"github.com/wherry-run/wherry/image/internal/registry"
)

// LoadOptions configure one Load.
type LoadOptions struct {
	// Name is for images that the archive has no name for; with several of
	// them it is an error.
	Name     string
	Platform Platform       // of an index the image for it is taken; zero: the store's
	Progress func(Progress) // as in PullOptions
}

// Load brings the images of a docker archive or an OCI archive, possibly
// compressed, into the store. It reads r once and to its end, also after an error
// of the archive's content. An image that the archive has no name for, and o
// neither, is kept by its digest. Either all images are loaded or none is named.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Image, error) {
	plain, err := layer.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer plain.Close()
	files, err := archive.Read(ctx, plain, func(r io.Reader, size int64) (archive.Kept, error) { return s.ingest(ctx, r, size) })
	if err != nil {
		_, _ = io.Copy(io.Discard, r)
		return nil, fmt.Errorf("load: %w", s.stepFailed(StepFetch, "archive", err))
	}
	defer files.Close()
	return s.load(ctx, files, o)
}

// LoadFolder is Load for the folder of an OCI layout.
func (s *Store) LoadFolder(ctx context.Context, dir string, o LoadOptions) ([]Image, error) {
	files, err := archive.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	defer files.Close()
	return s.load(ctx, files, o)
}

// ingested is a file of an archive on its way to become a blob.
type ingested struct{ *blob.Ingest }

func (i ingested) ReadAt(p []byte, off int64) (int, error) { return i.File().ReadAt(p, off) }
func (i ingested) Discard()                                { i.Abort() }

func (s *Store) ingest(ctx context.Context, r io.Reader, size int64) (archive.Kept, error) {
	release, err := s.room.claim([]want{{key: fmt.Sprintf("load %p", r), fetch: size}})
	if err != nil {
		return nil, err
	}
	defer release()
	in, err := s.blobs.Ingest()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(in, &checkedReader{ctx: ctx, r: r}); err != nil {
		in.Abort()
		return nil, err
	}
	return ingested{in}, nil
}

// loadable is one image of an archive.
type loadable struct {
	names  []string
	digest string // of its manifest or index
}

func (s *Store) load(ctx context.Context, files *archive.Files, o LoadOptions) ([]Image, error) {
	src := &carried{files: files, made: map[string]*registry.Manifest{}, where: map[string]string{}, known: map[string]v1.Descriptor{}}
	list, err := src.images()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if err := s.nameLoaded(list, o.Name); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var pulls []*pull
	defer func() {
		for _, p := range pulls {
			p.unpin()
		}
	}()
	type ready struct {
		p    *pull
		res  *resolved
		keys []string
	}
	var all []ready
	for _, l := range list {
		p := &pull{s: s, name: l.digest, platform: o.Platform.or(s.platform), progress: o.Progress}
		if len(l.names) > 0 {
			p.name = l.names[0]
		}
		pulls = append(pulls, p)
		res, keys, err := p.fromArchive(ctx, src, l.digest, l.names)
		if err != nil {
			return nil, fmt.Errorf("load: %w", ofImage(p.name, err))
		}
		all = append(all, ready{p, res, keys})
	}
	var images []Image
	for i, r := range all {
		img, err := r.p.commitAs(r.res, r.keys, list[i].names)
		if err != nil {
			return nil, fmt.Errorf("load: %w", s.stepFailed(StepCommit, r.p.name, err))
		}
		images = append(images, img)
	}
	return images, nil
}

// fromArchive unpacks an image whose blobs are all in the archive.
func (p *pull) fromArchive(ctx context.Context, src *carried, id string, names []string) (*resolved, []string, error) {
	s := p.s
	p.report(Progress{Step: string(StepResolve)})
	res, err := s.resolve(ctx, src, id, p.platform)
	if err != nil {
		return nil, nil, s.stepFailed(StepResolve, p.name, err)
	}
	res.leave() // the archive has it, whoever else wants it
	if err := p.admitAll(ctx, res, names); err != nil {
		return nil, nil, err
	}
	p.pin(res)
	for _, j := range res.layers {
		if err := s.bringIn(ctx, src, j.desc); err != nil {
			return nil, nil, s.stepFailed(StepFetch, j.desc.Digest.String(), err)
		}
	}
	keys, err := p.fetch(ctx, nil, res)
	return res, keys, err
}

// admitAll asks the trust policy about every name. Signatures do not travel in
// archives: what must be signed has to have been pulled, with the same digest, before.
func (p *pull) admitAll(ctx context.Context, res *resolved, names []string) error {
	for _, n := range names {
		r, err := p.s.parseRef(n)
		if err != nil {
			return err
		}
		p.ref, p.name = r, n
		if err := p.admit(ctx, admission{digest: res.digest, indexes: res.indexes, offline: true}); err != nil {
			return err
		}
	}
	return nil
}

// bringIn makes a blob of the archive one of the store.
func (s *Store) bringIn(ctx context.Context, src *carried, d v1.Descriptor) error {
	digest := d.Digest.String()
	if size, ok := s.blobs.Size(digest); ok && size == d.Size {
		return nil
	}
	file := src.file(digest)
	if kept, ok := src.files.Kept(file); ok {
		in := kept.(ingested)
		if in.Digest() != digest || in.Size() != d.Size {
			return &blob.MismatchError{Want: digest, Got: in.Digest(), WantSize: d.Size, GotSize: in.Size()}
		}
		return in.Commit()
	}
	r, _, err := src.files.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the archive does not have this blob")
	}
	if err != nil {
		return err
	}
	defer r.Close()
	release, err := s.room.claim([]want{{key: "load " + digest, fetch: d.Size}})
	if err != nil {
		return err
	}
	defer release()
	w, err := s.blobs.Create(digest, d.Size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, &checkedReader{ctx: ctx, r: r}); err != nil {
		return err
	}
	return w.Commit()
}

// commitAs gives the image all its names; without any it is kept by digest.
func (p *pull) commitAs(res *resolved, keys []string, names []string) (img Image, err error) {
	if len(names) == 0 {
		p.name = ""
		return p.commit(res, keys)
	}
	for _, n := range names {
		p.name = n
		if img, err = p.commit(res, keys); err != nil {
			return img, err
		}
	}
	p.report(Progress{Step: ProgressDone, Done: res.size, Total: res.size})
	return img, nil
}

// nameLoaded completes the names.
func (s *Store) nameLoaded(list []*loadable, given string) error {
	if given != "" {
		nameless := slices.DeleteFunc(slices.Clone(list), func(l *loadable) bool { return len(l.names) > 0 })
		if len(nameless) != 1 {
			return fmt.Errorf("a name was given, but %d of the archive's %d images are without one", len(nameless), len(list))
		}
		nameless[0].names = []string{given}
	}
	for _, l := range list {
		for i, n := range l.names {
			r, err := s.parseRef(n)
			if err != nil {
				return err
			}
			if r.digest() != "" {
				return fmt.Errorf("%w: %q: a name with a tag is wanted", ErrInvalid, n)
			}
			l.names[i] = r.String()
		}
	}
	return nil
}
