package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// inspect looks at every part. Damage is noted; the error is about looking.
func (v *verifier) inspect(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range v.order {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if p.layer < 0 {
				return v.blob(ctx, p)
			}
			return v.layer(ctx, p)
		})
	}
	return g.Wait()
}

// blob compares a blob with its digest.
func (v *verifier) blob(ctx context.Context, p *part) error {
	n, err := v.s.blobs.Check(ctx, p.name, func(n int64) { v.read(p, ProgressVerify, n) })
	switch {
	case err == nil:
		if s := v.s; s.seals.broken(p.name, s.blobs.Path(p.name)) {
			v.found(p, Damage{Blob: p.name, What: "fs-verity measures another file"})
		}
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist):
		if !p.small { // it has gone to make room
			return nil
		}
		v.found(p, Damage{Blob: p.name, What: "missing"})
	case errors.Is(err, blob.ErrMismatch):
		what := "content differs"
		if n == 0 {
			what = "is empty"
		}
		v.found(p, Damage{Blob: p.name, What: what})
	case errors.Is(err, unix.EIO):
		v.found(p, Damage{Blob: p.name, What: err.Error()})
	default:
		return fmt.Errorf("blob %s: %w", p.name, err)
	}
	return nil
}

// layer compares a layer with its manifest.
func (v *verifier) layer(ctx context.Context, p *part) error {
	rec, l := v.rec(p)
	report := func(path, what string) { v.found(p, Damage{Layer: l.DiffID, Path: path, What: what}) }
	if what := v.s.outside(l.Key, l.DiffID); what != "" {
		report("", what)
		return nil
	}
	done, err := v.s.layers.Examine(ctx, l.Key, layer.Watch{
		Report: report, Read: func(n int64) { v.read(p, ProgressVerify, n) },
	})
	p.files = done.Files
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, layer.ErrNoManifest) && v.s.formOf(l.Key) != layer.Folder:
		report("", "its manifest is missing") // only the first folders were made without
		return nil
	case errors.Is(err, layer.ErrNoManifest):
		err = v.withoutManifest(ctx, p, report)
	case errors.Is(err, layer.ErrManifest):
		report("", "its manifest is damaged")
		return nil
	case errors.Is(err, unix.EIO):
		report("", err.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("layer %s of %s: %w", l.DiffID, rec.Digest, err)
	}
	return nil
}

// outside looks at what stands around a layer's files; "" is good.
func (s *Store) outside(key, diffID string) string {
	info, ok := s.layers.Get(key)
	switch {
	case !ok:
		return "missing"
	case info.DiffID != diffID:
		return "stands for the layer " + info.DiffID
	}
	if info.Form == layer.EROFS {
		if st, err := os.Lstat(s.layers.Mount(key)); err != nil || !st.IsDir() {
			return "the folder to mount it at is missing"
		}
	}
	if info.Form == layer.EROFS && s.seals.broken(key, s.layers.Image(key)) {
		return "fs-verity measures another file"
	}
	return ""
}

func (s *Store) formOf(key string) layer.Form {
	info, _ := s.layers.Get(key)
	return info.Form
}

// withoutManifest is for layers of the first stores: they are compared with what their
// blob unpacks to, and get the manifest of that.
func (v *verifier) withoutManifest(ctx context.Context, p *part, report func(path, what string)) error {
	s := v.s
	rec, l := v.rec(p)
	if _, ok := s.blobs.Size(l.Digest); !ok {
		report("", "has no manifest, and its compressed layer has gone to make room")
		return nil
	}
	stage, _, err := s.again(ctx, rec, p.layer, layer.Folder)
	var wrong *StepError
	if errors.As(err, &wrong) && ctx.Err() == nil {
		report("", "has no manifest, and cannot be unpacked again: "+wrong.Err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = stage.Discard() }() // Open would do it, too
	damaged := false
	done, err := s.layers.CheckStage(ctx, l.Key, stage, layer.Watch{
		Report: func(path, what string) { damaged = true; report(path, what) },
		Read:   func(n int64) { v.read(p, ProgressVerify, n) },
	})
	p.files = done.Files
	if err != nil || damaged {
		return err
	}
	return s.layers.AdoptManifest(l.Key, stage)
}
