package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/fan"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// reportEvery bounds how often a layer reports its progress.
const reportEvery = 100 * time.Millisecond

// layerJob is one layer of an image being pulled.
type layerJob struct {
	desc   v1.Descriptor
	diffID string
	chain  string
}

// have tells whether the layer is there and its blob is known to be it.
func (s *Store) have(j layerJob) (key string, ok bool) {
	size, ok := s.blobs.Size(j.desc.Digest.String())
	if !ok || size != j.desc.Size || s.blobs.DiffID(j.desc.Digest.String()) != j.diffID {
		return "", false
	}
	return s.layers.Find(j.diffID, j.chain)
}

// work is what a layer holds while it is fetched and unpacked.
type work struct {
	busy *disk.Busy // the sync waits for it
	free func()     // gives the slot back
}

// fly is the work of a flight: the blob is on disk and verified afterwards, and
// the layer is either committed, if it stands for itself, or left in f.stage.
func (s *Store) fly(ctx context.Context, f *flight, r *repository, j layerJob) error {
	busy := s.sync.Begin()
	defer busy.End()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w := work{busy, sync.OnceFunc(func() { <-s.slots })}
	defer w.free()
	digest := j.desc.Digest.String()
	if size, ok := s.blobs.Size(digest); ok && size == j.desc.Size {
		file, err := s.blobs.Open(digest)
		if err != nil {
			return s.stepFailed(StepFetch, digest, err)
		}
		err = s.land(ctx, f, w, j, file, s.blobs.Verifier(digest, j.desc.Size))
		file.Close()
		if !errors.Is(err, ErrCorrupt) || ctx.Err() != nil {
			return err
		}
		s.log.Warn("stored blob is damaged, fetching it again", "layer", digest, "err", err)
		if _, err := s.blobs.Remove(digest); err != nil {
			return s.stepFailed(StepFetch, digest, err)
		}
	}
	b, err := s.blobs.Create(digest, j.desc.Size)
	if err != nil {
		return s.stepFailed(StepFetch, digest, err)
	}
	defer b.Abort()
	src := r.source(j.desc).Reader(ctx)
	defer src.Close()
	return s.land(ctx, f, w, j, src, b)
}

// land brings one stream to its two ends at the same time: the blob and the
// unpacked layer.
func (s *Store) land(ctx context.Context, f *flight, w work, j layerJob, src io.Reader, b *blob.Writer) (err error) {
	digest := j.desc.Digest.String()
	stage, err := s.layers.Stage()
	if err != nil {
		return s.stepFailed(StepUnpack, digest, err)
	}
	defer func() {
		if stage != nil {
			err = errors.Join(err, stage.Discard())
		}
	}()
	res, unpackErr, err := s.stream(ctx, f, j, src, b, stage.Diff())
	if err != nil {
		return s.stepFailed(StepFetch, digest, err)
	}
	if unpackErr == nil && res.DiffID != j.diffID {
		unpackErr = &StepError{Step: StepVerify, Object: digest, Err: fmt.Errorf("%w: it unpacks to %s, the image's config says %s", ErrCorrupt, res.DiffID, j.diffID)}
	}
	if unpackErr != nil {
		// The bytes are right: whoever tries again need not fetch them.
		return s.stepFailed(StepUnpack, digest, errors.Join(unpackErr, b.Commit()))
	}
	if err := s.blobs.SetDiffID(digest, res.DiffID); err != nil {
		return s.stepFailed(StepCommit, digest, err)
	}
	w.free()
	f.report(StepCommit, j.desc.Size)
	if res.Dependent || res.NeedsLower {
		if err := b.Commit(); err != nil {
			return s.stepFailed(StepCommit, digest, err)
		}
		f.mu.Lock()
		f.stage, f.result = stage, res
		f.mu.Unlock()
		stage = nil
		return nil
	}
	err = stage.Commit(layer.Key(res.DiffID), infoOf(res, ""), func() error {
		return errors.Join(w.busy.Sync(), b.Publish())
	})
	if err == nil {
		stage = nil
	}
	return s.stepFailed(StepCommit, digest, err)
}

func infoOf(r layer.Result, chain string) layer.Info {
	i := layer.Info{DiffID: r.DiffID, Dependent: r.Dependent, Size: r.Size, Entries: r.Entries, Root: r.Root, OpaqueRoot: r.OpaqueRoot}
	if i.Dependent {
		i.Chain = chain
	}
	return i
}

// stream runs the goroutines of one layer and verifies the blob. An archive
// that cannot be unpacked does not end it: wrong bytes are reported as such and
// not as the garbage they unpack to.
func (s *Store) stream(ctx context.Context, f *flight, j layerJob, src io.Reader, w *blob.Writer, dir string) (res layer.Result, unpackErr, err error) {
	g, gctx := errgroup.WithContext(ctx)
	both := fan.New(2)
	g.Go(func() error {
		return both.Run(gctx, &counting{r: src, f: f})
	})
	g.Go(func() error {
		defer both.Reader(0).Close()
		if _, err := io.Copy(w, both.Reader(0)); err != nil {
			return err
		}
		f.report(StepUnpack, j.desc.Size)
		return w.Verify()
	})
	g.Go(func() error {
		defer both.Reader(1).Close()
		res, unpackErr = layer.Unpack(gctx, both.Reader(1), dir, layer.Options{})
		if errors.Is(unpackErr, syscall.ENOSPC) { // the rest of the blob would not fit either
			return s.stepFailed(StepUnpack, j.desc.Digest.String(), unpackErr)
		}
		return nil
	})
	err = g.Wait()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return res, unpackErr, err
}

// counting reports how much of a layer has come.
type counting struct {
	r    io.Reader
	f    *flight
	n    int64
	last time.Time
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if now := time.Now(); n > 0 && now.Sub(c.last) >= reportEvery {
		c.last = now
		c.f.report(StepFetch, c.n)
	}
	return n, err
}

// settle turns a flight's unpacked layer into the one for this chain, above the
// layers with the given keys (the topmost first).
func (s *Store) settle(ctx context.Context, f *flight, j layerJob, below []string) (string, error) {
	digest := j.desc.Digest.String()
	dirs := make([]string, len(below))
	for i, key := range below {
		dirs[i] = s.layers.Diff(key)
	}
	lower, err := layer.OpenLower(dirs)
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	defer lower.Close()
	stage, res := f.claim()
	if stage != nil && !res.NeedsLower {
		if err = layer.Adopt(stage.Diff(), res.Implicit, lower); err == nil {
			return s.commitDependent(stage, res, j)
		}
	}
	if stage != nil {
		if derr := stage.Discard(); derr != nil {
			return "", s.stepFailed(StepUnpack, digest, derr)
		}
		if err != nil && !errors.Is(err, layer.ErrNeedsLower) {
			return "", s.stepFailed(StepUnpack, digest, err)
		}
	}
	return s.unpackAbove(ctx, j, lower)
}

// unpackAbove unpacks a stored blob with the lower layers at hand.
func (s *Store) unpackAbove(ctx context.Context, j layerJob, lower *layer.Lower) (string, error) {
	digest := j.desc.Digest.String()
	file, err := s.blobs.Open(digest)
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	defer file.Close()
	stage, err := s.layers.Stage()
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	res, err := layer.Unpack(ctx, file, stage.Diff(), layer.Options{Lower: lower})
	if err == nil && res.DiffID != j.diffID {
		err = fmt.Errorf("%w: the stored blob unpacks to %s, not %s", ErrCorrupt, res.DiffID, j.diffID)
	}
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, errors.Join(err, stage.Discard()))
	}
	return s.commitDependent(stage, res, j)
}

func (s *Store) commitDependent(stage *layer.Stage, res layer.Result, j layerJob) (string, error) {
	key := layer.Key(j.chain)
	if !res.Dependent {
		key = layer.Key(j.diffID)
	}
	if err := stage.Commit(key, infoOf(res, j.chain), s.sync.Sync); err != nil {
		return "", s.stepFailed(StepCommit, j.desc.Digest.String(), errors.Join(err, stage.Discard()))
	}
	return key, nil
}
